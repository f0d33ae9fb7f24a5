"""Options for reading corpora that contain faults, and the collection of one document's faults."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from clinie_core.config import FrozenModel
from clinie_core.data.corpora.checking import check_mention
from clinie_core.data.document import Span
from clinie_core.errors import ErrorList, Problem

__all__ = ["DEFAULT_TYPE", "AnnotationErrors", "ReadingOptions"]

DEFAULT_TYPE = "ENTITY"


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
