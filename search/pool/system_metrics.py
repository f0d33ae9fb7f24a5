"""Use of CPU, memory and GPU, sampled every second and averaged over an epoch.

The metrics have MLflow's names, so that its UI shows them under "System metrics".
"""

from __future__ import annotations

import importlib.util
import threading
from collections import defaultdict
from types import TracebackType
from typing import Any, Self

import psutil

from search.config.objectives import SYSTEM

__all__ = ["SystemMonitor"]

SAMPLE_SECONDS = 1.0


class SystemMonitor:
    """Context manager that samples the machine's metrics in a thread."""

    def __init__(self) -> None:
        self._samples: defaultdict[str, list[float]] = defaultdict(list)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._gpus = _Gpus()

    def __enter__(self) -> Self:
        psutil.cpu_percent()  # the first call returns 0 and starts the measurement
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        memory = psutil.virtual_memory()
        values = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": memory.percent,
            **self._gpus.sample(),
        }
        with self._lock:
            for name, value in values.items():
                self._samples[name].append(value)

    def averages(self) -> dict[str, float]:
        """Return the mean of each metric since the last call and reset the samples.

        Without a sample since then, one is taken now.
        """
        if not self._samples:
            self._sample()
        with self._lock:
            means = {SYSTEM + name: round(sum(v) / len(v), 1) for name, v in self._samples.items()}
            self._samples.clear()
        return means


class _Gpus:
    """NVIDIA GPUs of this machine; none without NVIDIA's management library or driver."""

    def __init__(self) -> None:
        self._library: Any = None
        self._handles: list[Any] = []
        if importlib.util.find_spec("pynvml") is None:
            return
        import pynvml

        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:  # no driver: there is no usable GPU
            return
        self._library = pynvml
        self._handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]

    def sample(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for i, handle in enumerate(self._handles):
            memory = self._library.nvmlDeviceGetMemoryInfo(handle)
            values[f"gpu_{i}_memory_usage_megabytes"] = memory.used / 1e6
            values[f"gpu_{i}_memory_usage_percentage"] = memory.used / memory.total * 100
            values[f"gpu_{i}_utilization_percentage"] = self._library.nvmlDeviceGetUtilizationRates(handle).gpu
        return values
