"""Use of the GPU of this process, from NVIDIA's management library (NVML).

A metric that the device does not report is left out: a MIG slice, for example, has no utilization.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pynvml
import torch

__all__ = ["GpuSampler", "find_gpu"]

UUID_PREFIXES = ("GPU-", "MIG-")


def find_gpu(device: torch.device) -> str | None:
    """Return NVML's identifier of a device.

    Args:
        device: The device; CUDA counts it within ``CUDA_VISIBLE_DEVICES``, which holds indices, UUIDs or MIG ids.

    Returns:
        The UUID of the GPU or MIG slice, possibly abbreviated; None for a CPU.
    """
    if device.type != "cuda":
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    index = device.index or 0
    if index < len(visible) and visible[index].startswith(UUID_PREFIXES):
        return visible[index]
    # CUDA and NVML may number the GPUs of a node in different orders, so an index does not identify one.
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


class GpuSampler:
    """Sampler of the metrics of one GPU.

    Args:
        gpu: UUID of the GPU or MIG slice, as :func:`find_gpu` returns it; None for no GPU.
        library: Python interface of NVML.
    """

    def __init__(self, gpu: str | None, library: Any = pynvml) -> None:
        self._library = library
        self._handle: Any = None
        if gpu is None:
            return
        try:
            library.nvmlInit()
            self._handle = self._find_handle(gpu)
        except library.NVMLError:  # without a driver or a permission there are no metrics, but trials can train
            return

    def _find_handle(self, gpu: str) -> Any:
        """Return the handle of a device whose UUID begins with a string."""
        library = self._library
        for i in range(library.nvmlDeviceGetCount()):
            handle = library.nvmlDeviceGetHandleByIndex(i)
            if str(library.nvmlDeviceGetUUID(handle)).startswith(gpu):
                return handle
        return library.nvmlDeviceGetHandleByUUID(gpu)  # NVML does not count MIG slices

    def sample(self) -> dict[str, float]:
        """Return the metrics that the device reports; none without a device."""
        if self._handle is None:
            return {}
        values: dict[str, float] = {}
        memory = self._read(lambda handle: self._library.nvmlDeviceGetMemoryInfo(handle))
        if memory is not None and memory.total:
            values["gpu_0_memory_usage_megabytes"] = memory.used / 1e6
            values["gpu_0_memory_usage_percentage"] = memory.used / memory.total * 100
        utilization = self._read(lambda handle: self._library.nvmlDeviceGetUtilizationRates(handle))
        if utilization is not None:
            values["gpu_0_utilization_percentage"] = float(utilization.gpu)
        return values

    def _read(self, metric: Callable[[Any], Any]) -> Any:
        """Read a metric; None if the device does not report it."""
        try:
            return metric(self._handle)
        except self._library.NVMLError:
            return None
