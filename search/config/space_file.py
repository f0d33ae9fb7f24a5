"""The blocks of a space file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from clinie_core.config import (
    BackboneSource,
    ComponentChoice,
    CorpusView,
    FrozenModel,
    Selection,
    Task,
    TrialConfig,
    convert_validation_error,
)
from clinie_core.data.corpora.loading import CorpusSource
from clinie_core.errors import ErrorList
from search.config.aliases import FORMULATION_PARTS, resolve_in_part, resolve_in_point
from search.config.finalists import CrossValidation, Finalists
from search.config.objectives import METRICS, Limit, Objective
from search.config.resources import Resources, check_classes, sort_classes

__all__ = [
    "Algorithm",
    "Budget",
    "Cost",
    "Finalists",
    "SpaceFile",
    "StopWhen",
]


STUDY_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"
PARTS = ("formulation", "relation_formulation", "finetuning")
CLASS_KEY = "resources"
"""Key of an entry of ``backbones`` with the resource class of its trials."""
SET_BY_OTHER_BLOCKS = {
    "task": "task",
    "epochs": "budget.epochs",
    "selection": "objective",
    "view": "corpus",
    "fold": "corpus.folds",
}
"""Fields of ``TrialConfig`` that are not dimensions of the space, and the key that sets each of them."""


class StopWhen(FrozenModel):
    """Rule that ends a search when a further trial is not worth its cost.

    Args:
        gain_per_hour: Smallest expected improvement of the first objective per hour of training a further trial.
        trials: Number of ended trials before the rule applies.
    """

    gain_per_hour: float = Field(gt=0)
    trials: int = Field(default=10, ge=5)


class Cost(FrozenModel):
    """Amount of money.

    Args:
        amount: The amount.
        currency: Currency of the amount, as three letters.
    """

    amount: float = Field(gt=0)
    currency: str = Field(pattern=r"^[A-Z]{3}$")

    def __str__(self) -> str:
        return f"{self.amount:g} {self.currency}"


class Budget(FrozenModel):
    """Limits of a study.

    Args:
        trials: Number of trials.
        epochs: Maximum number of epochs of a trial.
        hours: Maximum run time of the search in hours, over all its runs; None for no limit.
        gpu_hours: Maximum training time of all trials, multiplied by their number of GPUs; None for no limit.
        cost: Maximum cost of all trials, by the prices of the resource classes; None for no limit.
        stop_when: Rule that ends the search earlier; None for no rule.
        wait_minutes: Time in minutes after which a search ends if the cluster provides no node; 0 for no limit.
        checkpoints: Number of best trials, for each objective, whose weights are stored; the weights of the other
            trials are deleted.
    """

    trials: int = Field(default=20, ge=1)
    epochs: int = Field(default=4, ge=1)
    hours: float | None = Field(default=None, gt=0)
    gpu_hours: float | None = Field(default=None, gt=0)
    cost: Cost | None = None
    stop_when: StopWhen | None = None
    wait_minutes: float = Field(default=30, ge=0)
    checkpoints: int = Field(default=5, ge=1)

    @field_validator("cost", mode="before")
    @classmethod
    def _check_currency(cls, value: object) -> object:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(
                f"found {value:g} without a currency; allowed: an amount with its currency, such as"
                f" {{amount: {value:g}, currency: EUR}}"
            )
        return value


class Algorithm(FrozenModel):
    """Sampler and scheduler of a study.

    Args:
        sampler: Method that draws the configurations.
        scheduler: Method that stops weak trials early.
        seed: Seed of the sampler, and of the trials unless the space has a dimension ``seed``.
        startup_trials: Number of random trials before the sampler uses the results; ``auto`` and ``random`` ignore it.
        grace_epochs: Number of epochs before the scheduler may stop a trial; None chooses it by the size of the dev
            split.
        grace_seconds: Seconds of training before ASHA may stop a trial; its rungs are then in seconds.
        reduction_factor: ASHA continues one of this many trials at each rung.
        points_to_evaluate: Configurations to evaluate first, each a mapping from paths of dimensions to values;
            dimensions that a point leaves out are sampled.
        warm_start: Whether the sampler ``auto`` begins with winners of earlier studies of the same task on other
            corpora, or with a default of each family of methods if there are none.
    """

    sampler: str = "auto"
    scheduler: str = "asha"
    seed: int = Field(default=13, ge=0)
    startup_trials: int = Field(default=8, ge=1)
    grace_epochs: int | None = Field(default=None, ge=1)
    grace_seconds: float | None = Field(default=None, gt=0)
    reduction_factor: float = Field(default=3, gt=1)
    points_to_evaluate: tuple[dict[str, JsonValue], ...] = ()
    warm_start: bool = True

    @model_validator(mode="after")
    def _check_grace(self) -> Self:
        if self.grace_seconds is not None and (self.grace_epochs is not None or self.scheduler != "asha"):
            raise ValueError("grace_seconds needs scheduler asha and no grace_epochs")
        return self

    @field_validator("points_to_evaluate")
    @classmethod
    def _replace_aliases(cls, points: tuple[dict[str, JsonValue], ...]) -> tuple[dict[str, JsonValue], ...]:
        return tuple(resolve_in_point(point) for point in points)


class SpaceFile(FrozenModel):
    """The blocks of a space file. The form of all blocks is checked except that of ``space``.

    Args:
        version: Version of the file format.
        study: Name of the study.
        corpus: The corpora; a mapping is read as a list of one. A corpus without a name is called after the study,
            with a number among several, because names of folders are not stored outside the home folder.
        task: Task of every trial.
        objective: The objectives, the main one first; a mapping is read as a list of one.
        limits: Limits on metrics, by name: lowest values of metrics to maximize, highest of those to minimize. A
            configuration that violates one is never the best.
        budget: Limits of the study.
        finalists: Runs with other seeds that decide which configuration is best; None for no such runs. With
            ``corpus.folds``, the finalists run on the other folds instead; ``trials`` is their number.
        algorithm: Sampler and scheduler.
        resources: Resource classes of the trials; a mapping is read as a list of one.
        backbones: Source of each backbone that is not on the Hugging Face Hub, by name; ``resources`` in an entry is
            the resource class of its trials.
        space: The dimensions of the configurations.
    """

    version: Literal[1]
    study: str = Field(pattern=STUDY_NAME)
    corpus: tuple[CorpusSource, ...] = Field(min_length=1)
    task: Task = "concepts"
    objective: tuple[Objective, ...] = Field(default=(Objective(maximize="strict_f1"),), min_length=1)
    limits: dict[str, float] = Field(default_factory=dict)
    budget: Budget = Budget()
    finalists: Finalists | None = None
    algorithm: Algorithm = Algorithm()
    resources: tuple[Resources, ...] = Field(default=(Resources(),), min_length=1)
    backbones: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    space: dict[str, JsonValue]

    @model_validator(mode="before")
    @classmethod
    def _name_corpora(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        study, corpora = values.get("study"), values.get("corpus")
        sources = corpora if isinstance(corpora, list | tuple) else [corpora]
        if not isinstance(study, str) or not re.fullmatch(STUDY_NAME, study):
            return values
        names = [study] if len(sources) == 1 else [f"{study}-{number}" for number in range(1, len(sources) + 1)]
        named = [_fill_name(source, name) for source, name in zip(sources, names, strict=True)]
        return {**values, "corpus": named} if "corpus" in values else values

    @field_validator("objective", "corpus", "resources", mode="before")
    @classmethod
    def _wrap_single_mapping(cls, value: object) -> object:
        return [value] if isinstance(value, dict) else value

    @field_validator("limits")
    @classmethod
    def _check_limits(cls, limits: dict[str, float]) -> dict[str, float]:
        unknown = [name for name in limits if name not in METRICS]
        if unknown:
            raise ValueError(f"unknown metric {unknown[0]!r}; allowed: {', '.join(METRICS)}")
        return limits

    @model_validator(mode="after")
    def _check_finalists(self) -> Self:
        if self.finalists is not None and self.finalists.trials > self.budget.checkpoints:
            kept = self.budget.checkpoints
            raise ValueError(
                f"finalists.trials is {self.finalists.trials}; allowed: at most budget.checkpoints ({kept})"
            )
        return self

    @field_validator("corpus")
    @classmethod
    def _check_unique_names(cls, corpora: tuple[CorpusSource, ...]) -> tuple[CorpusSource, ...]:
        names = [source.title for source in corpora]
        if len(set(names)) < len(names):
            raise ValueError(f"two corpora are called {max(names, key=names.count)}; give each a different name")
        return corpora

    @field_validator("resources")
    @classmethod
    def _check_classes(cls, classes: tuple[Resources, ...]) -> tuple[Resources, ...]:
        check_classes(classes)
        return classes

    @field_validator("space")
    @classmethod
    def _replace_formulation_aliases(cls, space: dict[str, JsonValue]) -> dict[str, JsonValue]:
        return {key: resolve_in_part(value) if key in FORMULATION_PARTS else value for key, value in space.items()}

    @model_validator(mode="after")
    def _check_folds(self) -> Self:
        if all(source.folds is None for source in self.corpus):
            return self
        if len(self.corpus) > 1:
            raise ValueError(f"corpus.folds divides a single corpus; found {len(self.corpus)} corpora; remove folds")
        if self.finalists is not None and self.finalists.seeds != Finalists().seeds:
            raise ValueError("with corpus.folds, finalists run once on each fold; remove finalists.seeds, or folds")
        return self

    @property
    def final_runs(self) -> Finalists | None:
        """Further runs of the best configurations: on the other folds, or with other seeds."""
        fold = self.corpus[0].first_fold
        if fold is None:
            return self.finalists
        trials = self.finalists.trials if self.finalists is not None else Finalists().trials
        return CrossValidation(trials=min(trials, self.budget.checkpoints), seeds=fold.number, fold=fold)

    @property
    def view(self) -> CorpusView:
        """View of the corpus. Each of several corpora is read with its own view, so that only descriptions are left."""
        if len(self.corpus) == 1:
            return self.corpus[0].view
        descriptions = {type_: text for source in self.corpus for type_, text in source.descriptions.items()}
        return CorpusView(descriptions=descriptions)

    def with_absolute_paths(self) -> SpaceFile:
        """Return a copy whose corpus paths are absolute, so that they do not depend on the working directory."""
        absolute = (s.model_copy(update={"path": str(Path(s.path).resolve())}) for s in self.corpus)
        return self.model_copy(update={"corpus": tuple(absolute)})

    def with_formats(self, formats: Mapping[str, str]) -> SpaceFile:
        """Return a copy with the formats of some corpora, so that a resumed search does not detect them again.

        Args:
            formats: Name of the format by name of the corpus.
        """
        corpora = (s.model_copy(update={"format": formats.get(s.title, s.format)}) for s in self.corpus)
        return self.model_copy(update={"corpus": tuple(corpora)})

    def with_single_configuration(self, config: TrialConfig, study: str) -> SpaceFile:
        """Return a space with a single configuration, for a study of its own.

        Args:
            config: Configuration of a trial of this space.
            study: Name of the new study.
        """
        space: dict[str, JsonValue] = {"backbone": config.backbone.name}
        for part in PARTS:
            component: ComponentChoice | None = getattr(config, part)
            if component is not None:
                space[part] = {component.name: dict(component.parameters)}
        excluded = {"backbone", *PARTS, *SET_BY_OTHER_BLOCKS}
        space |= {key: value for key, value in config.model_dump(mode="json").items() if key not in excluded}
        algorithm = self.algorithm.model_copy(update={"scheduler": "none", "points_to_evaluate": ()})
        budget = self.budget.model_copy(update={"trials": 1, "epochs": config.epochs, "stop_when": None})
        source = config.backbone.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
        changed = {"study": study, "algorithm": algorithm, "budget": budget, "space": space, "finalists": None}
        entries = self._replace_sources({config.backbone.name: source})
        return self.model_copy(update={**changed, "backbones": entries})

    def with_backbones(self, sources: Mapping[str, BackboneSource]) -> SpaceFile:
        """Return a copy in which backbones from the Hub have an entry with their commit.

        Args:
            sources: Sources of backbones, by name; those that are not on the Hub keep their entry.
        """
        entries = {
            name: source.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
            for name, source in sources.items()
            if source.hub is not None or (source.tokenizer is not None and source.tokenizer.hub is not None)
        }
        return self.model_copy(update={"backbones": self._replace_sources(entries)})

    def _replace_sources(self, entries: Mapping[str, dict[str, JsonValue]]) -> dict[str, dict[str, JsonValue]]:
        """Return ``backbones`` with other sources, but the same resource classes."""
        named = {name: self.get_class_name(name) for name in entries}
        classes = {name: {CLASS_KEY: own} for name, own in named.items() if own is not None}
        return {**self.backbones, **{name: {**entry, **classes.get(name, {})} for name, entry in entries.items()}}

    def get_class_name(self, backbone: str) -> str | None:
        """Return the name of the resource class that a backbone's entry states; None if it states none."""
        name = self.backbones.get(backbone, {}).get(CLASS_KEY)
        return None if name is None else str(name)

    def find_class(self, backbone: str) -> Resources:
        """Return the resource class that a backbone's entry states, else the largest one."""
        name, classes = self.get_class_name(backbone), sort_classes(self.resources)
        return next((own for own in classes if own.name == name), classes[-1])

    @property
    def metric_limits(self) -> tuple[Limit, ...]:
        """Limits on metrics that a configuration has to satisfy."""
        return tuple(Limit(name, value) for name, value in self.limits.items())

    @property
    def corpus_title(self) -> str:
        """Names of the corpora, joined by plus signs."""
        return "+".join(source.title for source in self.corpus)

    @property
    def selection(self) -> Selection:
        """Metric that selects a trial's best epoch: the first objective that is a dev score or the training loss."""
        selecting = [objective.metric for objective in self.objective if objective.can_select_epoch]
        return selecting[0] if selecting else "strict_f1"  # type: ignore[return-value]  # can_select_epoch says so

    def backbone(self, name: str, where: str, errors: ErrorList) -> BackboneSource:
        """Return the source of a backbone: an entry of ``backbones``, a local folder, or a model on the Hub.

        Args:
            name: Name of the backbone in the space.
            where: Name of the file, for messages.
            errors: Receives the faults of an entry.
        """
        entry: dict[str, Any] = {k: v for k, v in self.backbones.get(name, {}).items() if k != CLASS_KEY}
        if not entry and (name not in self.backbones or CLASS_KEY in self.backbones[name]):
            if Path(name).is_dir():
                return BackboneSource(name=Path(name).name, folder=str(Path(name).resolve()))
            return BackboneSource(name=name, hub=name)
        if isinstance(entry.get("tokenizer"), str):
            entry["tokenizer"] = self.backbone(entry["tokenizer"], where, errors)
        try:
            return BackboneSource.model_validate({"name": name, **entry})
        except ValidationError as error:
            errors.extend(convert_validation_error(error, f"{where}: backbones.{name}"))
            return BackboneSource(name=name, hub=name)


def _fill_name(source: object, name: str) -> object:
    """Return an entry of the block ``corpus`` with a name if it has none."""
    if isinstance(source, CorpusSource):
        return source if source.name else source.model_copy(update={"name": name})
    return {**source, "name": source.get("name") or name} if isinstance(source, dict) else source
