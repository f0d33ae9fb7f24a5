"""Distributed context: the processes that train one trial together, and the device that each uses.

Several processes need a torch.distributed process group, which the caller creates (Ray Train, torchrun). It carries
gradients and weights. Python objects are sent by a second group, on the CPU: processes that wait for an object, such as
the answer of a search to an epoch's results, then use no GPU and do not exceed the time limit of the first group.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

__all__ = ["DistributedContext"]

CONTROL_TIMEOUT = timedelta(days=7)
"""Time limit of messages, which may have to wait for a search or for a large checkpoint."""


@lru_cache(maxsize=1)
def _get_control_group(processes: dist.ProcessGroup) -> dist.ProcessGroup:
    """Return the group that carries messages; a collective operation at the first call.

    Args:
        processes: The group of all processes.
    """
    if not {"gloo", "nccl"} & set(dist.get_backend(processes).replace(":", ",").split(",")):
        return processes  # other backends, such as MPI, carry objects themselves
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
    return group


@dataclass(frozen=True)
class DistributedContext:
    """Position of this process among those that train one trial together.

    Args:
        rank: Number of this process, 0 to ``size - 1``; rank 0 reports and writes.
        size: Number of processes.
        device: Device of this process.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def current(cls, device: torch.device | None = None) -> DistributedContext:
        """Return the context of the current process group.

        Args:
            device: Device of this process; by default the current CUDA device, or the CPU if there is none.
        """
        if device is None:
            available = torch.cuda.is_available()
            device = torch.device("cuda", torch.cuda.current_device()) if available else torch.device("cpu")
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), device)
        return cls(device=device)

    def broadcast_from_rank_zero(self, value: Any) -> Any:
        """Return rank 0's value in every process; a collective operation. The value must be picklable."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._get_control_group())
        return values[0]

    def all_gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, ordered by rank; a collective operation. Values must be picklable."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._get_control_group())
        return values

    def wait_for_rank_zero(self) -> None:
        """Wait until rank 0 calls this method, too; a collective operation."""
        self.broadcast_from_rank_zero(None)

    def is_shared(self, folder: Path) -> bool:
        """Return whether the folders of all processes are the same one; a collective operation.

        Args:
            folder: The folder of this process; that of rank 0 is created if needed.
        """
        name = f".probe-{uuid.uuid4().hex}"  # a new name, which no file system has cached as missing
        if self.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        probe = folder / self.broadcast_from_rank_zero(name)
        seen = self.all_gather(probe.exists())
        if self.rank == 0:
            probe.unlink()
        return all(seen)

    def _get_control_group(self) -> dist.ProcessGroup:
        processes = dist.group.WORLD
        assert processes is not None, "several processes have a process group"
        return _get_control_group(processes)

    def reset_peak_memory(self) -> None:
        """Start measuring peak memory."""
        if self.device.type == "cuda":
            # The statistics of a device do not exist before CUDA is initialized.
            torch.cuda.init()  # type: ignore[no-untyped-call]
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:  # Linux resets the peak memory of a process on this write
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:  # without a reset, the peak of the whole process is an upper bound
            return

    def release_memory(self) -> None:
        """Return unused memory to the system; batches of many sizes fragment the heap."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
        if trim is not None:
            trim(0)

    def measure_peak_memory_mb(self) -> float:
        """Return the peak memory since :meth:`reset_peak_memory` in MiB, of the GPU or else of the process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        status = Path("/proc/self/status")
        if status.is_file():
            for line in status.read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
