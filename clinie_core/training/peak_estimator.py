"""Peak memory of a configuration, measured or extrapolated from backbones with few layers.

Between two points of a training step, such as the beginning of the last layer and that of the loss, memory is a linear
function of the number of identical layers. Its maximum there is therefore linear, too, and two numbers of layers
determine it. Layers between the first and the last never have the largest memory: it changes by the same amount from
layer to layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from clinie_core.modeling.sharding import fits_gathered
from clinie_core.training.memory_meter import BETWEEN, MIB, MemoryMeter, Peaks

__all__ = ["PeakEstimator"]


class PeakEstimator:
    """Peak memory of a configuration.

    Args:
        meters: A meter of the whole backbone, or two of the same backbone with few layers, by number of layers.
        layers: Number of the backbone's layers, if there are two meters.
    """

    def __init__(self, meters: Mapping[int, MemoryMeter], layers: int | None = None) -> None:
        self._meters = meters
        self._layers = layers
        self._predictions: dict[str, float] = {}

    @classmethod
    def of(cls, meter: MemoryMeter) -> PeakEstimator:
        """Return an estimator that measures a whole backbone."""
        return cls({0: meter})

    def count_parameters(self) -> tuple[int, int]:
        """Return the number of all and of trained parameters."""
        total = self._extrapolate(lambda meter: meter.count_parameters()[0])
        return round(total), round(self._extrapolate(lambda meter: meter.count_parameters()[1]))

    def measure_gradients(self) -> float:
        """Return the size of all gradients of a process in MiB."""
        return self._extrapolate(lambda meter: meter.gradient_bytes) / MIB

    def measure(self, micro_batch: int, *, accumulates: bool) -> float:
        """Return the peak memory in MiB of training and predicting with any component.

        Args:
            micro_batch: Windows per forward pass in training.
            accumulates: Whether a batch has several micro-batches, so that gradients exist before a forward pass.
        """
        first = next(iter(self._meters.values()))
        peak = max(self._measure_component(name, micro_batch, accumulates=accumulates) for name in first.components)
        return (peak + first.unpacked_bytes) / MIB

    def _measure_component(self, name: str, micro_batch: int, *, accumulates: bool) -> float:
        """Return the peak in bytes of training and predicting with one component."""
        training = self._find_peak(lambda meter: meter.measure_training(name, micro_batch, accumulates=accumulates))
        if name not in self._predictions:  # does not depend on the micro-batch
            self._predictions[name] = self._measure_prediction(name)
        return max(training, self._predictions[name])

    def _measure_prediction(self, name: str) -> float:
        held = self._extrapolate(lambda meter: meter.storage.current)
        gathered = self._extrapolate(lambda meter: meter.gathered_bytes)
        cached = self._extrapolate(lambda meter: meter.cache_bytes_per_token)
        first = next(iter(self._meters.values()))
        gathers = bool(gathered) and fits_gathered(gathered, first.limit_bytes - held)
        rows = first.count_rows(name, held + gathered * gathers, cached)
        return self._find_peak(lambda meter: meter.measure_prediction(name, rows, gathers=gathers)) if rows else 0.0

    def _find_peak(self, measure: Callable[[MemoryMeter], Peaks]) -> float:
        """Return the largest of all segments' peaks.

        Raises:
            ValueError: If the segments depend on the number of layers.
        """
        found = {count: measure(meter) for count, meter in self._meters.items()}
        if self._layers is None:
            return max(peak for peaks in found.values() for peak in peaks.values())
        few, more = ({name for name in peaks if BETWEEN not in repr(name)} for peaks in found.values())
        if few != more:
            raise ValueError("the steps of a backbone depend on its number of layers")
        return max(self._extend({count: peaks[name] for count, peaks in found.items()}) for name in few)

    def _extrapolate(self, read: Callable[[MemoryMeter], float]) -> float:
        """Return a number for the whole backbone that is linear in its number of layers."""
        return self._extend({count: read(meter) for count, meter in self._meters.items()})

    def _extend(self, values: Mapping[int, float]) -> float:
        if self._layers is None:
            (value,) = values.values()
            return value
        (few, low), (more, high) = values.items()
        return low + (self._layers - few) * (high - low) / (more - few)
