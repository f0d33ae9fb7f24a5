"""Use of CPU, memory and GPU, sampled every second and averaged over an epoch.

The metrics have MLflow's names, so that its UI shows them under "System metrics".
"""

from __future__ import annotations

import threading
from collections import defaultdict
from types import TracebackType
from typing import Self

import psutil

from search.config.objectives import SYSTEM
from search.pool.gpu_metrics import GpuSampler

__all__ = ["SystemMonitor"]

SAMPLE_SECONDS = 1.0


class SystemMonitor:
    """Context manager that samples the machine's metrics in a thread.

    Args:
        gpu: Sampler of this process's GPU.
    """

    def __init__(self, gpu: GpuSampler) -> None:
        self._samples: defaultdict[str, list[float]] = defaultdict(list)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._gpu = gpu

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
            **self._gpu.sample(),
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
