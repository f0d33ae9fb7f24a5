"""The replay benchmark: searches in simulated time, and the tables of recorded trials."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recorded_tables import RecordedTrial, append_trials, read_table, table_file

from clinie_core.config import TrialConfig

EPOCHS = ({"strict_f1": 0.1234567, "cpu_seconds": 1.0}, {"strict_f1": 0.2, "cpu_seconds": 1.0})


def test_recorded_trials_survive_a_killed_recording(tmp_path: Path) -> None:
    append_trials("table", [RecordedTrial(0, 13, {"batch_size": 8}, EPOCHS)], tmp_path)
    with table_file("table", tmp_path).open("a") as out:
        out.write('{"number": 1, "se')
    append_trials("table", [RecordedTrial(1, 13, {"batch_size": 4}, (), error="OutOfMemory")], tmp_path)
    trials = read_table("table", tmp_path)
    assert [trial.key for trial in trials] == [(0, 13), (1, 13)]
    assert trials[0].epochs[0]["strict_f1"] == pytest.approx(0.12346)
    assert trials[1].error == "OutOfMemory"


def test_replayed_searches_are_deterministic_and_stop_at_their_compute() -> None:
    from replay_tables import load_replay_space
    from simulated_search import Curve, replay_search

    asked: list[TrialConfig] = []

    def make_curve(config: TrialConfig, number: int) -> Curve:
        asked.append(config)
        score = 1 / config.batch_size
        return Curve((score,) * 6, score, seconds=1.0)

    space = load_replay_space(["algorithm.sampler=auto", "algorithm.scheduler=none"])
    first = replay_search(space, make_curve, workers=2, compute=60).progress
    assert len(asked) == 12  # ten complete trials, and two that are running when the compute is spent
    assert first[-1].compute <= 60
    assert [state.true_score for state in first] == sorted(state.true_score for state in first)
    assert replay_search(space, make_curve, workers=2, compute=60).progress == first


def test_rungs_keep_the_hypervolume_of_a_search_without_stopping() -> None:
    from hypervolume import compare_with_no_stopping, compute_hypervolume, summarize_kept
    from replay_tables import load_synthetic_corpora
    from simulated_search import CompleteTrial

    trials = [CompleteTrial(0.5, 1.0), CompleteTrial(0.8, 3.0), CompleteTrial(0.4, 2.0), CompleteTrial(0.9, 9.0)]
    assert compute_hypervolume(trials, slowest=4.0) == pytest.approx(0.5 * 3 + 0.3 * 1)
    corpora = load_synthetic_corpora(2)
    kept = summarize_kept([compare_with_no_stopping(corpus, seed) for corpus in corpora for seed in range(3)])
    assert kept["low"] > 0.95
    assert 0.3 < kept["compute"] < 0.6


def test_ratio_compares_compute_at_equal_regret() -> None:
    from replay import GRID, compute_ratio

    fast = np.linspace(1, 0, GRID + 1)[None, :] ** 2
    slow = np.linspace(1, 0, GRID + 1)[None, :]
    assert compute_ratio(slow, slow, 30) == pytest.approx(1.0)
    assert compute_ratio(slow, fast, 30) == pytest.approx(0.5 / (1 - 0.5**0.5), rel=0.02)
