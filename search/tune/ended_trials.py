"""Release of ended trials from Ray Tune, which keeps all trials of a run in memory and inspects them at each step.

The ledger is the record of the trials, so that nothing reads Tune's objects of an ended trial. Without this module,
the memory of the driver and the time of a step grow with the number of trials. The attributes are those of
``ray.tune.execution.tune_controller`` in Ray 2.60; a test runs a search and counts the trials that Tune holds.
"""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.progress_reporter import TrialProgressCallback

__all__ = ["NoProgress", "release_ended_trials"]


class NoProgress(TrialProgressCallback):
    """Progress output of Tune that does nothing; the one that Tune adds otherwise keeps all trials."""

    def on_trial_result(self, *args: Any, **info: Any) -> None:
        """No-op."""

    def on_trial_complete(self, *args: Any, **info: Any) -> None:
        """No-op."""

    def on_trial_error(self, *args: Any, **info: Any) -> None:
        """No-op."""


def release_ended_trials(controller: TuneController) -> None:
    """Remove the trials that have ended from Tune's controller.

    A trial whose actor is still being stopped is removed by a later call.

    Args:
        controller: Ray's controller of the run.
    """
    ended = [
        trial
        for trials in (controller._stopped_trials, controller._failed_trials)
        for trial in trials
        if trial not in controller._trial_to_actor
    ]
    if not ended:
        return
    for trial in ended:
        for trials in (controller._stopped_trials, controller._failed_trials, controller._trials_to_cache):
            trials.discard(trial)
        controller._live_trials.discard(trial)
        controller._trial_metadata.pop(trial.trial_id, None)
    released = {id(trial) for trial in ended}
    for held in (controller._trials, controller._pending_trials_list):  # Tune passes the first one to its callbacks
        held[:] = [trial for trial in held if id(trial) not in released]
