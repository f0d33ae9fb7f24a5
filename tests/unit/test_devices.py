"""GPUs of a space: validation, the number of groups, and the warning about unused GPUs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clinie_core.errors import InputError
from search.cluster.capacity import Capacity, NodeType, check_cluster, count_groups
from search.cluster.devices import find_unused_gpus, is_usable, resolve_resources
from search.cluster.doctor import _check_resources, run_checks
from search.config.resources import Resources
from search.config.validation import validate_space
from search.storage.home import Home


@pytest.mark.parametrize(
    ("gpus", "share", "slots"), [(8, 1, 8), (8, 0.5, 16), (8, 0.4, 16), (3, 0.1, 30), (0, 1, 0), (2, 0.3, 6)]
)
def test_a_process_never_uses_fractions_of_two_gpus(gpus: float, share: float, slots: int) -> None:
    node = NodeType({"CPU": 100.0, "GPU": gpus}, 1)
    assert count_groups(Resources(gpus_per_worker=share), Capacity((node,), is_final=True)) == slots


@pytest.mark.parametrize(("gpus", "resolved"), [(0, 0), (1, 1), (8, 1)])
def test_auto_is_one_gpu_if_the_cluster_has_any(gpus: float, resolved: float) -> None:
    assert resolve_resources(Resources(gpus_per_worker="auto"), gpus).gpus_per_worker == resolved
    assert resolve_resources(Resources(gpus_per_worker=0.5), gpus).gpus_per_worker == 0.5


def test_unused_gpus_are_a_warning_that_names_the_key() -> None:
    (warning,) = find_unused_gpus([Resources()], 8, "space.yaml")
    assert str(warning).startswith("space.yaml: resources.gpus_per_worker: 8 GPUs available, this space uses none")
    assert find_unused_gpus([Resources(gpus_per_worker="auto")], 8, "space.yaml") == []
    assert find_unused_gpus([Resources()], 0, "space.yaml") == []


def test_doctor_compares_a_space_with_the_gpus() -> None:
    unused = _check_resources([Resources()], 8)
    assert (unused.status, unused.found) == ("warning", "8 GPUs available, this space uses none")
    assert "resources.gpus_per_worker" in unused.remedy
    used = _check_resources([Resources(gpus_per_worker="auto")], 8)
    assert (used.status, used.found) == ("good", "8 GPUs available, 1 per worker")


def test_a_cluster_that_does_not_answer_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(folder: Path) -> Capacity:
        raise ConnectionError("no answer")

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.9:6379")
    monkeypatch.setattr("search.cluster.capacity.read_available_capacity", refuse)
    monkeypatch.setattr("search.cluster.doctor.read_available_capacity", refuse)
    (warning,) = check_cluster([Resources()], "space.yaml", tmp_path)
    assert str(warning).startswith("RAY_ADDRESS: no cluster answers at 10.0.0.9:6379")
    finding = next(f for f in run_checks(Home(tmp_path), [Resources()]) if f.check == "resources")
    assert (finding.status, finding.found) == ("bad", "no cluster answers at 10.0.0.9:6379")


def test_plan_warns_of_unused_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import search

    monkeypatch.setattr("search.cluster.capacity.has_gpu_driver", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for value, expected in ((0, True), ("auto", False)):
        planned = search.plan("quickstart", {"corpus.path": str(tmp_path), "resources.gpus_per_worker": value})
        assert any("8 GPUs available" in str(warning) for warning in planned.warnings) is expected


@pytest.mark.parametrize(
    ("resources", "fault"),
    [
        ({"gpus_per_worker": 0.5, "workers_per_trial": 2}, "2 processes of a trial with 0.5 GPU each"),
        ({"gpus_per_worker": -1}, "found -1; allowed: a number from 0 to 1, or auto"),
        ({"gpus_per_worker": 2}, "found 2; allowed: a number from 0 to 1, or auto; set workers_per_trial"),
        ({"gpus_per_worker": "all"}, "found 'all'; allowed"),
    ],
    ids=["fraction-of-two-processes", "negative", "two", "word"],
)
def test_gpus_that_cannot_be_used_are_one_fault(
    resources: dict[str, Any], fault: str, space_content: dict[str, Any], write_space: Callable[..., Path]
) -> None:
    with pytest.raises(InputError) as raised:
        validate_space(str(write_space(space_content | {"resources": resources})))
    (problem,) = raised.value.problems
    assert "resources.gpus_per_worker: " in str(problem)
    assert fault in str(problem)


def test_a_device_is_unusable_if_synchronizing_it_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def synchronize(device: torch.device) -> None:
        if device.index == 1:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    devices = [torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)]
    assert [is_usable(device) for device in devices] == [True, True, False]
