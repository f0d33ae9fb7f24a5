"""The processes that train one trial together, and the processor that each uses.

One process is a world of its own. Several have a torch.distributed process group that somebody
else set up (Ray Train, torchrun); this module only asks it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from clinie_core.config import TrialConfig

__all__ = ["DistributedContext", "is_out_of_memory", "supports_bfloat16"]

NO_MEMORY = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA out of memory")
"""Words of errors that torch raises without a type of their own."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory was too short, of the GPU or of the process."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(w in str(error) for w in NO_MEMORY)


def supports_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 autocast is faster than float32 here: such a GPU, or AVX-512 BF16 or AMX on a CPU."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and "avx512_bf16" in flags.read_text(encoding="utf-8", errors="replace")


@dataclass(frozen=True)
class DistributedContext:
    """The place of this process among those that train together.

    Args:
        rank: Number of this process, 0 to ``size - 1``; 0 reports and writes.
        size: How many processes there are.
        device: Where this process computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def current(cls) -> DistributedContext:
        """The world of the running process group, on CUDA where there is a GPU."""
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), device)
        return cls(device=device)

    def autocast(self, config: TrialConfig) -> torch.autocast:
        """The autocast context of a configuration's precision on this device."""
        wanted = config.precision
        enabled = wanted == "bfloat16" or (wanted == "auto" and supports_bfloat16(self.device))
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def broadcast_from_rank_zero(self, value: Any) -> Any:
        """Give every process rank 0's value, which must pickle."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def all_gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    @contextmanager
    def take_turns(self) -> Iterator[None]:
        """Within this context a machine's processes follow each other: what takes much memory is there once.

        All processes must come here, and nothing within may wait for another one.
        """
        place = int(os.environ.get("LOCAL_RANK", self.rank))
        turns = [turn == place for turn in range(1 + max(self.all_gather(place)))]
        for mine in turns:
            if mine:
                yield
                self.release_memory()
            self.all_gather(mine)  # until the one whose turn it is comes here too

    def reset_peak_memory(self) -> None:
        """Start measuring the peak memory of a new trial."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:  # Linux keeps a process's high-water mark and resets it on this write
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:  # elsewhere the mark of the whole process stands in; it is an upper bound
            return

    def release_memory(self) -> None:
        """Give what a trial has freed back to the system: batches of many sizes leave holes in the heap."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, others do not
        if trim is not None:
            trim(0)

    def measure_peak_memory_mb(self) -> float:
        """Most memory held since :meth:`reset_peak_memory`, in MiB: of the GPU, else of the process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        status = Path("/proc/self/status")
        if status.is_file():
            for line in status.read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
