"""Free memory of a device, from which the size of a generation batch follows."""

from __future__ import annotations

import os
from pathlib import Path

import torch

__all__ = ["measure_free_memory"]

CGROUP = Path("/sys/fs/cgroup")


def measure_free_memory(device: torch.device) -> int:
    """Return the bytes that this process can still allocate on a device.

    Args:
        device: A GPU or the CPU. On the CPU, the limit of the process's container counts.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        allocated = torch.cuda.memory_allocated(device)
        unused = torch.cuda.memory_reserved(device) - allocated  # held by torch, but free for new tensors
        own_limit = int(total * torch.cuda.memory.get_per_process_memory_fraction(device))
        return min(free + unused, own_limit - allocated)
    return min(_read_available_memory(), _read_container_memory())


def _read_available_memory() -> int:
    """Return the machine's available memory; all of its memory where the system does not report the former."""
    file = Path("/proc/meminfo")
    for line in file.read_text(encoding="ascii").splitlines() if file.is_file() else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _read_container_memory() -> int:
    """Return the memory that the process's container has left; the largest integer if it has no limit."""
    found = []
    for name in ("memory.max", "memory.current"):
        text = (CGROUP / name).read_text(encoding="ascii").strip() if (CGROUP / name).is_file() else ""
        found.append(int(text) if text.isdigit() else None)
    limit, used = found
    return 2**63 - 1 if limit is None or used is None else max(0, limit - used)
