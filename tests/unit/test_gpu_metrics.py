"""Metrics of the worker's own GPU, with a simulated NVML: errors, MIG slices, and the identity of the device."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from search.pool.gpu_metrics import GpuSampler, find_gpu
from search.pool.system_metrics import SystemMonitor

UUIDS = ("GPU-1a2b3c4d-0000-0000-0000-000000000001", "GPU-99999999-0000-0000-0000-000000000002")
SLICE = "MIG-5e6f7a8b-0000-0000-0000-000000000003"


class NVMLError(Exception):
    pass


@dataclass
class SimulatedNvml:
    """NVML of a node with two GPUs and a MIG slice. Handles are UUIDs.

    Args:
        missing: Names of the functions that raise.
    """

    missing: tuple[str, ...] = ()
    NVMLError = NVMLError

    def _require(self, name: str) -> None:
        if name in self.missing:
            raise NVMLError("Not Supported")

    def nvmlInit(self) -> None:  # noqa: N802
        self._require("nvmlInit")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(UUIDS)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return UUIDS[index]

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return handle

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid not in (*UUIDS, SLICE):
            raise NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:  # noqa: N802
        self._require("memory")
        used = {UUIDS[0]: 10e9, UUIDS[1]: 20e9, SLICE: 5e9}[handle]
        return SimpleNamespace(used=used, total=40e9)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> SimpleNamespace:  # noqa: N802
        self._require("utilization")
        if handle == SLICE:
            raise NVMLError("Not Supported")
        return SimpleNamespace(gpu=30 if handle == UUIDS[0] else 70)


MEMORY = {"gpu_0_memory_usage_megabytes", "gpu_0_memory_usage_percentage"}


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ((), MEMORY | {"gpu_0_utilization_percentage"}),
        (("utilization",), MEMORY),
        (("memory",), {"gpu_0_utilization_percentage"}),
        (("memory", "utilization"), set()),
        (("nvmlInit",), set()),
    ],
    ids=["all", "no-utilization", "no-memory", "none", "no-driver"],
)
def test_a_metric_that_raises_is_left_out(missing: tuple[str, ...], expected: set[str]) -> None:
    sampler = GpuSampler(UUIDS[1], SimulatedNvml(missing))
    assert set(sampler.sample()) == expected
    with SystemMonitor(sampler) as monitor:
        averages = monitor.averages()
    assert {name.removeprefix("system.") for name in averages if "gpu" in name} == expected


def test_the_own_device_is_sampled() -> None:
    assert GpuSampler(UUIDS[1], SimulatedNvml()).sample()["gpu_0_utilization_percentage"] == 70
    assert GpuSampler("GPU-1a2b", SimulatedNvml()).sample()["gpu_0_memory_usage_megabytes"] == 10_000


def test_a_mig_slice_reports_its_memory_only() -> None:
    assert GpuSampler(SLICE, SimulatedNvml()).sample() == {
        "gpu_0_memory_usage_megabytes": 5_000,
        "gpu_0_memory_usage_percentage": 12.5,
    }


def test_an_unknown_device_and_a_cpu_have_no_metrics() -> None:
    assert GpuSampler("MIG-unknown", SimulatedNvml()).sample() == {}
    assert GpuSampler(None, SimulatedNvml()).sample() == {}


@pytest.mark.parametrize(
    ("visible", "index", "expected"),
    [
        (f"{UUIDS[0]},{UUIDS[1]}", 1, UUIDS[1]),
        ("GPU-1a2b", 0, "GPU-1a2b"),
        (SLICE, 0, SLICE),
        ("2,5", 1, "GPU-of-cuda:1"),
        ("", 3, "GPU-of-cuda:3"),
    ],
    ids=["uuids", "abbreviated", "mig", "indices", "unset"],
)
def test_the_device_is_identified_by_uuid(
    visible: str, index: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"of-{device}"))
    assert find_gpu(torch.device("cuda", index)) == expected
    assert find_gpu(torch.device("cpu")) is None
