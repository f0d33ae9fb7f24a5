"""The gate decides by its policy, with numbers; a record of promotions shows what was done to it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray

from clinie_core.errors import InputError
from clinie_core.scoring.significance import compute_rates
from search.promotion.gate import Decision, Evidence, TypeScore, decide
from search.promotion.history import History
from search.promotion.policy import Policy, read_policy
from search.storage.home import Home
from search.tracking.connection import connect

Counts = NDArray[np.float64]
STUDIES = 200


def counts_of(draw: np.random.Generator, hardness: NDArray[np.float64], quality: float) -> Counts:
    """Counts by document of a model of some quality, ``[documents, 3]``."""
    found = np.clip(quality + hardness, 0.02, 0.98)
    tp = draw.binomial(10, found)
    return np.stack([tp, draw.binomial(10, 1 - found), 10 - tp], axis=1).astype(np.float64)


def evidence(counts: Counts, **types: tuple[float, int]) -> Evidence:
    score = float(compute_rates(counts.sum(axis=0), "f1"))
    by_type = {name: TypeScore(*values) for name, values in types.items()}
    costs = {"seconds_per_document": 0.1, "peak_memory_mb": 500.0, "size_mb": 90.0}
    return Evidence(counts, {"strict_f1": score, "lenient_f1": score}, by_type, costs)


@pytest.fixture
def pair() -> tuple[Counts, Counts]:
    """A better and a worse model on the same documents."""
    draw = np.random.default_rng(1)
    hardness = draw.normal(0, 0.1, size=150)
    return counts_of(draw, hardness, 0.85), counts_of(draw, hardness, 0.75)


def test_a_better_model_passes_and_a_worse_one_is_refused_with_numbers(pair: tuple[Counts, Counts]) -> None:
    better, worse = map(evidence, pair)
    policy = read_policy(None)
    assert decide(policy, better, worse, read=1).promote
    refused = decide(policy, worse, better, read=1)
    assert not refused.promote
    (reason,) = refused.refusals
    assert re.match(
        r"alpha: strict F1 0\.7\d+ against 0\.8\d+, p = \d\.\d+ by paired bootstrap, at most 0\.02500", reason
    )


def test_the_same_model_never_beats_itself(pair: tuple[Counts, Counts]) -> None:
    own = evidence(pair[0])
    assert not decide(read_policy(None), own, own, read=1).promote


def test_the_levels_of_all_reads_add_up_to_alpha() -> None:
    policy = Policy(version=1, alpha=0.05)
    levels = [policy.level(k) for k in range(1, 2000)]
    assert levels == sorted(levels, reverse=True)
    assert 0.0499 < sum(levels) < 0.05


def test_floors_drops_and_limits_each_refuse_by_name(pair: tuple[Counts, Counts]) -> None:
    policy = Policy.model_validate(
        {
            "version": 1,
            "first_champion": {"strict_f1": 0.99},
            "type_floors": {"Drug": 0.9},
            "type_drop": 0.05,
            "limits": {"size_mb": 50},
        }
    )
    good, champion = evidence(pair[0], Drug=(0.8, 40), Rare=(0.0, 2)), evidence(pair[1], Drug=(0.95, 40), Rare=(1.0, 2))
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
    }  # Rare is too rare to be held to anything
    assert Decision.from_json(json.loads(json.dumps(second.as_json()))) == second


@pytest.mark.slow
def test_models_without_a_true_difference_are_seldom_promoted() -> None:
    """200 studies whose 20 trials are all as good as the champion: the best of them on dev is put forward."""
    draw = np.random.default_rng(3)
    policy = read_policy(None)
    gate, naive = 0, 0
    for _ in range(STUDIES):
        hardness, others = draw.normal(0, 0.1, size=150), draw.normal(0, 0.1, size=150)
        trials = [(counts_of(draw, hardness, 0.8), counts_of(draw, others, 0.8)) for _ in range(20)]
        champion_dev, champion_test = counts_of(draw, hardness, 0.8), counts_of(draw, others, 0.8)
        dev, test = max(trials, key=lambda pair: float(compute_rates(pair[0].sum(axis=0), "f1")))
        naive += bool(compute_rates(dev.sum(axis=0), "f1") > compute_rates(champion_dev.sum(axis=0), "f1"))
        gate += decide(policy, evidence(test), evidence(champion_test), read=1).promote
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
def test_a_wrong_policy_is_a_line_that_names_the_key(tmp_path: Path, content: str, line: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(content)
    with pytest.raises(InputError) as raised:
        read_policy(file)
    assert line in str(raised.value)
    assert "policy.yaml" in str(raised.value)


@pytest.fixture
def history(tmp_path: Path) -> History:
    record = History(connect(Home(tmp_path)), "model")
    for number in range(4):
        record.append("read", {"promotion": f"p{number}", "study": "s", "test_digest": "d", "read": number + 1})
    return record


def tags_of(client: MlflowClient) -> dict[str, str]:
    return {k: v for k, v in client.get_registered_model("model").tags.items() if k.startswith("clinie.history.")}


def test_a_record_holds_until_something_is_done_to_it(history: History) -> None:
    assert history.find_faults() == []
    assert [entry.number for entry in history.read_entries()] == [1, 2, 3, 4]
    client, tags = history.client, tags_of(history.client)

    def with_tag(key: str, value: str | None) -> list[str]:
        before = tags[key]
        if value is None:
            client.delete_registered_model_tag("model", key)
        else:
            client.set_registered_model_tag("model", key, value)
        faults = history.find_faults()
        client.set_registered_model_tag("model", key, before)
        assert history.find_faults() == []
        return faults

    second = "clinie.history.000002"
    assert with_tag(second, tags[second].replace('"read": 2', '"read": 1')) == ["entry 2 was changed"]
    assert with_tag(second, None) == ["entry 2 is missing"]
    assert with_tag(second, tags["clinie.history.000003"]) == ["entry 2 is missing"]
    forged = json.loads(tags[second]) | {"kind": "promoted", "content": {"version": "1"}}
    assert "entry 2 was changed" in with_tag(second, json.dumps(forged))


def test_a_version_and_a_champion_that_the_record_does_not_know_show(history: History, tmp_path: Path) -> None:
    client = history.client
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}\n")
    version = client.create_model_version("model", (tmp_path / "model").as_uri()).version
    client.set_registered_model_alias("model", "champion", version)
    assert history.find_unrecorded_versions() == [str(version)]
    assert history.find_faults() == [f"version {version} is champion, and the record says none"]
    client.delete_registered_model_alias("model", "champion")
    assert history.find_faults() == []
