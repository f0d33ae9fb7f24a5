"""The display of a running search, in its own process and from another one."""

from __future__ import annotations

import io
import math
import re

import pytest
from optuna.storages import InMemoryStorage
from rich.console import Console

from clinie_core.errors import InputError
from search.config.search_space import SearchSpace
from search.control.command_log import CommandLog
from search.control.command_processor import CommandProcessor
from search.control.commands import Command
from search.ledger.ledger import Ledger
from search.study.follower import StudyFollower, follow_study
from search.study.progress import Progress
from search.study.rung_cutoffs import RungCutoffs
from search.study.running_trial import draw_sparkline, format_seconds
from tests.small_space import build_small_space


@pytest.fixture
def space() -> SearchSpace:
    return build_small_space(
        "watched",
        budget={"trials": 3, "epochs": 9},
        algorithm={"sampler": "random", "scheduler": "asha", "grace_epochs": 1, "reduction_factor": 3},
    )


@pytest.fixture
def ledger(space: SearchSpace) -> Ledger:
    file = space.file
    attributes = {"space": file.model_dump(mode="json"), "dev_documents": 300}
    return Ledger.create(InMemoryStorage(), "watched", file.objective, file.algorithm, attributes)


def report(ledger: Ledger, number: int, epoch: int, score: float) -> None:
    metrics = {"strict_f1": score, "seconds": 10.0, "peak_memory_mb": 1234.0}
    ledger.report(number, epoch, metrics)


def make_progress(*, terminal: bool, width: int = 120) -> Progress:
    return Progress(Console(file=io.StringIO(), force_terminal=terminal, width=width, highlight=False), 3, None)


def read(progress: Progress) -> str:
    assert isinstance(progress.console.file, io.StringIO)
    return progress.console.file.getvalue()


def test_a_terminal_shows_a_line_per_running_trial(ledger: Ledger, space: SearchSpace) -> None:
    first, second = ledger.ask(space)[0], ledger.ask(space)[0]
    for epoch, score in ((1, 0.6), (2, 0.65), (3, 0.7)):
        report(ledger, first, epoch, score)
    report(ledger, second, 1, 0.2)
    progress = make_progress(terminal=True)
    follower = StudyFollower(ledger, progress, lambda: True)
    with progress.watch(ledger, []):
        follower.update()
        report(ledger, second, 2, 0.5)
        follower.update()
        with progress.console.capture() as capture:
            progress.console.print(progress._render())
    lines = capture.get().splitlines()
    assert any("next rung" in line and "memory" in line for line in lines)
    rows = [line.split() for line in lines if line.startswith((f"{first} ", f"{second} "))]
    assert rows[0][:8] == ["0", "3/9", "0.7000", "▁▅█", "9", "1,234", "MiB", "1"]
    assert rows[1][:6] == ["1", "2/9", "0.5000", "▁█", "3", "(0.7000)"]


def test_a_narrow_terminal_shows_all_columns(ledger: Ledger, space: SearchSpace) -> None:
    number = ledger.ask(space)[0]
    for epoch in range(1, 9):
        report(ledger, number, epoch, 0.1 * epoch)
    progress = make_progress(terminal=True, width=80)
    with progress.watch(ledger, []):
        StudyFollower(ledger, progress, lambda: True).update()
        with progress.console.capture() as capture:
            progress.console.print(progress._render())
    head, _, titles, row, *_ = re.sub(r"\x1b\[[\d;]*m", "", capture.get()).splitlines()
    assert " 0 of 3 trials " in head
    assert titles.split() == "trial epoch strict_f1 curve next rung memory left configuration".split()
    assert row.startswith("0     8/9   0.8000    ▁▂▃▄▅▆▇█ 9         1,234 MiB 10 s full head=linear ")


def test_another_output_gets_a_line_per_event(ledger: Ledger, space: SearchSpace) -> None:
    first = ledger.ask(space)[0]
    progress = make_progress(terminal=False)
    follower = StudyFollower(ledger, progress, lambda: True)
    with progress.watch(ledger, []):
        follower.update()
        CommandLog(ledger).send(Command("p", "pause", 1, first))
        CommandProcessor(ledger, space).process()
        report(ledger, first, 1, 0.25)
        ledger.pause_trial(first)
        follower.update()
        ledger.resume_trial(first)
        follower.update()
        report(ledger, first, 2, 0.5)
        ledger.end(first, "complete")
        short, _ = ledger.ask(space)  # starts and ends between two readings
        ledger.end(short, "failed", "a reason")
        follower.update()
        follower.update()
    lines = read(progress).splitlines()
    assert lines[0] == "command pause trial 0: accepted"
    assert lines[1].startswith("trial 0 complete after 2 epochs, strict_f1 0.5000: ")
    assert lines[2].startswith("trial 1 failed after 0 epochs, strict_f1 -: ")
    assert lines[2].endswith("(a reason)")
    assert len(lines) == 3
    assert progress.describe_end() == "1 complete, 1 failed; best 0.5000, trial 0"


def test_trials_that_ended_before_are_counted_but_not_shown(ledger: Ledger, space: SearchSpace) -> None:
    number = ledger.ask(space)[0]
    report(ledger, number, 1, 0.5)
    ledger.end(number, "complete")
    running = iter([True, True, False])
    console = Console(file=io.StringIO(), width=120)
    outcome = follow_study(ledger, space.file.budget, console, lambda: next(running))
    assert outcome == "1 complete; best 0.5000, trial 0"
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == ""


def test_a_study_without_a_running_search_is_not_watched(ledger: Ledger, space: SearchSpace) -> None:
    with pytest.raises(InputError, match="no search of 'watched' is running; a running search; show its trials"):
        follow_study(ledger, space.file.budget, None, lambda: False)


def test_the_next_rung_shows_the_score_that_a_trial_needs_there(space: SearchSpace) -> None:
    rungs = RungCutoffs(space.file, 300)
    assert rungs.describe_next(0) == "1"
    for number, score in enumerate((0.1, 0.4, 0.7)):
        rungs.add(number, 1, {"strict_f1": score})
    assert rungs.describe_next(0) == "1 (0.5000)"
    assert [rungs.describe_next(epoch) for epoch in (1, 2, 3, 8, 9)] == ["3", "3", "9", "9", "-"]
    without = space.file.model_copy(update={"algorithm": space.file.algorithm.model_copy(update={"scheduler": "none"})})
    assert not RungCutoffs(without, 300).has_rungs


def test_a_sparkline_has_a_bar_per_value() -> None:
    assert draw_sparkline([]) == ""
    assert draw_sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert draw_sparkline([0.3, 0.3]) == "▅▅"
    assert draw_sparkline([math.nan, 1.0, 2.0]) == "?▁█"
    assert draw_sparkline([0.0, 1.0], ascii_only=True) == "_@"
    assert len(draw_sparkline([float(i) for i in range(100)])) == 16
    assert [format_seconds(value) for value in (None, 45, 150, 7200)] == ["-", "45 s", "2 min", "2.0 h"]
