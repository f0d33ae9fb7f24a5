"""Options for reading corpora that contain faults, and the collection of one document's faults."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from clinie_core.config import FrozenModel, convert_validation_error
from clinie_core.data.corpora.checking import check_mention
from clinie_core.data.document import Span
from clinie_core.errors import ErrorList, InputError, Problem

__all__ = ["DEFAULT_TYPE", "AnnotationErrors", "ReadingOptions", "validate_content", "validate_line"]

DEFAULT_TYPE = "ENTITY"
Model = TypeVar("Model")
LineModel = TypeVar("LineModel", bound=BaseModel)


class ReadingOptions(FrozenModel):
    """Treatment of faulty annotations and documents by the formats.

    Args:
        offsets: ``verify`` rejects an annotation whose copy of the mention differs from the text at its
            offsets; ``trust`` ignores the copy, for files with normalized mentions.
        on_error: ``stop`` rejects a corpus with a fault. ``skip`` leaves out each faulty annotation, and each
            document that cannot be read. ``trim`` also cuts concepts at the end of the text, and removes
            white space at their boundaries.
        bare_tag_type: Concept type of token tags without a type, ``B`` and ``I``.
    """

    offsets: Literal["verify", "trust"] = "verify"
    on_error: Literal["stop", "skip", "trim"] = "stop"
    bare_tag_type: str = Field(default=DEFAULT_TYPE, pattern=r"^\S+$")


class AnnotationErrors(ErrorList):
    """Faults of the annotations of one document; each concerns a single annotation.

    Args:
        options: The options of the format.
        notices: List to which warnings and skipped annotations are appended.
        warned: The warnings of all documents, to give each once.
    """

    def __init__(self, options: ReadingOptions, notices: list[Problem], warned: set[Problem]) -> None:
        super().__init__()
        self._warned = warned
        self.options = options
        self.notices = notices

    def fit_span(self, where: str, id_: str, start: int, end: int, length: int) -> Span | None:
        """Return the span of two offsets, or add a problem if it is not within the text.

        Args:
            where: File and line.
            id_: The annotation's id.
            start: First character.
            end: One past the last character; cut at the end of the text if ``on_error`` is ``trim``.
            length: Number of characters of the text.
        """
        if 0 <= start < end and (end <= length or (start < length and self.options.on_error == "trim")):
            if end > length:
                self.notices.append(Problem(where, f"{id_}: cut at the end of the text", severity="trimmed"))
            return Span(start, min(end, length))
        found = f"{id_}: offsets {start}:{end} lie outside the text of {length} characters"
        remedy = "check that offsets count characters, not bytes"
        self.add(where, found, allowed="0 <= start < end <= length", remedy=remedy)
        return None

    def check_mention(self, where: str, id_: str, mention: str, text: str, *, any_case: bool = False) -> bool:
        """Add a problem if a mention differs from the text at its offsets; see :func:`check_mention`.

        Returns:
            Whether the annotation can be used.
        """
        if self.options.offsets == "trust":
            return True
        problem = check_mention(where, id_, mention, text, any_case=any_case)
        self.extend([problem] if problem else [])
        return problem is None

    def warn(self, where: str, found: str, *, remedy: str = "") -> None:
        """Add a warning, unless the same one was added before."""
        problem = Problem(where, found, remedy=remedy, severity="warning")
        if problem not in self._warned:
            self._warned.add(problem)
            self.notices.append(problem)

    def raise_if_any(self) -> None:
        """Raise all problems as one error, or note their annotations as skipped if the options request that.

        Raises:
            InputError: If there are problems and ``on_error`` is ``stop``.
        """
        if self.options.on_error == "stop":
            super().raise_if_any()
        self.notices += [replace(problem, severity="skipped") for problem in self.take_problems()]


def validate_content(
    validate: Callable[[Any], Model], content: Any, where: str, errors: AnnotationErrors, kinds: Container[str]
) -> Model:
    """Validate the content of a document by pydantic, without its faulty annotations if the options request that.

    Args:
        validate: Function that validates the content.
        content: Lists and dictionaries, from which faulty annotations are removed.
        where: File and line, for messages.
        errors: List to which the problems of annotations are added.
        kinds: Keys of the lists or dictionaries of annotations.

    Raises:
        InputError: If the content is faulty, and its faults are not in annotations or ``on_error`` is ``stop``.
    """
    while True:
        try:
            return validate(content)
        except ValidationError as error:
            problems = convert_validation_error(error, where, quote=False)
            paths = [_find_annotation(item["loc"], content, kinds) for item in error.errors(include_input=False)]
            if errors.options.on_error == "stop" or None in paths:
                raise InputError(problems) from None
            errors.extend(problems)
            # From the last to the first, since a removal changes the indices of later annotations.
            for *parents, last in sorted(set(filter(None, paths)), key=_order_path, reverse=True):
                del _follow(content, parents)[last]


def validate_line(
    model: type[LineModel], line: str, where: str, errors: AnnotationErrors, kinds: Container[str]
) -> LineModel:
    """Validate one line of JSON; see :func:`validate_content`."""
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        content = _parse_object(line) if errors.options.on_error != "stop" else None
        if content is None:
            raise InputError(convert_validation_error(error, where, quote=False)) from None
    # The content is rendered again, because strict models accept lists as tuples only in JSON.
    return validate_content(lambda c: model.model_validate_json(json.dumps(c)), content, where, errors, kinds)


def _parse_object(line: str) -> dict[str, Any] | None:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _find_annotation(path: Sequence[int | str], content: Any, kinds: Container[str]) -> tuple[int | str, ...] | None:
    """Return the path of the innermost annotation that contains a fault."""
    for at in range(len(path) - 2, -1, -1):
        if path[at] in kinds and isinstance(_follow(content, path[: at + 1]), list | dict):
            return tuple(path[: at + 2])
    return None


def _order_path(path: tuple[int | str, ...]) -> list[tuple[int, str]]:
    return [(part, "") if isinstance(part, int) else (0, part) for part in path]


def _follow(content: Any, path: Iterable[int | str]) -> Any:
    for part in path:
        if isinstance(content, list) and isinstance(part, int):
            content = content[part]
        elif isinstance(content, dict):
            content = content.get(part)
        else:
            return None
    return content
