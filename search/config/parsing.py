"""Parse the ``space`` block of a space file into dimensions.

This module checks the form of each entry. Whether the values are legal and fit together is checked by
:mod:`search.config.validation`.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue, ValidationError

from clinie_core.backbones.facts import BackboneFacts
from clinie_core.config import RENAMED_KEYS, BackboneSource, Task, TrialConfig
from clinie_core.errors import ErrorList, InputError, Problem
from clinie_core.finetuning import FINETUNING
from clinie_core.formulations import FORMULATIONS
from clinie_core.modeling.capabilities import list_finetuning_methods, list_formulations, list_relation_formulations
from clinie_core.registry import Registry
from search.config.domains import Domain, Fixed, parse_domain
from search.config.space_file import SET_BY_OTHER_BLOCKS, SpaceFile

__all__ = ["PARTS", "Dimensions", "Faults", "parse_dimensions"]

PARTS: dict[str, Registry[Any]] = {
    "formulation": FORMULATIONS,
    "relation_formulation": FORMULATIONS,
    "finetuning": FINETUNING,
}
"""Keys of a space whose value selects a component: each branch has its own dimensions."""


class Faults(ErrorList):
    """The faults of one space file, each of them once.

    Args:
        where: Name of the file, which begins every message.
    """

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def add(self, where: str, found: str, *, allowed: str = "", remedy: str = "") -> None:
        """Add a fault; ``where`` is a key path such as ``space.batch_size``, with or without the file's name."""
        prefix = f"{self.where}: "
        place = where if where.startswith(prefix) else prefix + where
        self.extend([Problem(place, found, allowed=allowed, remedy=remedy)])

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add faults that are not in the list yet."""
        super().extend(problem for problem in dict.fromkeys(problems) if problem not in self._problems)

    def covers(self, path: str) -> bool:
        """Return whether a key path, or a path below it, has a fault.

        Args:
            path: Key path without ``choose``, for example ``space.finetuning.lora``.
        """
        paths = (p.where.removeprefix(f"{self.where}: ").replace(".choose", "") for p in self._problems)
        return any(found == path or found.startswith(f"{path}.") for found in paths)


@dataclass(frozen=True)
class Dimensions:
    """The dimensions of a search space.

    Args:
        task: Task of every trial.
        scalars: Domains of the fields of ``TrialConfig``, by field; ``backbone`` is among them.
        parts: Domains of the parameters of each component, by part, branch and parameter.
        backbones: Sources of the backbones, by name.
    """

    task: Task
    scalars: Mapping[str, Domain]
    parts: Mapping[str, Mapping[str, Mapping[str, Domain]]]
    backbones: Mapping[str, BackboneSource]

    def can_enable(self, key: str) -> bool:
        """Return whether a boolean field is true in at least one trial."""
        return True in self.scalars.get(key, Fixed(False)).corners

    def legal_branches(self, part: str, facts: BackboneFacts) -> list[str]:
        """Return the branches of a part that a backbone supports.

        Methods that freeze the backbone are left out for one with random weights.
        """
        key = part, facts.architecture, facts.can_freeze
        if key not in self._legal:
            self._legal[key] = self._find_legal_branches(part, facts)
        return list(self._legal[key])

    @functools.cached_property
    def _legal(self) -> dict[tuple[str, str, bool], list[str]]:
        """Legal branches, by part, architecture, and whether the backbone can be frozen."""
        return {}

    def _find_legal_branches(self, part: str, facts: BackboneFacts) -> list[str]:
        allowed: Collection[str]
        if part == "formulation":
            needs_relations = list_formulations(self.task, facts.architecture)
            has_relations = bool(self.parts.get("relation_formulation"))
            allowed = [name for name, needs in needs_relations.items() if has_relations or not needs]
        elif part == "relation_formulation":
            allowed = list_relation_formulations(facts.architecture)
        else:
            allowed = list_finetuning_methods(facts.architecture)
            if not facts.can_freeze:
                allowed = [name for name in allowed if name not in self.freezing_methods]
        return [name for name in self.parts[part] if name in allowed]

    @functools.cached_property
    def freezing_methods(self) -> frozenset[str]:
        """Fine-tuning methods of the space that can only train a pretrained backbone."""
        branches = self.parts.get("finetuning", {})
        return frozenset(name for name, domains in branches.items() if _freezes(name, domains))

    def needs_relation_formulation(self, formulation: str, facts: BackboneFacts) -> bool:
        """Return whether a formulation needs a relation formulation beside it on a backbone."""
        return list_formulations(self.task, facts.architecture)[formulation]


def _freezes(method: str, domains: Mapping[str, Domain]) -> bool:
    """Return whether some values of a method's parameters need pretrained weights."""
    row = FINETUNING.load(method)
    for at in (0, -1):
        try:
            variant = row.model_validate({parameter: domain.corners[at] for parameter, domain in domains.items()})
        except ValidationError:
            continue  # the fault is reported elsewhere
        if variant.needs_pretrained_weights:
            return True
    return False


def parse_dimensions(file: SpaceFile, faults: Faults) -> Dimensions:
    """Parse the ``space`` block.

    Args:
        file: The space file.
        faults: Receives every fault of form; faulty dimensions are left out of the result.
    """
    scalars: dict[str, Domain] = {}
    parts: dict[str, dict[str, dict[str, Domain]]] = {}
    for key, value in file.space.items():
        where = f"{faults.where}: space.{key}"
        if key in PARTS:
            parts[key] = _parse_part(key, value, where, faults)
        elif key in SET_BY_OTHER_BLOCKS:
            allowed = f"set {SET_BY_OTHER_BLOCKS[key]} at the top level"
            faults.add(where, "not a dimension of the space", allowed=allowed)
        elif key in RENAMED_KEYS:
            faults.add(where, "renamed key", remedy=f"write {RENAMED_KEYS[key]}")
        elif key not in TrialConfig.model_fields:
            fields = [name for name in TrialConfig.model_fields if name not in SET_BY_OTHER_BLOCKS]
            faults.add(where, "unknown key", allowed="allowed: " + ", ".join(fields))
        else:
            domain = parse_domain(value, where, faults)
            if not faults.covers(f"space.{key}"):
                scalars[key] = domain
    if file.task != "joint" and "relation_formulation" in file.space:
        faults.add("space.relation_formulation", f"not used in task {file.task}", allowed="only formulation")
    for required in ("backbone", "formulation", "finetuning"):
        if required not in file.space:
            faults.add(f"space.{required}", "missing", allowed="a value or {choose: ...}")
    return Dimensions(file.task, scalars, parts, _find_backbones(file, scalars, faults))


def _find_backbones(file: SpaceFile, scalars: Mapping[str, Domain], faults: Faults) -> dict[str, BackboneSource]:
    """Return the source of each backbone that the space names, without those whose entry has a fault."""
    names = [str(name) for name in scalars["backbone"].corners] if "backbone" in scalars else []
    sources = {name: file.backbone(name, faults.where, faults) for name in names}
    return {name: source for name, source in sources.items() if not faults.covers(f"backbones.{name}")}


def _parse_part(part: str, value: JsonValue, where: str, faults: Faults) -> dict[str, dict[str, Domain]]:
    """Parse a component's block: a name, a list of names, or a mapping from names to parameters."""
    branches = value
    if isinstance(value, dict) and set(value) == {"choose"}:
        branches, where = value["choose"], f"{where}.choose"
    if isinstance(branches, str):
        branches = {branches: {}}
    if isinstance(branches, list):
        branches = {str(name): {} for name in branches}
    if not isinstance(branches, dict) or not branches:
        allowed = f"one of {', '.join(PARTS[part])}, or {{choose: {{NAME: {{...}}}}}}"
        faults.add(where, "no branch", allowed=allowed)
        return {}
    parsed = {name: _parse_branch(part, name, content, f"{where}.{name}", faults) for name, content in branches.items()}
    return {name: domains for name, domains in parsed.items() if domains is not None}


def _parse_branch(part: str, name: str, content: JsonValue, where: str, faults: Faults) -> dict[str, Domain] | None:
    """Parse the parameters of one component; None if it is not a component or not a mapping."""
    try:
        row = PARTS[part].load(name, where)
    except InputError as error:
        faults.extend(error.problems)
        return None
    if content is not None and not isinstance(content, dict):
        faults.add(where, f"found {content!r}", allowed="{} for the shipped ranges, or {PARAMETER: ...}")
        return None
    given = dict(content or row.ranges)
    for parameter, field in row.model_fields.items():
        if field.is_required() and parameter not in given:
            given[parameter] = row.ranges[parameter]
    domains = {}
    for parameter, value in given.items():
        place = f"{where}.{parameter}"
        if RENAMED_KEYS.get(parameter) in row.model_fields:
            faults.add(place, "renamed key", remedy=f"write {RENAMED_KEYS[parameter]}")
        elif parameter not in row.model_fields:
            faults.add(place, f"unknown key of {name}", allowed="allowed: " + ", ".join(row.model_fields))
        else:
            domains[parameter] = parse_domain(value, place, faults)
    return domains
