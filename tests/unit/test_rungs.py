"""Rungs: when a trial stops, with one and with several objectives, limits, and rungs in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from search.config.objectives import Limit, Objective
from search.config.space_file import Algorithm, SpaceFile
from search.config.stopping import StoppingSettings, choose_grace_epochs
from search.tune.rungs import Rungs, rank_by_fronts

F1, SIZE = Objective(maximize="strict_f1"), Objective(minimize="trainable_parameters")


def report_all(rungs: Rungs, rows: Sequence[Mapping[str, float]], time: float = 1) -> list[bool]:
    """Report a result of each trial at the same time of training, and return which trials should stop."""
    return [rungs.report(f"trial-{number}", time, row) for number, row in enumerate(rows)]


def test_a_trial_continues_if_it_is_among_the_best_third_at_its_rung() -> None:
    rungs = Rungs(1, 3, 9, [F1])
    stops = report_all(rungs, [{"strict_f1": score} for score in (0.5, 0.6, 0.4, 0.52, 0.7)])
    assert stops == [False, False, True, True, False]


def test_a_trial_is_compared_once_at_each_rung() -> None:
    rungs = Rungs(1, 3, 9, [F1])
    report_all(rungs, [{"strict_f1": 0.5}, {"strict_f1": 0.9}])
    assert not rungs.report("trial-0", 2, {"strict_f1": 0.1})  # between two rungs
    assert not rungs.report("trial-1", 3, {"strict_f1": 0.9})
    assert rungs.report("trial-0", 3, {"strict_f1": 0.1})


def test_trials_with_a_score_of_zero_stop_although_most_scores_are_zero() -> None:
    rungs = Rungs(1, 3, 9, [F1])
    stops = report_all(rungs, [{"strict_f1": score} for score in (0.0, 0.0, 0.0, 0.0, 0.2, 0.0)])
    assert stops == [False, False, False, False, False, True]


def test_several_objectives_keep_trials_that_are_best_in_any_of_them() -> None:
    rungs = Rungs(1, 2, 9, [F1, SIZE])
    large = [{"strict_f1": 0.80, "trainable_parameters": 9e6}, {"strict_f1": 0.79, "trainable_parameters": 9e6}]
    small = {"strict_f1": 0.60, "trainable_parameters": 1e4}
    worse = {"strict_f1": 0.50, "trainable_parameters": 9e6}
    assert report_all(rungs, [*large, small, worse]) == [False, True, False, True]


def test_trials_near_the_front_continue_although_many_are_better_in_one_objective() -> None:
    rungs = Rungs(1, 3, 9, [F1, SIZE])
    front = [{"strict_f1": 0.3 + 0.1 * i, "trainable_parameters": 1e6 * (i + 1)} for i in range(6)]
    near = {"strict_f1": 0.59, "trainable_parameters": 4e6}
    worse = {"strict_f1": 0.40, "trainable_parameters": 4e6}
    zero = {"strict_f1": 0.0, "trainable_parameters": 1e5}
    assert report_all(rungs, [*front, near, worse, zero]) == [*[False] * 7, True, True]


def test_fronts_are_ordered_to_cover_the_trade_off() -> None:
    best, smallest, middle, dominated = (0.9, -9.0), (0.5, -1.0), (0.7, -5.0), (0.6, -6.0)
    assert rank_by_fronts([dominated, middle, smallest, best]) == [3, 2, 1, 0]
    assert rank_by_fronts([best, best]) == [0, 0]


def test_a_trial_beyond_a_limit_is_compared_as_the_worst_one() -> None:
    rungs = Rungs(1, 3, 9, [F1], [Limit("documents_per_second", 20)])
    rows = [{"strict_f1": 0.5, "documents_per_second": 30.0}] * 3
    assert report_all(rungs, [*rows, {"strict_f1": 0.9, "documents_per_second": 10.0}]) == [False, False, False, True]


def test_a_limit_on_a_score_does_not_stop_trials_because_later_epochs_may_satisfy_it() -> None:
    rungs = Rungs(1, 3, 9, [F1], [Limit("strict_recall", 0.8)])
    rows = [{"strict_f1": 0.5, "strict_recall": 0.9}, {"strict_f1": 0.6, "strict_recall": 0.1}]
    assert report_all(rungs, rows) == [False, False]


@pytest.mark.parametrize(
    ("metric", "found", "violated"),
    [("documents_per_second", 19.0, True), ("documents_per_second", 21.0, False), ("peak_memory_mb", 21.0, True)],
)
def test_a_limit_bounds_a_metric_on_its_worse_side(metric: str, found: float, violated: bool) -> None:
    limit = Limit(metric, 20.0)
    assert (limit.compute_violation({metric: found}) > 0) == violated
    assert limit.compute_violation({}) > 0


@pytest.mark.parametrize(
    ("documents", "epochs", "grace"), [(48, 8, 3), (48, 4, 2), (100, 8, 2), (500, 8, 1), (48, 1, 1)]
)
def test_the_grace_period_is_longer_for_a_smaller_dev_split(documents: int, epochs: int, grace: int) -> None:
    assert choose_grace_epochs(epochs, documents) == grace


def test_settings_come_from_the_space_file() -> None:
    content = {"version": 1, "study": "s", "corpus": {"path": "c"}, "space": {}, "limits": {"seconds": 60}}
    file = SpaceFile.model_validate({**content, "budget": {"epochs": 8}})
    settings = StoppingSettings.from_space_file(file, dev_documents=48)
    assert (settings.grace_epochs, settings.limits) == (3, (Limit("seconds", 60),))
    given = file.model_copy(update={"algorithm": Algorithm(grace_epochs=5)})
    assert StoppingSettings.from_space_file(given, dev_documents=48).grace_epochs == 5
