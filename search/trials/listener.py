"""The base class of objects that observe trials, and the order of its events.

The recorder calls every listener for each event of a trial, in this order:

1. ``on_trial_start``, after the ledger has the trial as running;
2. ``on_epoch_end`` for each new epoch, after the ledger has recorded the epoch;
3. ``on_trial_end``, before the ledger records the end;
4. ``on_trial_recorded``, after the ledger has recorded the end.

``on_trial_end`` comes before the ledger write for two reasons. A trial that has ended in the ledger accepts no
further attributes, such as the location of its checkpoint. And if the driver is killed between the two steps, a
resumed search continues the trial and repeats the event. A listener can therefore receive ``on_trial_end`` in
several runs of the search for one trial, and must give the same result each time. If the driver is killed between
events 3 and 4, a resumed search does not repeat event 4.

``on_trial_pause`` takes the place of events 3 and 4 for a trial that a command pauses; ``on_trial_start`` follows if it
is resumed.

``on_trial_end_elsewhere`` is the only event of a trial that another driver of the study trains.

An exception in a listener ends the search.
"""

from __future__ import annotations

from typing import Literal

from clinie_core.config import TrialConfig
from search.trials.result import EpochResult

__all__ = ["FinalState", "TrialListener"]

FinalState = Literal["complete", "pruned", "infeasible", "failed"]
"""State of a trial that has ended."""


class TrialListener:
    """Observer of trials, such as tracking or the progress display.

    Subclasses override the events that they need; the methods here do nothing.
    """

    def on_trial_start(self, number: int, config: TrialConfig) -> None:
        """Handle a trial that starts or resumes; the ledger has it as running.

        Args:
            number: Number of the trial.
            config: Its configuration.
        """

    def on_epoch_end(self, number: int, result: EpochResult) -> None:
        """Handle a new epoch; the ledger has recorded it.

        Args:
            number: Number of the trial.
            result: Results of the epoch.
        """

    def on_trial_end(self, number: int, state: FinalState, reason: str | None) -> None:
        """Handle the end of a trial; the ledger records it right after all listeners have returned.

        Args:
            number: Number of the trial.
            state: State in which the trial ends.
            reason: One line without document text for a trial that failed or is infeasible.
        """

    def on_trial_pause(self, number: int) -> None:
        """Handle a trial that a command has paused; the ledger has it as paused.

        Args:
            number: Number of the trial.
        """

    def on_trial_recorded(self, number: int) -> None:
        """Handle a trial whose end the ledger has recorded: it is never resumed.

        Args:
            number: Number of the trial.
        """

    def on_trial_end_elsewhere(self, number: int) -> None:
        """Handle a trial whose end another driver of the study has recorded.

        Args:
            number: Number of the trial.
        """
