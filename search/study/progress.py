"""The progress display of a search: finished and running trials, the best trial, and the remaining time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from search.config.description import describe_config, describe_for_display
from search.config.objectives import Limit, describe_violations
from search.control.commands import CommandEntry
from search.ledger.budget import read_spent_hours
from search.ledger.driver import shorten_names
from search.ledger.ledger import Ledger
from search.ledger.records import ENDED, TrialRecord
from search.ledger.stored_space import SPACE, read_stored_space
from search.study.rung_cutoffs import RungCutoffs
from search.study.running_trial import CURVE_WIDTH, RunningTrial, draw_sparkline, format_seconds
from search.trials.listener import FinalState, TrialListener
from search.trials.result import EpochResult

__all__ = ["DEV_DOCUMENTS", "Progress"]

DEV_DOCUMENTS = "dev_documents"
"""Attribute of a study: number of documents of its dev split."""

LEFT_OUT = ("skipped", "trimmed")
WIDE = 100
"""Columns of a terminal from which on a running trial has its whole curve."""
NARROW_CURVE = 8


@dataclass
class Progress(TrialListener):
    """Progress display of a search.

    A terminal shows a table that is updated in place. Other outputs get one line per finished trial.

    Args:
        console: Console to print to.
        trials: Number of trials in the study's budget.
        hours: Limit on the run time of all runs in hours; None for no limit.
    """

    console: Console
    trials: int
    hours: float | None
    _running: dict[int, RunningTrial] = field(default_factory=dict)
    _ended: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ENDED, 0))
    _metric: str = ""
    _maximized: bool = True
    _earlier_hours: float = 0.0
    _limits: tuple[Limit, ...] = ()
    _repeats: Callable[[int], bool] = lambda number: False
    _read_record: Callable[[int], TrialRecord] = field(init=False, repr=False)
    _drivers: dict[int, str] = field(default_factory=dict)
    _best: tuple[float, int, str] | None = None
    _started_at: float = 0.0
    _ended_now: int = 0
    _wait: str | None = None
    _announced_wait: bool = False
    _rungs: RungCutoffs | None = None
    _previous: dict[int, dict[int, dict[str, float]]] = field(default_factory=dict)

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
    def watch(self, ledger: Ledger, records: Sequence[TrialRecord] | None = None) -> Iterator[None]:
        """Display the search within this context.

        Args:
            ledger: The study.
            records: Its trials; read from the ledger if omitted.
        """
        self._metric, self._maximized = ledger.metrics[0], ledger.maximized
        self._earlier_hours = read_spent_hours(ledger)
        self._limits, self._repeats, self._read_record = ledger.limits, ledger.is_repeat, ledger.record
        self._started_at = time.monotonic()
        attributes = ledger.attributes
        if SPACE in attributes:
            self._rungs = RungCutoffs(read_stored_space(attributes), attributes.get(DEV_DOCUMENTS))
        for record in ledger.records() if records is None else records:
            if record.state in self._ended:
                self._ended[record.state] += 1
            else:
                self._previous[record.number] = record.epochs  # a resumed trial starts with its earlier epochs
            for epoch, metrics in sorted(record.epochs.items()):
                self._add_to_rungs(record.number, epoch, metrics)
            if record.config and record.state == "complete" and record.repeats is None:
                self._update_best(record.number, record.config, record.metrics)
        if not self.console.is_terminal:
            yield
            return
        with Live(get_renderable=self._render, console=self.console, refresh_per_second=2, transient=True):
            yield

    def _add_to_rungs(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        if self._rungs is not None:
            self._rungs.add(number, epoch, metrics)

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

    def show_driver(self, number: int, driver: str | None) -> None:
        """Show the driver of a trial, if the trials have several."""
        if driver is not None:
            self._drivers[number] = driver

    def on_trial_pause(self, number: int) -> None:
        """Remove the trial from the running trials."""
        del self._running[number]

    def on_trial_start(self, number: int, config: TrialConfig) -> None:
        """Add the trial to the running trials, with the epochs that it had before."""
        row = self._running[number] = RunningTrial(config)
        for epoch, metrics in sorted(self._previous.get(number, {}).items()):
            row.add(EpochResult(epoch, metrics), self._metric)

    def on_epoch_end(self, number: int, result: EpochResult) -> None:
        """Add an epoch to the trial's curve."""
        self._running[number].add(result, self._metric)
        self._previous.setdefault(number, {})[result.epoch] = dict(result.metrics)
        self._add_to_rungs(number, result.epoch, result.metrics)

    def on_trial_end(self, number: int, state: FinalState, reason: str | None) -> None:
        """Remove the trial from the running trials; print its line if the output is no terminal."""
        row = self._running.pop(number)
        self._previous.pop(number, None)
        score = row.find_best(maximized=self._maximized)
        self._ended[state] += 1
        self._ended_now += 1
        if state == "complete" and score is not None and not self._repeats(number):
            self._update_best(number, row.config, {**row.metrics, self._metric: score})
        if not self.console.is_terminal:
            shown = "-" if score is None else f"{score:.4f}"
            line = f"trial {number} {state} after {row.epoch} epochs, {self._metric} {shown}: "
            self.console.print(
                line + describe_config(row.config) + (f" ({reason})" if reason else ""), soft_wrap=True, highlight=False
            )

    def on_trial_end_elsewhere(self, number: int) -> None:
        """Count a trial of another driver."""
        record = self._read_record(number)
        if record.state in self._ended:
            self._ended[record.state] += 1
        for epoch, metrics in sorted(record.epochs.items()):
            self._add_to_rungs(number, epoch, metrics)
        if record.config and record.state == "complete" and record.repeats is None:
            self._update_best(number, record.config, record.metrics)

    def _update_best(self, number: int, config: TrialConfig, metrics: Mapping[str, float]) -> None:
        score = metrics[self._metric]
        if describe_violations(self._limits, metrics):
            return
        sign = 1 if self._maximized else -1
        if self._best is None or sign * score > sign * self._best[0]:
            self._best = (score, number, describe_config(config))

    def _estimate_time_left(self) -> str:
        """Extrapolate the pace of finished trials to the remaining ones, within the limit on the run time."""
        elapsed = time.monotonic() - self._started_at
        if not self._ended_now:
            return "-"
        seconds = elapsed / self._ended_now * max(0, self.trials - sum(self._ended.values()))
        if self.hours:
            seconds = min(seconds, (self.hours - self._earlier_hours) * 3600 - elapsed)
        return f"{int(max(0, seconds)) // 60} min {int(max(0, seconds)) % 60:02d} s"

    def _render(self) -> RenderableType:
        done = sum(self._ended.values())
        elapsed = int(time.monotonic() - self._started_at)
        head = Table.grid(padding=(0, 2, 0, 0))
        head.add_row(
            ProgressBar(total=self.trials, completed=done, width=30 if self.console.width >= WIDE else 8),
            f"{done} of {self.trials} trials",
            *([", ".join(f"{count} {state}" for state, count in self._ended.items() if count)] if done else []),
            f"{elapsed // 60} min {elapsed % 60:02d} s",
            f"left: {self._estimate_time_left()}",
        )
        best = "none yet" if self._best is None else f"{self._best[0]:.4f}  trial {self._best[1]}  {self._best[2]}"
        return Group(head, Text.assemble(("best ", "bold"), best), self._build_running_table(done))

    def describe_end(self) -> str:
        """Return the counts of the ended trials and the best one, in one line."""
        counts = ", ".join(f"{count} {state}" for state, count in self._ended.items() if count) or "no trial ended"
        best = "none is complete" if self._best is None else f"best {self._best[0]:.4f}, trial {self._best[1]}"
        return f"{counts}; {best}"

    def _build_running_table(self, done: int) -> Table:
        """Build a table with one line per running trial."""
        rungs = self._rungs if self._rungs is not None and self._rungs.has_rungs else None
        wide = self.console.width >= WIDE
        table = Table(box=None, padding=(0, 2, 0, 0) if wide else (0, 1, 0, 0), header_style="bold", expand=True)
        drivers = shorten_names(self._drivers.get(number) for number in self._running)
        columns = ["trial", "epoch", self._metric, "curve", *(["next rung"] if rungs else []), "memory", "left"]
        columns += ["driver"] if len(drivers) > 1 else []
        for column in columns:
            table.add_column(column, no_wrap=True)
        table.add_column("configuration", no_wrap=True, overflow="ellipsis", ratio=1)  # the width that is left
        curve = {"width": CURVE_WIDTH if wide else NARROW_CURVE}
        ascii_only = not self.console.encoding.startswith("utf")
        for number, row in sorted(self._running.items()):
            score, memory = row.find_best(maximized=self._maximized), row.memory_mb
            table.add_row(
                str(number),
                f"{row.epoch}/{row.config.epochs}",
                "" if score is None else f"{score:.4f}",
                draw_sparkline([row.scores[epoch] for epoch in sorted(row.scores)], **curve, ascii_only=ascii_only),
                *([rungs.describe_next(row.epoch)] if rungs else []),
                "-" if memory is None else f"{memory:,.0f} MiB",
                format_seconds(row.seconds_left),
                *([drivers.get(self._drivers.get(number, ""), "-")] if len(drivers) > 1 else []),
                describe_for_display(row.config),
            )
        blank = [""] * len(columns)
        if self._wait:
            table.add_row(*blank, self._wait)
        elif not self._running:
            table.add_row(*blank, "starting workers" if not done else "waiting")
        return table
