"""Hardware of a process that trains: kind of device, and the memory that training may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["MEMORY_SHARE", "Hardware", "detect_hardware"]

MEMORY_SHARE = 0.9
"""Share of a device's memory that the tensors of training may fill; kernels and the allocator need the rest."""


@dataclass(frozen=True)
class Hardware:
    """Hardware of one process that trains.

    Args:
        device_type: ``cpu`` or ``cuda``.
        memory_mb: Memory in MiB that training may use; None if it is unknown.
    """

    device_type: str = "cpu"
    memory_mb: float | None = None


def detect_hardware(device: torch.device) -> Hardware:
    """Return the hardware of this process; the memory of a CPU counts as unknown, because other processes share it.

    Args:
        device: Device of the process. Memory of a GPU that other processes use is not available.
    """
    if device.type != "cuda":
        return Hardware(device.type)
    import torch

    from clinie_core.modeling.free_memory import measure_free_memory

    available = measure_free_memory(device) + torch.cuda.memory_allocated(device)
    return Hardware("cuda", MEMORY_SHARE * available / 2**20)
