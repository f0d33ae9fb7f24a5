"""Shortages of memory: error messages, kills by the kernel and by Ray, and the limit of a fraction of a GPU."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from clinie_core.modeling.memory_errors import MEMORY_ERRORS, is_out_of_memory
from search.cluster.devices import limit_memory
from search.cluster.memory_kills import count_memory_kills, find_memory_kill

SHORTAGES: dict[str, BaseException] = {
    "CUDA's caching allocator": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "CUDA runtime": torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
    "CUDA driver": RuntimeError("CUDA driver error: out of memory"),
    "creation of a cuBLAS handle": RuntimeError(
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"
    ),
    "workspace of cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "workspace of cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "workspace of cuSOLVER": RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED"),
    "buffers of NCCL": torch.distributed.DistBackendError(
        "NCCL error in: ProcessGroupNCCL.cpp:3690, unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'"
    ),
    "CPU allocator of torch": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    "memory map": RuntimeError("unable to mmap 437 bytes from file: Cannot allocate memory (12)"),
    "Python": MemoryError(),
    "operating system": OSError(errno.ENOMEM, "Cannot allocate memory"),
}
OTHERS = {
    "assertion": torch.AcceleratorError("CUDA error: device-side assert triggered"),
    "address": RuntimeError("CUDA error: an illegal memory access was encountered"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"),
    "nccl": torch.distributed.DistBackendError("NCCL error: remote process exited or there was a network error"),
    "oneDNN with enough memory": RuntimeError("could not create a primitive"),
    "value": ValueError("a note says: CUDA out of memory"),
    "disk": OSError(errno.ENOSPC, "No space left on device"),
}


@pytest.mark.parametrize("name", sorted(SHORTAGES))
def test_a_memory_shortage_is_recognized(name: str) -> None:
    assert is_out_of_memory(SHORTAGES[name])


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_another_error_is_no_memory_shortage(name: str) -> None:
    assert not is_out_of_memory(OTHERS[name])


ONEDNN = """
import resource
from pathlib import Path
from clinie_core.modeling.memory_errors import is_out_of_memory

error = RuntimeError("could not create a primitive")
assert not is_out_of_memory(error)
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 64 * 2**20, -1))
assert is_out_of_memory(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce a limit of the address space")
def test_an_error_of_onednn_is_a_memory_shortage_if_no_memory_can_be_mapped() -> None:
    done = subprocess.run([sys.executable, "-c", ONEDNN], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_each_row_of_the_table_has_an_example() -> None:
    assert set(MEMORY_ERRORS) <= set(SHORTAGES)


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/pod/worker", {"sys/fs/cgroup/pod/worker/memory.events": "low 0\noom 2\noom_kill 3\n"}, 3),
        ("0::/", {"sys/fs/cgroup/memory.events": "oom_kill 4\noom_group_kill 0\n"}, 4),
        ("4:memory:/a\n0::/", {"sys/fs/cgroup/memory/a/memory.oom_control": "under_oom 0\noom_kill 5\n"}, 5),
        ("4:memory:/away", {"sys/fs/cgroup/memory/memory.oom_control": "oom_kill 6\n"}, 6),
        ("0::/", {"proc/vmstat": "pgfault 9\noom_kill 7\n"}, 7),
        ("0::/", {}, 0),
    ],
    ids=["v2", "v2-container", "v1", "v1-container", "node", "unknown"],
)
def test_kills_by_the_kernel_are_counted(group: str, files: dict[str, str], expected: int, tmp_path: Path) -> None:
    for name, content in {"proc/self/cgroup": group, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="ascii")
    assert count_memory_kills(tmp_path) == expected


def test_a_kill_by_rays_memory_monitor_is_recognized() -> None:
    killed = WorkerHealthCheckFailedError("rank 1", OutOfMemoryError("Memory on the node was 61GB / 64GB"))
    assert find_memory_kill([RayActorError(), killed]) is not None
    assert find_memory_kill([WorkerHealthCheckFailedError("rank 1", RayActorError())]) is None


@pytest.mark.parametrize(("share", "expected"), [(0.5, 0.45), (0.25, 0.2), (0.05, 0.025), (1.0, None), (0.0, None)])
def test_a_fraction_of_a_gpu_limits_the_memory_of_the_process(
    share: float, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=10_000 * 2**20)
    )
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda part, device: limits.append(part))
    limit_memory(torch.device("cpu"), share)
    assert limits == []
    limit_memory(torch.device("cuda", 0), share)
    assert limits == ([] if expected is None else [pytest.approx(expected)])


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "expandable_segments:True"),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, "max_split_size_mb:64"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}, ""),
    ],
    ids=["unset", "set", "old-name-set"],
)
def test_every_process_of_a_search_uses_expandable_segments(variables: dict[str, str], expected: str) -> None:
    program = "import os, search.cluster.environment; print(os.environ.get('PYTORCH_ALLOC_CONF', ''))"
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTORCH_")} | variables
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == expected
