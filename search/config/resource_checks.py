"""Validation of resource classes: their keys, the classes of backbones, and the needs of the space."""

from __future__ import annotations

from clinie_core.finetuning import FINETUNING
from search.config.parsing import Dimensions, Faults
from search.config.space_file import CLASS_KEY, SpaceFile

__all__ = ["check_resources"]


def check_resources(file: SpaceFile, dimensions: Dimensions, faults: Faults) -> None:
    """Check that the resource classes are consistent and suffice for the switches and the methods of the space.

    Args:
        file: The space file.
        dimensions: Its dimensions.
        faults: Receives every fault.
    """
    for number, own in enumerate(file.resources):
        key = "resources" if len(file.resources) == 1 else f"resources.{number}"
        gpus, workers = own.gpus_per_worker, own.workers_per_trial
        if gpus != "auto" and 0 < gpus < 1 and workers > 1:
            found = f"{workers} processes of a trial with {gpus:g} GPU each, but NCCL needs a GPU per process"
            remedy = f"set it to 1, or set {key}.workers_per_trial to 1"
            faults.add(f"{key}.gpus_per_worker", found, remedy=remedy)
        if own.sharded and workers < 2:
            _add_single_process(f"{key}.sharded", key, faults)
    if dimensions.can_enable("sharded") and all(own.workers_per_trial < 2 for own in file.resources):
        _add_single_process("space.sharded", "resources", faults)
    _check_methods(file, dimensions, faults)
    _check_class_names(file, faults)
    _check_memory(file, dimensions, faults)
    _check_prices(file, faults)


def _add_single_process(where: str, key: str, faults: Faults) -> None:
    found = "a trial has one process, so there is nothing to shard"
    faults.add(where, found, remedy=f"set {key}.workers_per_trial to 2 or more, or remove the key")


def _check_methods(file: SpaceFile, dimensions: Dimensions, faults: Faults) -> None:
    """Check that each fine-tuning method supports recomputation and sharding where the space asks for them."""
    all_sharded = all(own.sharded for own in file.resources)
    for method in dimensions.parts.get("finetuning", ()):
        row, where = FINETUNING.load(method), f"space.finetuning.{method}"
        if not row.supports_recomputation and dimensions.can_enable("gradient_checkpointing"):
            faults.add(where, "not compatible with gradient_checkpointing", remedy="remove one of them")
        if not row.supports_sharding and dimensions.can_enable("sharded"):
            faults.add(where, "not compatible with sharded", remedy="remove one of them")
        elif not row.supports_sharding and all_sharded:
            found = "not compatible with sharded, which all resource classes set"
            faults.add(where, found, remedy="remove one of them, or add a class without sharded")


def _check_class_names(file: SpaceFile, faults: Faults) -> None:
    """Check that the resource classes of backbones exist."""
    names = [own.name for own in file.resources]
    for backbone, entry in file.backbones.items():
        if CLASS_KEY in entry and entry[CLASS_KEY] not in names:
            found = f"unknown resource class {entry[CLASS_KEY]!r}"
            faults.add(f"backbones.{backbone}.{CLASS_KEY}", found, allowed="one of " + ", ".join(names))


def _check_prices(file: SpaceFile, faults: Faults) -> None:
    """Check that each class has a price in the currency of the budget, if the budget limits the cost."""
    cost = file.budget.cost
    if cost is None:
        return
    for own in file.resources:
        if own.price_per_hour is None or own.currency != cost.currency:
            price = "no price" if own.price_per_hour is None else f"a price in {own.currency}"
            found = f"a limit in {cost.currency}, but the resource class {own.name} has {price}"
            remedy = f"set its price_per_hour and currency: {cost.currency}, or remove budget.cost"
            faults.add("budget.cost", found, remedy=remedy)


def _check_memory(file: SpaceFile, dimensions: Dimensions, faults: Faults) -> None:
    """Check that the memory of each class is known if trials are assigned by their estimated memory."""
    if len(file.resources) == 1 or all(file.get_class_name(name) for name in dimensions.backbones):
        return
    for number, own in enumerate(file.resources):
        if own.known_memory_gib is None:
            found = f"the memory of class {own.name} is unknown, but trials are assigned to classes by their memory"
            remedy = "set it, or accelerator_type, or name a class in the entry of each backbone (backbones.NAME)"
            faults.add(f"resources.{number}.memory_gib", found, remedy=remedy)
