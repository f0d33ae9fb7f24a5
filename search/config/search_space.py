"""A search space: YAML in, validated in whole, trial configurations out. It knows no sampler."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from pydantic import JsonValue, ValidationError

from clinie_core.backbones.pretrained import BackboneFacts, check_backbone, read_facts
from clinie_core.config import RENAMED_KEYS, BackboneSource, ComponentChoice, TrialConfig, problems_from
from clinie_core.errors import ErrorList, InputError
from clinie_core.finetuning import FINETUNING
from clinie_core.formulations import FORMULATIONS
from clinie_core.modeling.capabilities import formulations_for, methods_for, relation_formulations_for
from clinie_core.registry import Registry
from search.config.domains import Chooser, Domain, Fixed, OneOf, parse_domain
from search.config.space_file import SETTLED_ELSEWHERE, SpaceFile

__all__ = ["SearchSpace"]

WINDOW_TOKENS: int = TrialConfig.model_fields["window_tokens"].default

PARTS: dict[str, Registry[Any]] = {
    "formulation": FORMULATIONS,
    "relation_formulation": FORMULATIONS,
    "finetuning": FINETUNING,
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
        if file.task != "joint" and "relation_formulation" in file.space:
            self._errors.add(
                f"{where}: space.relation_formulation", f"not in task {file.task}", allowed="formulation alone"
            )
        for required in ("backbone", "formulation", "finetuning"):
            if required not in file.space:
                self._errors.add(f"{where}: space.{required}", "missing", allowed="a value or {choose: ...}")
        self._errors.raise_if_any()
        self._check_corners()
        self._errors.raise_if_any()
        self._facts: dict[str, BackboneFacts] = {}
        for name, source in self._backbones.items():
            self._check_backbone(name, source)
        if self._may_be("sharded") and file.resources.workers_per_trial < 2:
            found = "a trial has one process, and nobody to share weights with"
            self._errors.add(
                f"{where}: space.sharded", found, remedy="set resources.workers_per_trial, or leave it out"
            )
        self._errors.raise_if_any()
        self._check_parts()
        self._errors.raise_if_any()

    def _parse(self, key: str, value: JsonValue) -> None:
        where = f"{self._where}: space.{key}"
        if key in PARTS:
            self._parts[key] = self._parse_part(key, value, where)
        elif key in SETTLED_ELSEWHERE:
            self._errors.add(
                where, "not a dimension of the space", allowed=f"set {SETTLED_ELSEWHERE[key]} at the top level"
            )
        elif key in RENAMED_KEYS:
            self._errors.add(where, "renamed key", remedy=f"write {RENAMED_KEYS[key]}")
        elif key not in TrialConfig.model_fields:
            fields = [f for f in TrialConfig.model_fields if f not in SETTLED_ELSEWHERE]
            self._errors.add(where, "unknown key", allowed="allowed: " + ", ".join(fields))
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
            self._errors.add(
                where, "no branch", allowed=f"one of {', '.join(PARTS[key])}, or {{choose: {{NAME: {{...}}}}}}"
            )
            return {}
        return {name: self._parse_branch(key, name, content, f"{where}.{name}") for name, content in branches.items()}

    def _parse_branch(self, key: str, name: str, content: JsonValue, where: str) -> dict[str, Domain]:
        try:
            row = PARTS[key].load(name, where)
        except InputError as error:
            self._errors.extend(error.problems)
            return {}
        if content is not None and not isinstance(content, dict):
            self._errors.add(where, f"found {content!r}", allowed="{} for the shipped ranges, or {PARAMETER: ...}")
            return {}
        given = dict(content or row.ranges)
        for parameter, field in row.model_fields.items():
            if field.is_required() and parameter not in given:
                given[parameter] = row.ranges[parameter]
        domains = {}
        for parameter, value in given.items():
            if parameter in RENAMED_KEYS and RENAMED_KEYS[parameter] in row.model_fields:
                self._errors.add(f"{where}.{parameter}", "renamed key", remedy=f"write {RENAMED_KEYS[parameter]}")
            elif parameter not in row.model_fields:
                allowed = "allowed: " + ", ".join(row.model_fields)
                self._errors.add(f"{where}.{parameter}", f"unknown key of {name}", allowed=allowed)
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

    def _check_backbone(self, name: str, source: BackboneSource) -> None:
        """The backbone must be there, and wide and long enough for what it may meet."""
        where = f"{self._where}: space.backbone"
        try:
            check_backbone(source, where)
            facts = self._facts[name] = read_facts(source, where)
        except InputError as error:
            self._errors.extend(error.problems)
            return
        longest = max(self._scalars.get("window_tokens", Fixed(WINDOW_TOKENS)).corners)  # type: ignore[type-var]
        for method in self._legal("finetuning", facts):
            row, place = FINETUNING.load(method), f"{self._where}: space.finetuning.{method}"
            variants = [row.model_validate(v) for v in _extremes(self._parts["finetuning"][method])]
            for refusal in sorted(filter(None, {variant.refusal(facts) for variant in variants})):
                self._errors.add(place, f"backbone {source.name!r} cannot carry it: {refusal}")
            for key, goes in (("gradient_checkpointing", row.recomputes), ("sharded", row.shards)):
                if not goes and self._may_be(key):
                    self._errors.add(place, f"it does not go with {key}", remedy="leave one of them out")
            if row.needs_cuda and not self.file.resources.gpus_per_worker:
                self._errors.add(
                    place, "it needs an NVIDIA GPU", remedy="set resources.gpus_per_worker, or leave it out"
                )
            needed = int(longest) + max(variant.virtual_tokens for variant in variants)  # type: ignore[arg-type]
            if facts.positions is not None and needed > facts.positions:
                self._errors.add(
                    f"{self._where}: space.window_tokens",
                    f"backbone {source.name!r} reads {facts.positions} tokens, and {method} would give it {needed}",
                    allowed=f"at most {facts.positions - needed + int(longest)}",  # type: ignore[arg-type]
                )

    def _may_be(self, key: str) -> bool:
        """Whether some trial has a switch on."""
        return True in self._scalars.get(key, Fixed(False)).corners

    def _legal(self, key: str, facts: BackboneFacts) -> list[str]:
        """The branches of a part that a backbone carries."""
        allowed: Collection[str]
        if key == "formulation":
            needs_another = formulations_for(self.file.task, facts.architecture)
            seconds = self._parts.get("relation_formulation", {})
            allowed = [name for name, needs in needs_another.items() if seconds or not needs]
        elif key == "relation_formulation":
            allowed = relation_formulations_for(facts.architecture)
        else:
            allowed = methods_for(facts.architecture)
        return [name for name in self._parts[key] if name in allowed]

    def _check_parts(self) -> None:
        """Every branch must go with some backbone, and every backbone with some branch."""
        for key, branches in self._parts.items():
            legal = {name: self._legal(key, facts) for name, facts in self._facts.items()}
            kinds = sorted({facts.architecture for facts in self._facts.values()})
            noun = PARTS[key].noun
            for branch in branches:
                if not any(branch in names for names in legal.values()):
                    row = PARTS[key].load(branch)
                    carried = " or ".join(sorted(row.architectures))
                    found = f"{noun} {branch} cannot go with task {self.file.task} and backbones that are {kinds[0]}s"
                    tasks = f" and task {', '.join(sorted(row.tasks))}" if hasattr(row, "tasks") else ""
                    self._errors.add(
                        f"{self._where}: space.{key}.{branch}", found, allowed=f"backbones that are {carried}{tasks}"
                    )
            for name, facts in self._facts.items():
                if not legal[name] and not (key == "relation_formulation" and facts.architecture == "decoder"):
                    found = f"backbone {name!r} is a {facts.architecture}, and no {noun} here goes with it"
                    self._errors.add(f"{self._where}: space.{key}", found)
            for branch in branches if len(self.file.corpus) > 1 and key != "finetuning" else ():
                if not PARTS[key].load(branch).by_words:
                    able = [name for name in PARTS[key] if PARTS[key].load(name).by_words]
                    found = f"{branch} cannot serve several corpora: its labels are those of one"
                    self._errors.add(f"{self._where}: space.{key}.{branch}", found, allowed="one of " + ", ".join(able))
            for branch in self._parts["formulation"] if key == "formulation" else ():
                for values in _extremes(branches[branch]):
                    refusal = FORMULATIONS.load(branch).model_validate(values).refusal(self.file.task)
                    if refusal:
                        self._errors.add(f"{self._where}: space.{key}.{branch}", refusal)

    def _first_parts(self) -> dict[str, ComponentChoice]:
        """Some branch of every part, for judging the other dimensions."""
        return {
            key: ComponentChoice(name=name, parameters={p: d.corners[0] for p, d in branches[name].items()})
            for key, branches in self._parts.items()
            for name in list(branches)[:1]
        }

    def _config(
        self, source: BackboneSource, values: Mapping[str, JsonValue], parts: Mapping[str, ComponentChoice]
    ) -> TrialConfig:
        fixed: dict[str, Any] = {
            "task": self.file.task,
            "epochs": self.file.budget.epochs,
            "view": self.file.view,
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
        backbone = str(values.pop("backbone"))
        facts = self._facts[backbone]
        parts: dict[str, ComponentChoice] = {}
        for key in self._parts:
            if key == "relation_formulation" and not self._needs_another(parts["formulation"].name, facts):
                continue
            dimension, domain = self._branch_domain(key, facts)
            name = str(domain.draw(dimension, chooser))
            drawn = {p: d.draw(f"{key}.{name}.{p}", chooser) for p, d in self._parts[key][name].items()}
            parts[key] = ComponentChoice(name=name, parameters=drawn)
        return self._config(self._backbones[backbone], values, parts)

    def _needs_another(self, formulation: str, facts: BackboneFacts) -> bool:
        return formulations_for(self.file.task, facts.architecture)[formulation]

    def _branch_domain(self, key: str, facts: BackboneFacts) -> tuple[str, Domain]:
        """The dimension that chooses a part's branch, with its name.

        Where an encoder's branches are not a decoder's, each architecture has a dimension of its own.
        """
        legal = self._legal(key, facts)
        everywhere = all(self._legal(key, other) == legal for other in self._facts.values())
        domain = OneOf(tuple(legal)) if len(legal) > 1 else Fixed(legal[0])
        return key if everywhere else f"{key}.{facts.architecture}", domain

    def dimensions(self) -> Iterator[tuple[str, Domain]]:
        """Every searched dimension with its path, conditional ones among them."""
        yield from self._scalars.items()
        for key, branches in self._parts.items():
            yield from dict(self._branch_domain(key, f) for f in self._facts.values() if self._legal(key, f)).items()
            for name, domains in branches.items():
                for parameter, domain in domains.items():
                    yield f"{key}.{name}.{parameter}", domain

    def size(self) -> float:
        """How many configurations there are; infinite if a dimension is a range of real numbers."""
        shared = math.prod(domain.size for key, domain in self._scalars.items() if key != "backbone")
        return shared * sum(self._size_on(facts) for facts in self._facts.values())

    def _size_on(self, facts: BackboneFacts) -> float:
        """The configurations of the parts on one backbone."""

        def count(key: str, names: Iterable[str]) -> float:
            return sum(math.prod(d.size for d in self._parts[key][name].values()) for name in names)

        methods = count("finetuning", self._legal("finetuning", facts))
        formulations = self._legal("formulation", facts)
        alone = [name for name in formulations if not self._needs_another(name, facts)]
        total = count("formulation", alone)
        if len(alone) < len(formulations):
            seconds = count("relation_formulation", self._legal("relation_formulation", facts))
            total += count("formulation", set(formulations) - set(alone)) * seconds
        return methods * total


def _extremes(domains: Mapping[str, Domain]) -> list[dict[str, JsonValue]]:
    return [{p: d.corners[at] for p, d in domains.items()} for at in (0, -1)]
