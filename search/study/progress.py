"""The live display of a search: trials done and running, the best so far, the time left."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clinie_core.config import TrialConfig
from clinie_core.errors import Problem
from search.config.description import describe_config
from search.ledger.ledger import Ledger
from search.ledger.records import ENDED
from search.trials.listener import FinalState, TrialListener
from search.trials.result import EpochResult

__all__ = ["Progress"]


@dataclass
class _Row:
    config: TrialConfig
    epoch: int = 0
    score: float | None = None


@dataclass
class Progress(TrialListener):
    """Shows a search while it runs; a listener of its trials.

    On a terminal it redraws in place; elsewhere it prints a line for every trial that ends.

    Args:
        console: Where to.
        trials: The study's budget of trials.
        hours: Its budget of hours.
    """

    console: Console
    trials: int
    hours: float | None
    _running: dict[int, _Row] = field(default_factory=dict)
    _ended: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ENDED, 0))
    _metric: str = ""
    _maximized: bool = True
    _best: tuple[float, int, str] | None = None
    _began: float = 0.0
    _ended_here: int = 0
    _so_far: dict[int, float] = field(default_factory=dict)

    def show_warnings(self, warnings: Iterable[Problem]) -> None:
        """Print what may be wrong with the corpus."""
        for warning in warnings:
            self.console.print(f"[yellow]warning[/yellow] {escape(str(warning))}", soft_wrap=True)

    def prepare(self, study: str, home: str) -> None:
        """Say what begins, since Ray and its workers take a while to start."""
        self.console.print(
            f"study {study} in {home}: {self.trials} trials; starting Ray and the workers", soft_wrap=True
        )

    @contextmanager
    def watch(self, ledger: Ledger) -> Iterator[None]:
        """Show the search within this context."""
        self._metric, self._maximized = ledger.metrics[0], ledger.maximized
        self._began = time.monotonic()
        for record in ledger.records():
            if record.state in self._ended:
                self._ended[record.state] += 1
            if record.epochs:  # what is interrupted now and goes on is not worse for it
                self._so_far[record.number] = record.metrics[self._metric]
            if record.config and record.state == "complete":
                self._consider(record.number, record.config, record.metrics[self._metric])
        if not self.console.is_terminal:
            yield
            return
        with Live(get_renderable=self._render, console=self.console, refresh_per_second=2, transient=True):
            yield

    def on_trial_start(self, number: int, config: TrialConfig) -> None:
        """A trial begins or goes on."""
        self._running[number] = _Row(config, score=self._so_far.get(number))

    def on_epoch_end(self, number: int, result: EpochResult) -> None:
        """Update the row of the trial."""
        row, value = self._running[number], result.metrics[self._metric]
        row.epoch = result.epoch
        row.score = value if row.score is None else self._better(row.score, value)

    def on_trial_end(self, number: int, state: FinalState, reason: str | None) -> None:
        """A trial has ended."""
        row = self._running.pop(number)
        self._ended[state] += 1
        self._ended_here += 1
        if state == "complete" and row.score is not None:
            self._consider(number, row.config, row.score)
        if not self.console.is_terminal:
            score = "-" if row.score is None else f"{row.score:.4f}"
            line = f"trial {number} {state} after {row.epoch} epochs, {self._metric} {score}: "
            self.console.print(
                line + describe_config(row.config) + (f" ({reason})" if reason else ""), soft_wrap=True, highlight=False
            )

    def _better(self, a: float, b: float) -> float:
        return max(a, b) if self._maximized else min(a, b)

    def _consider(self, number: int, config: TrialConfig, score: float) -> None:
        if self._best is None or (score != self._best[0] and self._better(self._best[0], score) == score):
            self._best = (score, number, describe_config(config))

    def _time_left(self) -> str:
        """From the pace so far: trials that are left over trials a second, within the hours that are left."""
        elapsed = time.monotonic() - self._began
        if not self._ended_here:
            return "-"
        left = elapsed / self._ended_here * max(0, self.trials - sum(self._ended.values()))
        if self.hours:
            left = min(left, self.hours * 3600 - elapsed)
        return f"{int(max(0, left)) // 60} min {int(max(0, left)) % 60:02d} s"

    def _render(self) -> RenderableType:
        done = sum(self._ended.values())
        elapsed = int(time.monotonic() - self._began)
        head = Table.grid(padding=(0, 2))
        head.add_row(
            ProgressBar(total=self.trials, completed=done, width=30),
            f"{done} of {self.trials} trials",
            ", ".join(f"{count} {state}" for state, count in self._ended.items()),
            f"{elapsed // 60} min {elapsed % 60:02d} s",
            f"left: {self._time_left()}",
        )
        best = "none yet" if self._best is None else f"{self._best[0]:.4f}  trial {self._best[1]}  {self._best[2]}"
        table = Table(box=None, padding=(0, 2), header_style="bold")
        for column in ("running", "epoch", self._metric, "configuration"):
            table.add_column(column, overflow="fold")
        for number, row in sorted(self._running.items()):
            score = "" if row.score is None else f"{row.score:.4f}"
            table.add_row(str(number), f"{row.epoch}/{row.config.epochs}", score, describe_config(row.config))
        if not self._running:
            table.add_row("", "", "", "starting workers" if not done else "choosing")
        return Group(head, Text.assemble(("best ", "bold"), best), table)
