"""The file of a search space: its blocks, overrides from the command line, shipped spaces."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, JsonValue, ValidationError, field_validator

from clinie_core.config import (
    BackboneSource,
    ComponentChoice,
    CorpusView,
    FrozenModel,
    Score,
    Task,
    TrialConfig,
    convert_validation_error,
)
from clinie_core.data.corpora.loading import CorpusSource
from clinie_core.errors import ErrorList, fail
from search.config.objectives import Objective

__all__ = [
    "Algorithm",
    "Budget",
    "Resources",
    "SpaceFile",
    "find_shipped_spaces",
    "parse_space_file",
    "read_space_content",
    "read_space_file",
]


PARTS = ("formulation", "relation_formulation", "finetuning")
FORMULATION_PARTS = ("formulation", "relation_formulation")
FORMULATION_ALIASES = {"mrc": "span_question"}
"""Alternative names of formulations; the space is stored with the name on the right."""
BLOCKS_WITH_DEFAULTS = ("budget", "algorithm", "resources", "backbones")
PLACEHOLDERS: dict[str, Any] = {"version": 1, "study": "unnamed", "corpus": {"path": "."}, "space": {}}
"""Stand-ins for required blocks that are missing or invalid, so that the other blocks can still be checked."""
SET_BY_OTHER_BLOCKS = {"task": "task", "epochs": "budget.epochs", "selection": "objective", "view": "corpus"}
"""What a configuration holds that is no dimension of the space, and where the file says it."""


def _resolve_name(name: JsonValue) -> JsonValue:
    return FORMULATION_ALIASES.get(name, name) if isinstance(name, str) else name


def _resolve_aliases(part: JsonValue) -> JsonValue:
    """Replace the aliases in a formulation block of the space."""
    if isinstance(part, list):
        return [_resolve_name(name) for name in part]
    if not isinstance(part, dict):
        return _resolve_name(part)
    if set(part) == {"choose"}:
        return {"choose": _resolve_aliases(part["choose"])}
    for alias, name in FORMULATION_ALIASES.items():
        if alias in part and name in part:
            raise ValueError(f"{alias} and {name} are the same formulation; write {name} once")
    return {FORMULATION_ALIASES.get(name, name): content for name, content in part.items()}


def _resolve_path(path: str) -> str:
    """Replace an alias in the path of a formulation's parameter, for example ``formulation.mrc.wording``."""
    part, *rest = path.split(".")
    return ".".join([part, *(FORMULATION_ALIASES.get(key, key) for key in rest)]) if part in FORMULATION_PARTS else path


def _resolve_value(path: str, value: JsonValue) -> JsonValue:
    """Replace an alias in the value of a dimension that selects a formulation."""
    return _resolve_name(value) if path.split(".", maxsplit=1)[0] in FORMULATION_PARTS else value


class Budget(FrozenModel):
    """How much a study may spend.

    Args:
        trials: How many.
        epochs: Of each.
        hours: In all; None for no limit.
        checkpoints: How many of the best trials, by each objective, keep their weights; the others' are deleted.
    """

    trials: int = Field(default=20, ge=1)
    epochs: int = Field(default=4, ge=1)
    hours: float | None = Field(default=None, gt=0)
    checkpoints: int = Field(default=5, ge=1)


class Algorithm(FrozenModel):
    """How configurations are chosen and weak trials stopped.

    Args:
        sampler: A row of ``SAMPLERS``.
        scheduler: A row of ``SCHEDULERS``.
        seed: Seed of the sampler, and of the trials where the space does not search over seeds.
        startup_trials: Random trials before the sampler learns.
        grace_epochs: Epochs that every trial may run before it can be stopped.
        reduction_factor: One of so many trials goes on at each rung.
        points_to_evaluate: Configurations to try first, each by paths as the ledger names them;
            what a point leaves open is sampled.
    """

    sampler: str = "tpe"
    scheduler: str = "asha"
    seed: int = 13
    startup_trials: int = Field(default=8, ge=1)
    grace_epochs: int = Field(default=1, ge=1)
    reduction_factor: float = Field(default=3, gt=1)
    points_to_evaluate: tuple[dict[str, JsonValue], ...] = ()

    @field_validator("points_to_evaluate")
    @classmethod
    def _replace_aliases(cls, points: tuple[dict[str, JsonValue], ...]) -> tuple[dict[str, JsonValue], ...]:
        return tuple({_resolve_path(path): _resolve_value(path, v) for path, v in point.items()} for point in points)


class Resources(FrozenModel):
    """What one trial uses.

    Args:
        workers_per_trial: Processes that train one trial together (DDP).
        cpus_per_worker: CPU cores a worker.
        gpus_per_worker: GPUs a worker, fractions allowed; 0 trains on CPUs.
        concurrent_trials: Trials at once; None for as many as the cluster has room for.
    """

    workers_per_trial: int = Field(default=1, ge=1)
    cpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_worker: float = Field(default=0, ge=0)
    concurrent_trials: int | None = Field(default=None, ge=1)


class SpaceFile(FrozenModel):
    """A space file as it stands on disk, blocks validated, the ``space`` block still raw."""

    version: Literal[1]
    study: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")
    corpus: tuple[CorpusSource, ...] = Field(min_length=1)
    task: Task = "concepts"
    objective: tuple[Objective, ...] = Field(default=(Objective(maximize="strict_f1"),), min_length=1)
    budget: Budget = Budget()
    algorithm: Algorithm = Algorithm()
    resources: Resources = Resources()
    backbones: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    space: dict[str, JsonValue]

    @field_validator("objective", "corpus", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: object) -> object:
        return [value] if isinstance(value, dict) else value

    @field_validator("corpus")
    @classmethod
    def _names_differ(cls, corpora: tuple[CorpusSource, ...]) -> tuple[CorpusSource, ...]:
        names = [source.title for source in corpora]
        if len(set(names)) < len(names):
            raise ValueError(f"two corpora are called {max(names, key=names.count)}; give each a name")
        return corpora

    @field_validator("space")
    @classmethod
    def _replace_formulation_aliases(cls, space: dict[str, JsonValue]) -> dict[str, JsonValue]:
        return {k: _resolve_aliases(v) if k in FORMULATION_PARTS else v for k, v in space.items()}

    @property
    def view(self) -> CorpusView:
        """How the corpus is looked at; of several each is looked at in its own way when it is read."""
        if len(self.corpus) == 1:
            return self.corpus[0].view
        words = {type_: said for source in self.corpus for type_, said in source.descriptions.items()}
        return CorpusView(descriptions=words)

    def with_absolute_paths(self) -> SpaceFile:
        """The same with corpus paths that hold wherever a process runs."""
        absolute = (s.model_copy(update={"path": str(Path(s.path).resolve())}) for s in self.corpus)
        return self.model_copy(update={"corpus": tuple(absolute)})

    def with_single_configuration(self, config: TrialConfig, study: str) -> SpaceFile:
        """A space of one configuration, as a study of its own.

        Args:
            config: A trial of a study of this space.
            study: The new study's name.
        """

        def part(value: ComponentChoice) -> JsonValue:
            return {value.name: dict(value.parameters)}

        space: dict[str, JsonValue] = {"backbone": config.backbone.name}
        for key in PARTS:
            value = getattr(config, key)
            if value is not None:
                space[key] = part(value)
        settled = {"backbone", *PARTS, *SET_BY_OTHER_BLOCKS}
        space |= {k: v for k, v in config.model_dump(mode="json").items() if k not in settled}
        plain = self.algorithm.model_copy(update={"scheduler": "none", "points_to_evaluate": ()})
        budget = self.budget.model_copy(update={"trials": 1, "epochs": config.epochs})
        source = config.backbone.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
        changed = {"study": study, "algorithm": plain, "budget": budget, "space": space}
        return self.model_copy(update={**changed, "backbones": {**self.backbones, config.backbone.name: source}})

    @property
    def corpus_title(self) -> str:
        """The names of the corpora."""
        return "+".join(source.title for source in self.corpus)

    @property
    def selection(self) -> Score:
        """The dev score that chooses a trial's best epoch: the first objective that is a score."""
        scores = [objective.metric for objective in self.objective if objective.is_score]
        return scores[0] if scores else "strict_f1"  # type: ignore[return-value]  # is_score says so

    def backbone(self, name: str, where: str, errors: ErrorList) -> BackboneSource:
        """What a backbone's name in the space stands for: an entry of ``backbones``, a folder, a hub name."""
        if name not in self.backbones:
            if Path(name).is_dir():
                return BackboneSource(name=Path(name).name, folder=str(Path(name).resolve()))
            return BackboneSource(name=name, hub=name)
        entry: dict[str, Any] = dict(self.backbones[name])
        if isinstance(entry.get("tokenizer"), str):
            entry["tokenizer"] = self.backbone(entry["tokenizer"], where, errors)
        try:
            return BackboneSource.model_validate({"name": name, **entry})
        except ValidationError as error:
            errors.extend(convert_validation_error(error, f"{where}: backbones.{name}"))
            return BackboneSource(name=name, hub=name)


def find_shipped_spaces() -> dict[str, Path]:
    """The spaces that come with clinie, by name: in the installed package, else beside the checkout."""
    spec = importlib.util.find_spec("search")
    places = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    for folder in (*(p / "spaces" for p in places), *(p.parent / "spaces" for p in places)):
        if folder.is_dir():
            return {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    return {}


def read_space_file(name: str, overrides: Iterable[str] = ()) -> tuple[SpaceFile, str]:
    """Read a space by file or shipped name and check the form of its blocks.

    Args:
        name: Path of a space file, or the name of a shipped space.
        overrides: Changes to the file, each ``key.path=value`` with the value as YAML.

    Returns:
        The space file, and its name for messages.

    Raises:
        InputError: If the file is missing, is not YAML, or a block is invalid.
    """
    content, where = read_space_content(name, overrides)
    errors = ErrorList()
    file = parse_space_file(content, where, errors)
    errors.raise_if_any()
    return file, where


def read_space_content(name: str, overrides: Iterable[str] = ()) -> tuple[dict[str, Any], str]:
    """Read the YAML of a space by file or shipped name and apply overrides to it.

    Args:
        name: Path of a space file, or the name of a shipped space.
        overrides: Changes to the file, each ``key.path=value`` with the value as YAML.

    Returns:
        The mapping, and the file's name for messages.

    Raises:
        InputError: If the file is missing or is not a YAML mapping, or an override is malformed.
    """
    shipped = find_shipped_spaces()
    file = Path(name)
    if not file.is_file() and name in shipped:
        file = shipped[name]
    where = file.name
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError:
        fail(name, "no such space", allowed="a YAML file, or one of " + ", ".join(shipped))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        fail(f"{where}{line}", f"not YAML: {getattr(error, 'problem', error)}", remedy="check indentation and brackets")
    if not isinstance(content, dict):
        fail(where, "not a mapping", allowed="version, study, corpus, space ...", remedy="see `clinie spaces`")
    for override in overrides:
        _override(content, override)
    return content, where


def parse_space_file(content: Mapping[str, Any], where: str, errors: ErrorList) -> SpaceFile:
    """Parse the blocks of a space file.

    Args:
        content: The mapping from :func:`read_space_content`.
        where: The file's name, for messages.
        errors: Receives every fault. Entries with a fault have their default in the result, so that
            the caller can check the other entries.
    """
    try:
        return SpaceFile.model_validate(content)
    except ValidationError as error:
        errors.extend(convert_validation_error(error, where))
        sound = {key: dict(value) if isinstance(value, dict) else value for key, value in content.items()}
        for item in error.errors():
            block, *inner = item["loc"]
            if block in BLOCKS_WITH_DEFAULTS and inner and isinstance(sound.get(str(block)), dict):
                sound[str(block)].pop(inner[0], None)
            else:
                sound.pop(str(block), None)
        return SpaceFile.model_validate({**PLACEHOLDERS, **sound})


def _override(content: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        fail(override, "not an override", allowed="key.path=value, for example budget.trials=4")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        fail(override, "the value is not YAML", allowed="a number, a word, or {choose: [...]}")
    inner: Any = content
    for at, key in enumerate(keys[:-1]):
        if isinstance(inner, list) and key.isdigit() and int(key) < len(inner):  # one of several corpora
            inner = inner[int(key)]
            continue
        if not isinstance(inner, dict):
            fail(override, f"{'.'.join(keys[:at])} is not a mapping", allowed="a path of keys")
        if not isinstance(inner.get(key), dict):
            inner[key] = {}
        inner = inner[key]
    inner[keys[-1]] = value
