"""The promotion gate and its policy, as pure functions of the evidence."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clinie_core.errors import InputError
from clinie_core.scoring.significance import compute_rates
from search.promotion.gate import Decision, Evidence, SeedScores, TypeScore, decide
from search.promotion.policy import Policy, read_policy

Counts = NDArray[np.float64]
STUDIES = 200


def draw_counts(draw: np.random.Generator, hardness: NDArray[np.float64], quality: float) -> Counts:
    """Draw the counts of each document for a model of the given quality, ``[documents, 3]``."""
    found = np.clip(quality + hardness, 0.02, 0.98)
    tp = draw.binomial(10, found)
    return np.stack([tp, draw.binomial(10, 1 - found), 10 - tp], axis=1).astype(np.float64)


def make_evidence(counts: Counts, **types: tuple[float, int]) -> Evidence:
    score = float(compute_rates(counts.sum(axis=0), "f1"))
    by_type = {name: TypeScore(*values) for name, values in types.items()}
    costs = {"seconds_per_document": 0.1, "peak_memory_mb": 500.0, "size_mb": 90.0}
    return Evidence(counts, {"strict_f1": score, "lenient_f1": score}, by_type, costs)


@pytest.fixture
def pair() -> tuple[Counts, Counts]:
    """Counts of a better and a worse model on the same documents."""
    draw = np.random.default_rng(1)
    hardness = draw.normal(0, 0.1, size=150)
    return draw_counts(draw, hardness, 0.85), draw_counts(draw, hardness, 0.75)


def test_a_better_model_passes_and_a_worse_model_is_refused_with_its_scores(pair: tuple[Counts, Counts]) -> None:
    better, worse = map(make_evidence, pair)
    policy = read_policy(None)
    assert decide(policy, better, worse, read=1).promote
    refused = decide(policy, worse, better, read=1)
    assert not refused.promote
    (reason,) = refused.refusals
    assert re.match(
        r"alpha: strict F1 0\.7\d+ against 0\.8\d+, p = \d\.\d+ by paired bootstrap, at most 0\.02500", reason
    )


def test_a_model_does_not_beat_itself(pair: tuple[Counts, Counts]) -> None:
    own = make_evidence(pair[0])
    assert not decide(read_policy(None), own, own, read=1).promote


def test_the_gate_shows_the_spread_over_seeds_and_can_require_several(pair: tuple[Counts, Counts]) -> None:
    own = make_evidence(pair[0])
    three = SeedScores("strict_f1", (0.80, 0.82, 0.78))
    shown = next(c for c in decide(read_policy(None), own, None, read=1, seeds=three).checks if c.rule == "least_seeds")
    assert shown.passed
    assert shown.detail == "mean dev strict_f1 0.8000 over 3 seeds, standard deviation 0.0200; at least 1"
    strict = Policy(version=1, least_seeds=3)
    assert decide(strict, own, None, read=1, seeds=three).promote
    refused = decide(strict, own, None, read=1, seeds=SeedScores("strict_f1", (0.80,)))
    assert refused.refusals == ["least_seeds: dev strict_f1 0.8000 with one seed; at least 3"]


def test_the_significance_levels_of_all_reads_sum_to_alpha() -> None:
    policy = Policy(version=1, alpha=0.05)
    levels = [policy.level(k) for k in range(1, 2000)]
    assert levels == sorted(levels, reverse=True)
    assert 0.0499 < sum(levels) < 0.05


def test_each_failed_rule_is_named(pair: tuple[Counts, Counts]) -> None:
    policy = Policy.model_validate(
        {
            "version": 1,
            "first_champion": {"strict_f1": 0.99},
            "type_floors": {"Drug": 0.9},
            "type_drop": 0.05,
            "limits": {"size_mb": 50},
        }
    )
    good, champion = (
        make_evidence(pair[0], Drug=(0.8, 40), Rare=(0.0, 2)),
        make_evidence(pair[1], Drug=(0.95, 40), Rare=(1.0, 2)),
    )
    first = decide(policy, good, None, read=1)
    assert {check.rule for check in first.checks if not check.passed} == {
        "first_champion.strict_f1",
        "type_floors.Drug",
        "limits.size_mb",
    }
    second = decide(policy, good, champion, read=1)
    assert {check.rule for check in second.checks if not check.passed} == {
        "type_drop.Drug",
        "type_floors.Drug",
        "limits.size_mb",
    }  # Rare has less support than the policy's least_support
    assert Decision.from_json(json.loads(json.dumps(second.as_json()))) == second


@pytest.mark.slow
def test_models_that_are_equally_good_are_rarely_promoted() -> None:
    """Promote the trial that is best on dev, in 200 studies of 20 trials that are all as good as the champion."""
    draw = np.random.default_rng(3)
    policy = read_policy(None)
    gate, naive = 0, 0
    for _ in range(STUDIES):
        hardness, others = draw.normal(0, 0.1, size=150), draw.normal(0, 0.1, size=150)
        trials = [(draw_counts(draw, hardness, 0.8), draw_counts(draw, others, 0.8)) for _ in range(20)]
        champion_dev, champion_test = draw_counts(draw, hardness, 0.8), draw_counts(draw, others, 0.8)
        dev, test = max(trials, key=lambda pair: float(compute_rates(pair[0].sum(axis=0), "f1")))
        naive += bool(compute_rates(dev.sum(axis=0), "f1") > compute_rates(champion_dev.sum(axis=0), "f1"))
        gate += decide(policy, make_evidence(test), make_evidence(champion_test), read=1).promote
    print(f"promoted without a difference: {gate} of {STUDIES} by the gate, {naive} of {STUDIES} by the best on dev")
    assert gate <= policy.alpha * STUDIES
    assert naive > STUDIES / 2


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("version: 1\nalpha: 2\n", "alpha: "),
        ("version: 1\nlimts: {}\n", "limts: unknown key"),
        ("version: 1\nlimits: {size_mb: -1}\n", "limits.size_mb: "),
        ("version: [1\n", "policy.yaml:"),
        ("just words\n", "version: "),
    ],
)
def test_an_invalid_policy_fails_with_the_file_and_the_key(tmp_path: Path, content: str, line: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(content)
    with pytest.raises(InputError) as raised:
        read_policy(file)
    assert line in str(raised.value)
    assert "policy.yaml" in str(raised.value)
