"""Validate a space file: all its blocks and its corpus in one pass, all faults in one error.

A check skips what depends on a value that already has a fault, so that one mistake gives one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from pydantic import JsonValue, ValidationError

from clinie_core.backbones.facts import BackboneFacts, read_facts
from clinie_core.backbones.hub import HubReader
from clinie_core.backbones.integrity import check_backbone
from clinie_core.backbones.location import BackboneUnavailable, require_folder
from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig, convert_validation_error
from clinie_core.data.corpora.detection import Detection
from clinie_core.data.corpora.loading import detect_source_format, load_corpora
from clinie_core.data.document import Corpus
from clinie_core.errors import InputError, Problem
from clinie_core.finetuning import FINETUNING
from search.config.algorithms import SAMPLERS, SCHEDULERS
from search.config.domains import Domain, Fixed
from search.config.parsing import PARTS, Dimensions, Faults, parse_dimensions
from search.config.points import check_points
from search.config.resource_checks import check_resources
from search.config.search_space import SearchSpace, make_config
from search.config.space_file import SpaceFile
from search.config.space_reading import parse_space_file, read_space_content
from search.config.unavailable_backbones import UnavailableBackbones

__all__ = ["ValidatedSpace", "build_space", "validate_space", "validate_space_file"]

SEARCHED = ("train", "dev")
"""Splits that a search reads; only a promotion reads the test split."""
CORPUS_KEY = re.compile(r"(?:[\w.-]+: )?corpus\.")
"""Place of a problem with the ``corpus`` block, after the name of the corpus if there are several."""
VIEW_KEY = re.compile(r"corpus\.(?:merge_types|concept_types|relation_types)\b")
"""Place of a wrong type name, which is a fault of the space although the corpus can be read."""
WINDOW_TOKENS: int = TrialConfig.model_fields["window_tokens"].default
ANY_BACKBONE = BackboneSource(name="any", hub="any")
ANY_COMPONENT = ComponentChoice(name="any")


@dataclass(frozen=True)
class ValidatedSpace:
    """A space file without faults.

    Args:
        file: The space file, with absolute corpus paths, the detected formats and the commits of backbones.
        where: Its name, for messages.
        space: Its search space.
        corpus: The splits that were requested; None if they could not be read.
        corpus_problems: Why the corpus could not be read.
        detections: The format that was detected for each corpus without one in the file, by name of the corpus.
        stand_ins: Names of the backbones that are not available, whose place takes one of the same architecture.
        notices: What is unknown of backbones that are not available.
    """

    file: SpaceFile
    where: str
    space: SearchSpace
    corpus: Corpus | None
    corpus_problems: tuple[Problem, ...] = ()
    detections: Mapping[str, Detection] = field(default_factory=dict)
    stand_ins: frozenset[str] = frozenset()
    notices: tuple[Problem, ...] = ()


def validate_space(
    name: str, overrides: Iterable[str] = (), *, splits: tuple[str, ...] = SEARCHED, plan_only: bool = False
) -> ValidatedSpace:
    """Read a space by file or shipped name and validate it together with its corpus.

    Args:
        name: Path of a space file, or the name of a shipped space.
        overrides: Changes to the file, each ``key.path=value`` with the value as YAML.
        splits: Splits of the corpus to read.
        plan_only: Accept a corpus that cannot be read, and backbones that are not available.

    Raises:
        InputError: With all faults of the file and of its corpus.
    """
    content, where = read_space_content(name, overrides)
    faults = Faults(where)
    return _validate(parse_space_file(content, where, faults), faults, splits, plan_only=plan_only)


def validate_space_file(file: SpaceFile, where: str) -> ValidatedSpace:
    """Validate a space file that is in memory, together with its corpus.

    Args:
        file: The space file.
        where: Its name, for messages.

    Raises:
        InputError: With all faults of the file and of its corpus.
    """
    return _validate(file, Faults(where), SEARCHED)


def build_space(file: SpaceFile, where: str) -> SearchSpace:
    """Build the search space of a file without reading its corpus.

    Args:
        file: The space file.
        where: Its name, for messages.

    Raises:
        InputError: With all faults of the blocks ``space``, ``algorithm`` and ``resources``.
    """
    faults = Faults(where)
    space = _check_space(file, faults, UnavailableBackbones(faults, stand_in=False))
    faults.raise_if_any()
    return space


def _validate(file: SpaceFile, faults: Faults, splits: tuple[str, ...], *, plan_only: bool = False) -> ValidatedSpace:
    file = file.with_absolute_paths()
    detections = {} if faults.covers("corpus") else _detect_formats(file)
    file = file.with_formats({name: detection.format for name, detection in detections.items()})
    unavailable = UnavailableBackbones(faults, stand_in=plan_only)
    space = _check_space(file, faults, unavailable)
    corpus, problems = (None, ()) if faults.covers("corpus") else _read_corpus(file, faults.where, splits)
    required = not plan_only or len(faults) or any(VIEW_KEY.search(problem.where) for problem in problems)
    if problems and required:
        faults.extend(problems)
    faults.raise_if_any()
    return ValidatedSpace(
        space.file,
        faults.where,
        space,
        corpus,
        problems,
        detections,
        unavailable.stand_ins,
        tuple(unavailable.notices),
    )


def _detect_formats(file: SpaceFile) -> dict[str, Detection]:
    """Detect the formats that the file leaves open; a failure is reported when the corpus is read."""
    found: dict[str, Detection] = {}
    for source in file.corpus:
        with suppress(InputError):
            detection = detect_source_format(source)
            found |= {} if detection is None else {source.title: detection}
    return found


def _read_corpus(file: SpaceFile, where: str, splits: tuple[str, ...]) -> tuple[Corpus | None, tuple[Problem, ...]]:
    """Read splits of the corpus; problems with the ``corpus`` block name the space file."""
    try:
        return load_corpora(file.corpus, splits), ()
    except InputError as error:
        return None, tuple(
            replace(p, where=f"{where}: {p.where}") if CORPUS_KEY.match(p.where) else p for p in error.problems
        )


def _check_space(file: SpaceFile, faults: Faults, unavailable: UnavailableBackbones) -> SearchSpace:
    """Check the blocks ``space``, ``algorithm`` and ``resources``; the result is usable only without faults."""
    dimensions = parse_dimensions(file, faults)
    _check_scalars(file, dimensions, faults)
    _check_branches(dimensions, faults)
    dimensions = _pin_backbones(dimensions, faults, unavailable)
    facts = _read_facts(dimensions, faults)
    for name in facts:
        _check_backbone(file, dimensions, facts[name], faults)
    if not faults.covers("resources"):
        check_resources(file, dimensions, faults)
    _check_random_weights(dimensions, facts, faults)
    for part in dimensions.parts:
        _check_architectures(part, dimensions, facts, faults)
        _check_corpora(file, part, dimensions, faults)
    _check_task(dimensions, faults)
    space = SearchSpace(file.with_backbones(dimensions.backbones), dimensions, facts)
    _check_algorithm(space, faults)
    return space


def _check_scalars(file: SpaceFile, dimensions: Dimensions, faults: Faults) -> None:
    """Check that every choice and both ends of every range are legal values of their field."""
    scalars = {key: domain for key, domain in dimensions.scalars.items() if key != "backbone"}
    first = {key: domain.corners[0] for key, domain in scalars.items()}
    components = {"formulation": ANY_COMPONENT, "finetuning": ANY_COMPONENT}
    for key, domain in scalars.items():
        for corner in domain.corners:
            try:
                make_config(file, ANY_BACKBONE, first | {key: corner}, components)
            except ValidationError as error:
                faults.extend(convert_validation_error(error, f"{faults.where}: space"))


def _check_branches(dimensions: Dimensions, faults: Faults) -> None:
    """Check that every choice and both ends of every range are legal values of their component's parameter."""
    for part, branches in dimensions.parts.items():
        for name, domains in branches.items():
            row, where = PARTS[part].load(name), f"{faults.where}: space.{part}.{name}"
            if faults.covers(f"space.{part}.{name}"):
                continue
            first = {parameter: domain.corners[0] for parameter, domain in domains.items()}
            for parameter, domain in domains.items():
                for corner in domain.corners:
                    try:
                        row.model_validate(first | {parameter: corner})
                    except ValidationError as error:
                        own = [p for p in convert_validation_error(error, where) if p.where == f"{where}.{parameter}"]
                        faults.extend(own)
            for values in _extremes(domains):
                try:
                    row.model_validate(values)
                except ValidationError as error:
                    faults.extend(convert_validation_error(error, where))


def _pin_backbones(dimensions: Dimensions, faults: Faults, unavailable: UnavailableBackbones) -> Dimensions:
    """Inspect the backbones' repositories and folders, and pin commits; leave out those with a fault."""
    hub, pinned = HubReader(), {}
    for name, source in dimensions.backbones.items():
        try:
            where = f"{faults.where}: space.backbone"
            require_folder(source, where)
            pinned[name] = hub.pin(source, where)
        except BackboneUnavailable as error:
            stand_in = unavailable.replace(source, error)
            pinned |= {} if stand_in is None else {name: stand_in}
        except InputError as error:
            faults.extend(error.problems)
    return unavailable.remove_from(dimensions, pinned)


def _read_facts(dimensions: Dimensions, faults: Faults) -> dict[str, BackboneFacts]:
    """Return facts about each backbone that is available and unchanged."""
    where = f"{faults.where}: space.backbone"
    facts = {}
    for name, source in dimensions.backbones.items():
        try:
            check_backbone(source, where)
            facts[name] = read_facts(source, where)
        except InputError as error:
            faults.extend(error.problems)
    return facts


def _check_backbone(file: SpaceFile, dimensions: Dimensions, facts: BackboneFacts, faults: Faults) -> None:
    """Check that a backbone fits every fine-tuning method and the longest window of the space."""
    for method in _sound_branches("finetuning", dimensions.legal_branches("finetuning", facts), faults):
        row, where = FINETUNING.load(method), f"space.finetuning.{method}"
        variants = [row.model_validate(values) for values in _extremes(dimensions.parts["finetuning"][method])]
        for conflict in sorted(filter(None, {variant.find_conflict(facts) for variant in variants})):
            faults.add(where, f"incompatible with backbone {facts.name!r}: {conflict}")
        if faults.covers("space.window_tokens"):
            continue
        longest = max(dimensions.scalars.get("window_tokens", Fixed(WINDOW_TOKENS)).corners)  # type: ignore[type-var]
        needed = int(longest) + max(variant.virtual_tokens for variant in variants)  # type: ignore[arg-type]
        if facts.positions is not None and needed > facts.positions:
            found = f"backbone {facts.name!r} accepts {facts.positions} tokens, but {method} needs {needed}"
            allowed = f"at most {facts.positions - needed + int(longest)}"  # type: ignore[arg-type]
            faults.add("space.window_tokens", found, allowed=allowed)


def _check_random_weights(dimensions: Dimensions, facts: Mapping[str, BackboneFacts], faults: Faults) -> None:
    """Check that every method has a pretrained backbone, and every backbone with random weights a method."""
    freezing = [name for name in dimensions.parts.get("finetuning", ()) if name in dimensions.freezing_methods]
    is_used = any(of_backbone.can_freeze for of_backbone in facts.values())
    for name, of_backbone in facts.items():
        is_trained = dimensions.legal_branches("finetuning", of_backbone) if freezing else True
        if not of_backbone.can_freeze and freezing and not (is_used and is_trained):
            found = f"{' and '.join(freezing)} would freeze the random weights of backbone {name!r}"
            remedy = f"use full or a pretrained backbone, or set backbones.{name}.allow_frozen to true"
            faults.add("space.finetuning", found, remedy=remedy)
            return


def _check_architectures(part: str, dimensions: Dimensions, facts: Mapping[str, BackboneFacts], faults: Faults) -> None:
    """Check that every branch of a part fits at least one backbone, and every backbone at least one branch."""
    if faults.covers("task") or not facts:
        return
    legal = {name: dimensions.legal_branches(part, of_backbone) for name, of_backbone in facts.items()}
    noun = PARTS[part].noun
    is_paired = part != "finetuning" and faults.covers("space.relation_formulation")
    if not _has_unknown_backbones(faults) and not is_paired:
        for branch in dimensions.parts[part]:
            is_frozen = part == "finetuning" and branch in dimensions.freezing_methods
            if is_frozen and not any(of_backbone.can_freeze for of_backbone in facts.values()):
                continue  # reported with the backbones
            if not any(branch in names for names in legal.values()):
                row = PARTS[part].load(branch)
                kinds = sorted({of_backbone.architecture for of_backbone in facts.values()})
                found = f"{noun} {branch} does not support task {dimensions.task} with {kinds[0]} backbones"
                tasks = f" and task {', '.join(sorted(row.tasks))}" if hasattr(row, "tasks") else ""
                allowed = f"{' or '.join(sorted(row.architectures))} backbones{tasks}"
                faults.add(f"space.{part}.{branch}", found, allowed=allowed)
    if faults.covers(f"space.{part}") or is_paired:
        return
    for name, of_backbone in facts.items():
        if not legal[name] and not (part == "relation_formulation" and of_backbone.architecture == "decoder"):
            found = f"no {noun} of the space supports the {of_backbone.architecture} backbone {name!r}"
            faults.add(f"space.{part}", found)


def _check_corpora(file: SpaceFile, part: str, dimensions: Dimensions, faults: Faults) -> None:
    """Check that the formulations can serve several corpora, if there are several."""
    if part == "finetuning" or len(file.corpus) < 2:
        return
    for branch in dimensions.parts[part]:
        if not PARTS[part].load(branch).type_conditioned:
            able = [name for name in PARTS[part] if PARTS[part].load(name).type_conditioned]
            found = f"{branch} does not support several corpora, because its labels are the types of one corpus"
            faults.add(f"space.{part}.{branch}", found, allowed="one of " + ", ".join(able))


def _check_task(dimensions: Dimensions, faults: Faults) -> None:
    """Check that the parameters of each formulation support the task."""
    branches = dimensions.parts.get("formulation", {})
    for branch in () if faults.covers("task") else _sound_branches("formulation", branches, faults):
        for values in _extremes(branches[branch]):
            conflict = PARTS["formulation"].load(branch).model_validate(values).find_conflict(dimensions.task)
            if conflict:
                faults.add(f"space.formulation.{branch}", conflict)


def _check_algorithm(space: SearchSpace, faults: Faults) -> None:
    """Check the names of sampler and scheduler, and the points to evaluate first."""
    algorithm = space.file.algorithm
    for key, registry in (("sampler", SAMPLERS), ("scheduler", SCHEDULERS)):
        if getattr(algorithm, key) not in registry:
            try:
                registry.load(getattr(algorithm, key), f"{faults.where}: algorithm.{key}")
            except InputError as error:
                faults.extend(error.problems)
    check_points(space, faults, has_unknown_backbones=_has_unknown_backbones(faults))


def _has_unknown_backbones(faults: Faults) -> bool:
    return faults.covers("space.backbone") or faults.covers("backbones")


def _sound_branches(part: str, names: Iterable[str], faults: Faults) -> Iterator[str]:
    """Yield the branches of a part whose parameters have no fault."""
    for name in names:
        if not faults.covers(f"space.{part}.{name}"):
            yield name


def _extremes(domains: Mapping[str, Domain]) -> list[dict[str, JsonValue]]:
    """Return two configurations of a component: the first and the last corner of every parameter."""
    return [{parameter: domain.corners[at] for parameter, domain in domains.items()} for at in (0, -1)]
