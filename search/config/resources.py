"""Resource classes: the resources of a trial, with their memory and price."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from clinie_core.config import FrozenModel
from search.trials.job import DEFAULT_CLASS

__all__ = ["ACCELERATOR_GIB", "Resources", "check_classes", "find_currency", "sort_classes"]

ACCELERATOR_GIB = {
    "T4": 15.0,
    "P100": 16.0,
    "V100": 16.0,
    "A10G": 22.5,
    "L4": 22.5,
    "A100": 40.0,
    "A100-40G": 40.0,
    "L40S": 45.0,
    "H100": 79.5,
    "A100-80G": 80.0,
    "H200": 140.0,
}
"""Memory in GiB that the driver reports for a GPU, by Ray's name of its type; the smaller one if there are several."""


class Resources(FrozenModel):
    """Resource class: the resources of one trial, and how many trials may have them at once.

    Args:
        name: Name of the class; classes of a list have different names.
        workers_per_trial: Number of processes that train one trial together (DDP or FSDP).
        cpus_per_worker: CPU cores per worker.
        gpus_per_worker: GPUs per worker, at most 1: 0 trains on CPUs, a fraction shares a GPU between trials. ``auto``
            is 0 on a cluster without GPUs, otherwise 1, or a fraction if every trial fits into it by the estimate.
        sharded: Whether trials of this class shard the model over their workers, whatever the space says.
        accelerator_type: Type of the GPU as Ray names it, such as ``A100``; None for any.
        memory_gib: Memory in GiB of a whole GPU, or of a worker that trains on a CPU; None for that of
            ``accelerator_type``, or of this machine.
        concurrent_trials: Number of trials of the class that run at once; None for as many as the cluster can hold,
            including the nodes that its autoscaler may start.
        price_per_hour: Price of the resources of one trial for an hour; None if it is unknown.
        currency: Currency of the price, as three letters.
    """

    name: str = Field(default=DEFAULT_CLASS, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")
    workers_per_trial: int = Field(default=1, ge=1)
    cpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_worker: float | Literal["auto"] = 0.0
    sharded: bool = False
    accelerator_type: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$")
    memory_gib: float | None = Field(default=None, gt=0)
    concurrent_trials: int | None = Field(default=None, ge=1)
    price_per_hour: float | None = Field(default=None, ge=0)
    currency: str | None = Field(default=None, pattern=r"^[A-Z]{3}$")

    @field_validator("gpus_per_worker", mode="before")
    @classmethod
    def _check_gpus(cls, value: object) -> object:
        if value == "auto" or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1):
            return value
        raise ValueError(
            f"found {value!r}; allowed: a number from 0 to 1, or auto; set workers_per_trial for more GPUs"
        )

    @model_validator(mode="after")
    def _check_price(self) -> Self:
        if self.price_per_hour is not None and self.currency is None:
            raise ValueError(
                f"price_per_hour {self.price_per_hour:g} without a currency; set currency to three letters such as EUR"
            )
        return self

    @property
    def gpu_share(self) -> float:
        """GPUs of a worker; ``auto`` counts as a whole one."""
        return 1.0 if self.gpus_per_worker == "auto" else float(self.gpus_per_worker)

    @property
    def gpus_per_trial(self) -> float:
        """GPUs of a trial."""
        return self.workers_per_trial * self.gpu_share

    @property
    def known_memory_gib(self) -> float | None:
        """Memory in GiB of a whole GPU, or of a worker that trains on a CPU; None if the file does not determine it."""
        if self.memory_gib is not None or not self.gpus_per_worker:
            return self.memory_gib
        return ACCELERATOR_GIB.get(self.accelerator_type or "")

    def get_worker_share(self) -> dict[str, float]:
        """Return the resources of one worker, as Ray names them; none that are 0."""
        share = {"CPU": self.cpus_per_worker, "GPU": self.gpu_share}
        if self.accelerator_type is not None:
            share[f"accelerator_type:{self.accelerator_type}"] = 0.001  # as Ray does for a task's accelerator_type
        return {name: amount for name, amount in share.items() if amount}


def check_classes(classes: Sequence[Resources]) -> None:
    """Check that classes have different names and one currency.

    Raises:
        ValueError: If they do not.
    """
    names = [own.name for own in classes]
    if len(set(names)) < len(names):
        raise ValueError(f"two classes are called {max(names, key=names.count)}; give each a different name")
    currencies = sorted({own.currency for own in classes if own.currency is not None})
    if len(currencies) > 1:
        raise ValueError(f"prices in {' and '.join(currencies)} cannot be added; use one currency")


def find_currency(classes: Sequence[Resources]) -> str | None:
    """Return the currency of the prices of classes; None if no class has one."""
    return next((own.currency for own in classes if own.currency is not None), None)


def sort_classes(classes: Sequence[Resources]) -> tuple[Resources, ...]:
    """Return classes from the smallest to the largest.

    Classes without a GPU come first. Then the memory of all workers counts, then GPUs, then cores.
    """

    def measure(own: Resources) -> tuple[bool, float, float, float]:
        devices = own.gpus_per_trial or own.workers_per_trial
        cores = own.workers_per_trial * own.cpus_per_worker
        return own.gpus_per_trial > 0, devices * (own.known_memory_gib or 0), own.gpus_per_trial, cores

    return tuple(sorted(classes, key=measure))
