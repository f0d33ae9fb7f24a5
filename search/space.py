"""A search space: YAML in, validated in whole, trial configurations out. It knows no sampler."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import JsonValue, ValidationError

from clinie_core.backbones import architecture, check_backbone, hidden_size
from clinie_core.config import BackboneSource, Part, TrialConfig, problems_from
from clinie_core.errors import ErrorList, InputError
from clinie_core.finetuning import FINETUNING
from clinie_core.formulations import FORMULATIONS
from clinie_core.table import Table
from search.domains import Chooser, Domain, Fixed, OneOf, parse_domain
from search.space_file import SpaceFile

__all__ = ["SearchSpace"]

PARTS: dict[str, Table[Any]] = {"formulation": FORMULATIONS, "finetuning": FINETUNING}
RESERVED = {
    "task": "task",
    "epochs": "budget.epochs",
    "selection": "objective",
    "merge_types": "corpus.merge_types",
}


class SearchSpace:
    """The dimensions of a study and the configurations that they span.

    Args:
        file: The validated file.
        where: The file's name, for messages.

    Raises:
        InputError: With everything that is wrong with the ``space`` block, each with its key path.
    """

    def __init__(self, file: SpaceFile, where: str) -> None:
        self.file = file
        self._where = where
        self._errors = ErrorList()
        self._scalars: dict[str, Domain] = {}
        self._parts: dict[str, dict[str, dict[str, Domain]]] = {}  # part, branch, parameter
        self._backbones: dict[str, BackboneSource] = {}
        for key, value in file.space.items():
            self._parse(key, value)
        for required in ("backbone", *PARTS):
            if required not in file.space:
                self._errors.add(f"{where}: space.{required}", "missing", "a value or {choose: ...}")
        self._errors.raise_if_any()
        self._check_corners()
        self._errors.raise_if_any()
        for source in self._backbones.values():
            self._check_backbone(source)
        self._errors.raise_if_any()

    def _parse(self, key: str, value: JsonValue) -> None:
        where = f"{self._where}: space.{key}"
        if key in PARTS:
            self._parts[key] = self._parse_part(key, value, where)
        elif key in RESERVED:
            self._errors.add(where, "not a dimension of the space", f"set {RESERVED[key]} at the top level")
        elif key not in TrialConfig.model_fields:
            fields = [f for f in TrialConfig.model_fields if f not in RESERVED]
            self._errors.add(where, "unknown key", "allowed: " + ", ".join(fields))
        else:
            self._scalars[key] = parse_domain(value, where, self._errors)
            if key == "backbone":
                for name in self._scalars[key].corners:
                    self._backbones[str(name)] = self.file.backbone(str(name), self._where, self._errors)

    def _parse_part(self, key: str, value: JsonValue, where: str) -> dict[str, dict[str, Domain]]:
        branches = value
        if isinstance(value, dict) and set(value) == {"choose"}:
            branches, where = value["choose"], f"{where}.choose"
        if isinstance(branches, str):
            branches = {branches: {}}
        if isinstance(branches, list):
            branches = {str(name): {} for name in branches}
        if not isinstance(branches, dict) or not branches:
            self._errors.add(where, "no branch", f"one of {', '.join(PARTS[key])}, or {{choose: {{NAME: {{...}}}}}}")
            return {}
        return {name: self._parse_branch(key, name, content, f"{where}.{name}") for name, content in branches.items()}

    def _parse_branch(self, key: str, name: str, content: JsonValue, where: str) -> dict[str, Domain]:
        try:
            row = PARTS[key].load(name, where)
        except InputError as error:
            self._errors.extend(error.problems)
            return {}
        if content is not None and not isinstance(content, dict):
            self._errors.add(where, f"found {content!r}", "{} for the shipped ranges, or {PARAMETER: ...}")
            return {}
        given = dict(content or row.ranges)
        for parameter, field in row.model_fields.items():
            if field.is_required() and parameter not in given:
                given[parameter] = row.ranges[parameter]
        domains = {}
        for parameter, value in given.items():
            if parameter not in row.model_fields:
                allowed = "allowed: " + ", ".join(row.model_fields)
                self._errors.add(f"{where}.{parameter}", f"unknown key of {name}", allowed)
            else:
                domains[parameter] = parse_domain(value, f"{where}.{parameter}", self._errors)
        return domains

    def _check_corners(self) -> None:
        """Each end of each range and each choice must be a legal value."""
        for key, branches in self._parts.items():
            for name, domains in branches.items():
                self._check_branch(key, name, domains)
        first = {key: domain.corners[0] for key, domain in self._scalars.items() if key != "backbone"}
        for key, domain in self._scalars.items():
            for corner in domain.corners if key != "backbone" else ():
                try:
                    self._config(next(iter(self._backbones.values())), first | {key: corner}, self._first_parts())
                except ValidationError as error:
                    self._errors.extend(problems_from(error, f"{self._where}: space"))

    def _check_branch(self, key: str, name: str, domains: Mapping[str, Domain]) -> None:
        row = PARTS[key].load(name)
        first = {parameter: domain.corners[0] for parameter, domain in domains.items()}
        for parameter, domain in domains.items():
            for corner in domain.corners:
                try:
                    row.model_validate(first | {parameter: corner})
                except ValidationError as error:
                    where = f"{self._where}: space.{key}.{name}"
                    own = [p for p in problems_from(error, where) if p.where == f"{where}.{parameter}"]
                    self._errors.extend(own)

    def _check_backbone(self, source: BackboneSource) -> None:
        """The backbone must be there and carry every part that it may meet."""
        where = f"{self._where}: space.backbone"
        try:
            check_backbone(source, where)
            kind = architecture(source, where)
            width = hidden_size(source, where)
        except InputError as error:
            self._errors.extend(error.problems)
            return
        for key, branches in self._parts.items():
            for name, domains in branches.items():
                row = PARTS[key].load(name)
                place = f"{self._where}: space.{key}.{name}"
                if kind not in row.architectures:
                    self._errors.add(
                        place,
                        f"{PARTS[key].noun} {name} cannot go with backbone {source.name!r}, a {kind}",
                        "backbones that are " + " or ".join(sorted(row.architectures)),
                    )
                elif key == "finetuning":
                    refusals = {row.model_validate(v).refusal(width) for v in _extremes(domains)} - {None}
                    for refusal in sorted(refusals):
                        self._errors.add(place, f"backbone {source.name!r} cannot carry it: {refusal}")

    def _first_parts(self) -> dict[str, Part]:
        return {
            key: Part(name=name, parameters={p: d.corners[0] for p, d in branches[name].items()})
            for key, branches in self._parts.items()
            for name in list(branches)[:1]
        }

    def _config(
        self, source: BackboneSource, values: Mapping[str, JsonValue], parts: Mapping[str, Part]
    ) -> TrialConfig:
        fixed: dict[str, Any] = {
            "task": self.file.task,
            "epochs": self.file.budget.epochs,
            "merge_types": self.file.corpus.merge_types,
            "selection": self.file.selection,
        }
        return TrialConfig(**fixed, backbone=source, **parts, **{"seed": self.file.algorithm.seed, **values})

    @property
    def backbones(self) -> tuple[BackboneSource, ...]:
        """All backbones that a trial may have."""
        return tuple(self._backbones.values())

    def suggest(self, chooser: Chooser) -> TrialConfig:
        """Draw one configuration; only the dimensions of the branches drawn are asked for."""
        values = {key: domain.draw(key, chooser) for key, domain in self._scalars.items()}
        parts = {}
        for key, branches in self._parts.items():
            name = str(self._branch_domain(branches).draw(key, chooser))
            drawn = {p: d.draw(f"{key}.{name}.{p}", chooser) for p, d in branches[name].items()}
            parts[key] = Part(name=name, parameters=drawn)
        source = self._backbones[str(values.pop("backbone"))]
        return self._config(source, values, parts)

    @staticmethod
    def _branch_domain(branches: Mapping[str, Any]) -> Domain:
        return OneOf(tuple(branches)) if len(branches) > 1 else Fixed(next(iter(branches)))

    def dimensions(self) -> Iterator[tuple[str, Domain]]:
        """Every searched dimension with its path, conditional ones among them."""
        for key, domain in self._scalars.items():
            yield key, domain
        for key, branches in self._parts.items():
            yield key, self._branch_domain(branches)
            for name, domains in branches.items():
                for parameter, domain in domains.items():
                    yield f"{key}.{name}.{parameter}", domain

    def size(self) -> float:
        """How many configurations there are; infinite if a dimension is a range of real numbers."""
        total = math.prod(domain.size for domain in self._scalars.values())
        for branches in self._parts.values():
            total *= sum(math.prod(d.size for d in domains.values()) for domains in branches.values())
        return total


def _extremes(domains: Mapping[str, Domain]) -> list[dict[str, JsonValue]]:
    return [{p: d.corners[at] for p, d in domains.items()} for at in (0, -1)]
