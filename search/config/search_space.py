"""The search space: draws trial configurations from validated dimensions. It is independent of any sampler."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import JsonValue

from clinie_core.backbones.facts import BackboneFacts
from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.formulations import FORMULATIONS
from search.config.domains import Chooser, Domain, Fixed, OneOf
from search.config.parsing import Dimensions
from search.config.priors import Prior, find_prior
from search.config.space_file import Algorithm, Budget, SpaceFile

__all__ = ["SearchSpace", "make_config"]

GROUPS = ("encoder", "decoder", "scratch", "scratch.encoder", "scratch.decoder")
"""Groups of backbones that may have their own dimension for a part's branch."""


def make_config(
    file: SpaceFile,
    backbone: BackboneSource,
    values: Mapping[str, JsonValue],
    components: Mapping[str, ComponentChoice],
) -> TrialConfig:
    """Build a trial configuration from drawn values and the settings of the space file.

    Args:
        file: The space file.
        backbone: The trial's backbone.
        values: Fields of ``TrialConfig``; the file's seed is used if they have none.
        components: Formulation, relation formulation and fine-tuning method, by part.

    Raises:
        ValidationError: If a value is illegal.
    """
    fixed: dict[str, Any] = {
        "task": file.task,
        "epochs": file.budget.epochs,
        "view": file.view,
        "selection": file.selection,
    }
    return TrialConfig(**fixed, backbone=backbone, **components, **{"seed": file.algorithm.seed, **values})


class SearchSpace:
    """The configurations of a study.

    Use :func:`search.config.validation.build_space` to make one from a space file.

    Args:
        file: The space file.
        dimensions: Its dimensions, all of them legal.
        facts: Facts about each backbone, by name.
    """

    def __init__(self, file: SpaceFile, dimensions: Dimensions, facts: Mapping[str, BackboneFacts]) -> None:
        self.file = file
        self._dimensions = dimensions
        self._facts = facts
        self._priors: dict[tuple[str, str], Prior | None] = {}
        self._branches: dict[tuple[str, str], tuple[str, Domain]] = {}

    @property
    def backbones(self) -> tuple[BackboneSource, ...]:
        """All backbones that a trial may have."""
        return tuple(self._dimensions.backbones.values())

    def get_facts(self, config: TrialConfig) -> BackboneFacts:
        """Return the facts about a configuration's backbone."""
        return self._facts[config.backbone.name]

    def list_finetuning_methods(self, backbone: str) -> list[str]:
        """Return the fine-tuning methods of the space that a backbone supports."""
        return self._dimensions.legal_branches("finetuning", self._facts[backbone])

    def with_algorithm(self, algorithm: Algorithm) -> SearchSpace:
        """Return the same space with another algorithm."""
        return SearchSpace(self.file.model_copy(update={"algorithm": algorithm}), self._dimensions, self._facts)

    def with_budget(self, budget: Budget) -> SearchSpace:
        """Return the same space with another budget."""
        return SearchSpace(self.file.model_copy(update={"budget": budget}), self._dimensions, self._facts)

    @functools.cached_property
    def scratch_backbones(self) -> frozenset[str]:
        """Names of the backbones without pretrained weights."""
        return frozenset(source.name for source in self.backbones if source.scratch is not None)

    def list_formulations(self, backbone: str) -> Iterator[TrialConfig]:
        """Yield a configuration for each formulation of a backbone that predicts concepts by selecting units.

        The configurations cover the values of the parameters that determine which concepts can be expressed. All
        other parameters have their first value.

        Args:
            backbone: Name of the backbone.
        """
        fixed = {key: domain.corners[0] for key, domain in self._dimensions.scalars.items() if key != "backbone"}
        for name in self._dimensions.legal_branches("formulation", self._facts[backbone]):
            limiting = FORMULATIONS.load(name).limiting_parameters
            if limiting is None or self.file.task == "relations":
                continue
            domains = self._dimensions.parts["formulation"][name]
            corners = [
                [(key, value) for value in (domain.corners if key in limiting else domain.corners[:1])]
                for key, domain in domains.items()
            ]
            for parameters in itertools.product(*corners):
                components = {
                    "formulation": ComponentChoice(name=name, parameters=dict(parameters)),
                    "finetuning": ComponentChoice(name=next(iter(self._dimensions.parts["finetuning"]))),
                }
                yield make_config(self.file, self._dimensions.backbones[backbone], fixed, components)

    def suggest(self, chooser: Chooser) -> TrialConfig:
        """Draw one configuration.

        Args:
            chooser: Draws each value; it is asked only for the dimensions of the branches that it selects.
        """
        values = {key: domain.draw(key, chooser) for key, domain in self._dimensions.scalars.items()}
        backbone = str(values.pop("backbone"))
        facts = self._facts[backbone]
        components: dict[str, ComponentChoice] = {}
        for part, branches in self._dimensions.parts.items():
            if part == "relation_formulation" and not self._dimensions.needs_relation_formulation(
                components["formulation"].name, facts
            ):
                continue
            dimension, domain = self._branch_domain(part, facts)
            name = str(domain.draw(dimension, chooser))
            drawn = {p: d.draw(f"{part}.{name}.{p}", chooser) for p, d in branches[name].items()}
            components[part] = ComponentChoice(name=name, parameters=drawn)
        return make_config(self.file, self._dimensions.backbones[backbone], values, components)

    def _branch_domain(self, part: str, facts: BackboneFacts) -> tuple[str, Domain]:
        """Return the dimension that selects a part's branch: its path and its domain.

        Where encoders and decoders support different branches, each architecture has its own dimension. So have
        backbones with random weights, which support fewer fine-tuning methods.
        """
        key = part, facts.name
        if key not in self._branches:
            self._branches[key] = self._find_branch_domain(part, facts)
        return self._branches[key]

    def _find_branch_domain(self, part: str, facts: BackboneFacts) -> tuple[str, Domain]:
        legal = self._dimensions.legal_branches(part, facts)
        domain = OneOf(tuple(legal)) if len(legal) > 1 else Fixed(legal[0])
        path, others = part, list(self._facts.values())
        if part == "finetuning" and not self._is_shared(part, legal, others):
            others = [other for other in others if other.can_freeze == facts.can_freeze]
            path = part if facts.can_freeze else f"{part}.scratch"
        return path if self._is_shared(part, legal, others) else f"{path}.{facts.architecture}", domain

    def _is_shared(self, part: str, legal: list[str], others: Iterable[BackboneFacts]) -> bool:
        return all(self._dimensions.legal_branches(part, other) == legal for other in others)

    def dimensions(self) -> Iterator[tuple[str, Domain]]:
        """Yield the path and the domain of every dimension, including conditional dimensions."""
        yield from self._dimensions.scalars.items()
        for part, branches in self._dimensions.parts.items():
            supported = (facts for facts in self._facts.values() if self._dimensions.legal_branches(part, facts))
            yield from dict(self._branch_domain(part, facts) for facts in supported).items()
            for name, domains in branches.items():
                for parameter, domain in domains.items():
                    yield f"{part}.{name}.{parameter}", domain

    def list_available_dimensions(self, backbone: str, point: Mapping[str, JsonValue]) -> set[str]:
        """Return the dimensions that configurations with a backbone and some given values can have.

        Args:
            backbone: Name of the backbone.
            point: Values by path; only those that select a branch matter.
        """
        facts, found = self._facts[backbone], set(self._dimensions.scalars)
        formulations: list[str] = []
        for part, branches in self._dimensions.parts.items():
            if part == "relation_formulation" and not any(
                self._dimensions.needs_relation_formulation(name, facts) for name in formulations
            ):
                continue
            path, domain = self._branch_domain(part, facts)
            names = [str(name) for name in domain.corners if path not in point or name == point[path]]
            formulations = names if part == "formulation" else formulations
            found.add(path)
            found.update({part} if point.get(part) in names else ())
            found.update(f"{part}.{name}.{parameter}" for name in names for parameter in branches[name])
        return found

    def find_prior(self, path: str, backbone: str | None = None) -> Prior | None:
        """Return the prior of a dimension; None if it has none.

        Args:
            path: Path of the dimension.
            backbone: Name of the backbone; by default the only one, or the narrowest.
        """
        narrowest = min(self._facts.values(), key=lambda facts: facts.hidden_size, default=None)
        facts = self._facts.get(backbone or "", narrowest)
        if facts is None:
            return None
        key = path, facts.name
        if key not in self._priors:
            domain = self._domains.get(path)
            self._priors[key] = None if domain is None else find_prior(path, domain, facts.hidden_size)
        return self._priors[key]

    def fit_point(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """Restrict a configuration of another space to the dimensions and the domains of this one.

        Args:
            values: Values by path, as in :meth:`TrialConfig.flatten`.

        Returns:
            The values of searched dimensions that are legal here; None if this space lacks its backbone, its
            formulation or its fine-tuning method.
        """
        fitting: dict[str, Any] = {}
        for path, value in values.items():
            part = path.partition(".")[0]
            selects = path == "backbone" or path in self._dimensions.parts
            for dimension in [path, *(f"{path}.{group}" for group in GROUPS)] if selects else [path]:
                domain = self._domains.get(dimension)
                if domain is None:
                    continue
                if domain.contains(value):
                    fitting |= {} if isinstance(domain, Fixed) else {dimension: value}
                elif path == "backbone":
                    return None
            if selects and part != "backbone" and value not in self._list_branches(part, values.get("backbone")):
                return None
        return fitting

    def _list_branches(self, part: str, backbone: object) -> Iterable[str]:
        """Return the branches of a part that a backbone supports; all of them if it is unknown."""
        facts = self._facts.get(str(backbone))
        return self._dimensions.parts[part] if facts is None else self._dimensions.legal_branches(part, facts)

    @functools.cached_property
    def _domains(self) -> dict[str, Domain]:
        return dict(self.dimensions())

    def size(self) -> float:
        """Return the number of configurations; infinite if a dimension is a range of real numbers."""
        scalars = self._dimensions.scalars
        shared = math.prod(domain.size for key, domain in scalars.items() if key != "backbone")
        return shared * sum(self._count_components(facts) for facts in self._facts.values())

    def _count_components(self, facts: BackboneFacts) -> float:
        """Return the number of combinations of components on one backbone."""

        def count(part: str, names: Iterable[str]) -> float:
            branches = self._dimensions.parts[part]
            return sum(math.prod(domain.size for domain in branches[name].values()) for name in names)

        space = self._dimensions
        methods = count("finetuning", space.legal_branches("finetuning", facts))
        formulations = space.legal_branches("formulation", facts)
        alone = [name for name in formulations if not space.needs_relation_formulation(name, facts)]
        total = count("formulation", alone)
        if len(alone) < len(formulations):
            relations = count("relation_formulation", space.legal_branches("relation_formulation", facts))
            total += count("formulation", set(formulations) - set(alone)) * relations
        return methods * total
