"""The progress display of a search: finished and running trials, the best trial, and the remaining time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clinie_core.config import TrialConfig
from clinie_core.data.corpora.detection import Detection
from clinie_core.errors import Problem
from search.config.description import describe_config
from search.config.objectives import Limit, describe_violations
from search.control.commands import CommandEntry
from search.ledger.ledger import Ledger
from search.ledger.records import ENDED
from search.trials.listener import FinalState, TrialListener
from search.trials.result import EpochResult

__all__ = ["Progress"]

LEFT_OUT = ("skipped", "trimmed")


@dataclass
class _Row:
    config: TrialConfig
    epoch: int = 0
    score: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Progress(TrialListener):
    """Progress display of a search.

    A terminal shows a table that is updated in place. Other outputs get one line per finished trial.

    Args:
        console: Console to print to.
        trials: Number of trials in the study's budget.
        hours: Limit on the run time in hours; None for no limit.
    """

    console: Console
    trials: int
    hours: float | None
    _running: dict[int, _Row] = field(default_factory=dict)
    _ended: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ENDED, 0))
    _metric: str = ""
    _maximized: bool = True
    _limits: tuple[Limit, ...] = ()
    _repeats: Callable[[int], bool] = lambda number: False
    _best: tuple[float, int, str] | None = None
    _started_at: float = 0.0
    _ended_now: int = 0
    _wait: str | None = None
    _announced_wait: bool = False
    _previous_scores: dict[int, float] = field(default_factory=dict)

    def show_formats(self, detections: Mapping[str, Detection]) -> None:
        """Print the detected format of each corpus."""
        for name, detection in detections.items():
            self.console.print(f"corpus {name}: {detection}", soft_wrap=True, markup=False)

    def show_warnings(self, warnings: Iterable[Problem]) -> None:
        """Print warnings about the corpus, and the parts of it that were skipped or trimmed, with their counts."""
        left_out = Counter[str]()
        for warning in warnings:
            kind = warning.severity if warning.severity in LEFT_OUT else "warning"
            left_out.update([kind] if kind in LEFT_OUT else [])
            self.console.print(f"[yellow]{kind}[/yellow] {escape(str(warning))}", soft_wrap=True)
        if left_out:
            counts = ", ".join(f"{count:,} problems {kind}" for kind, count in sorted(left_out.items()))
            self.console.print(f"corpus: {counts}")

    def prepare(self, study: str, home: str) -> None:
        """Announce the search, because Ray and its workers take a while to start."""
        self.console.print(
            f"study {study} in {home}: {self.trials} trials; starting Ray and the workers", soft_wrap=True
        )

    @contextmanager
    def watch(self, ledger: Ledger) -> Iterator[None]:
        """Display the search within this context."""
        self._metric, self._maximized = ledger.metrics[0], ledger.maximized
        self._limits, self._repeats = ledger.limits, ledger.is_repeat
        self._started_at = time.monotonic()
        for record in ledger.records():
            if record.state in self._ended:
                self._ended[record.state] += 1
            if record.epochs:  # a resumed trial starts with its previous best score
                self._previous_scores[record.number] = record.metrics[self._metric]
            if record.config and record.state == "complete" and record.repeats is None:
                self._update_best(record.number, record.config, record.metrics)
        if not self.console.is_terminal:
            yield
            return
        with Live(get_renderable=self._render, console=self.console, refresh_per_second=2, transient=True):
            yield

    def show_wait(self, wait: str | None) -> None:
        """Show what the search waits for; an output other than a terminal gets a line when a wait begins.

        Args:
            wait: What the search waits for; None while it does not wait for nodes.
        """
        if wait and not self._announced_wait and not self.console.is_terminal:
            self.console.print(wait, soft_wrap=True, highlight=False)
        self._wait, self._announced_wait = wait, wait is not None

    def show_command(self, entry: CommandEntry) -> None:
        """Print a command to the search and the decision on it."""
        command = entry.command
        if entry.decision is not None and entry.decision.is_accepted:
            self.add_trials(command.trials + (command.kind == "clone"))
        self.console.print(f"command {command}: {entry.decision}", soft_wrap=True, markup=False)

    def add_trials(self, count: int) -> None:
        """Add trials to the budget of the study."""
        self.trials += count

    def on_trial_pause(self, number: int) -> None:
        """Remove the trial from the running trials."""
        score = self._running.pop(number).score
        if score is not None:
            self._previous_scores[number] = score

    def on_trial_start(self, number: int, config: TrialConfig) -> None:
        """Add the trial to the running trials."""
        self._running[number] = _Row(config, score=self._previous_scores.get(number))

    def on_epoch_end(self, number: int, result: EpochResult) -> None:
        """Update the trial's epoch and best score."""
        row, value = self._running[number], result.metrics[self._metric]
        row.epoch = result.epoch
        row.score = value if row.score is None else self._pick_better(row.score, value)
        row.metrics = result.metrics

    def on_trial_end(self, number: int, state: FinalState, reason: str | None) -> None:
        """Remove the trial from the running trials; print its line if the output is no terminal."""
        row = self._running.pop(number)
        self._ended[state] += 1
        self._ended_now += 1
        if state == "complete" and row.score is not None and not self._repeats(number):
            self._update_best(number, row.config, {**row.metrics, self._metric: row.score})
        if not self.console.is_terminal:
            score = "-" if row.score is None else f"{row.score:.4f}"
            line = f"trial {number} {state} after {row.epoch} epochs, {self._metric} {score}: "
            self.console.print(
                line + describe_config(row.config) + (f" ({reason})" if reason else ""), soft_wrap=True, highlight=False
            )

    def _pick_better(self, a: float, b: float) -> float:
        return max(a, b) if self._maximized else min(a, b)

    def _update_best(self, number: int, config: TrialConfig, metrics: Mapping[str, float]) -> None:
        score = metrics[self._metric]
        if describe_violations(self._limits, metrics):
            return
        if self._best is None or (score != self._best[0] and self._pick_better(self._best[0], score) == score):
            self._best = (score, number, describe_config(config))

    def _estimate_time_left(self) -> str:
        """Extrapolate the pace of finished trials to the remaining ones, within the limit on the run time."""
        elapsed = time.monotonic() - self._started_at
        if not self._ended_now:
            return "-"
        seconds = elapsed / self._ended_now * max(0, self.trials - sum(self._ended.values()))
        if self.hours:
            seconds = min(seconds, self.hours * 3600 - elapsed)
        return f"{int(max(0, seconds)) // 60} min {int(max(0, seconds)) % 60:02d} s"

    def _render(self) -> RenderableType:
        done = sum(self._ended.values())
        elapsed = int(time.monotonic() - self._started_at)
        head = Table.grid(padding=(0, 2))
        head.add_row(
            ProgressBar(total=self.trials, completed=done, width=30),
            f"{done} of {self.trials} trials",
            ", ".join(f"{count} {state}" for state, count in self._ended.items()),
            f"{elapsed // 60} min {elapsed % 60:02d} s",
            f"left: {self._estimate_time_left()}",
        )
        best = "none yet" if self._best is None else f"{self._best[0]:.4f}  trial {self._best[1]}  {self._best[2]}"
        table = Table(box=None, padding=(0, 2), header_style="bold")
        for column in ("running", "epoch", self._metric, "configuration"):
            table.add_column(column, overflow="fold")
        for number, row in sorted(self._running.items()):
            score = "" if row.score is None else f"{row.score:.4f}"
            table.add_row(str(number), f"{row.epoch}/{row.config.epochs}", score, describe_config(row.config))
        if self._wait:
            table.add_row("", "", "", self._wait)
        elif not self._running:
            table.add_row("", "", "", "starting workers" if not done else "waiting")
        return Group(head, Text.assemble(("best ", "bold"), best), table)
