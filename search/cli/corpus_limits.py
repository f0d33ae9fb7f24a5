"""Shares of a corpus's concepts that models can express, for ``clinie data check``."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from clinie_core.data.corpora.views import apply_view, find_unknown_types
from clinie_core.data.document import Corpus, Document, Span
from clinie_core.encoding.words import segment_words
from clinie_core.errors import ErrorList
from clinie_core.formulations.representable import RepresentableCounts, count_representable

if TYPE_CHECKING:
    from clinie_core.errors import Problem
    from search.study.limits import FormulationLimits

__all__ = ["CorpusLimits"]


class CorpusLimits:
    """Counter of the concepts that one label per word can and cannot express, by split.

    Args:
        space: A space whose formulations are measured by :meth:`measure`; the documents are then kept in memory.
    """

    def __init__(self, space: str | None = None) -> None:
        self._space = space
        self._counts: dict[str, RepresentableCounts] = {}
        self._documents: defaultdict[str, list[Document]] = defaultdict(list)

    def add(self, split: str, document: Document) -> None:
        """Count the concepts of one document."""
        counts = count_representable([document], [_segment_around(document)], flat=True)
        self._counts[split] = self._counts[split] + counts if split in self._counts else counts
        if self._space is not None:
            self._documents[split].append(replace(document, metadata={}))

    def as_json(self, split: str) -> dict[str, Any]:
        """Return the share of a split, the share of each type, and the number of lost concepts by reason."""
        counts = self._counts[split].as_json()
        return {key: counts[key] for key in ("representable", "by_type", "lost")}

    def measure(self) -> tuple[list[FormulationLimits], list[Problem]]:
        """Measure the formulations of the space on the documents.

        Returns:
            The limits of each formulation, and warnings; both empty without a space.

        Raises:
            InputError: If the space is invalid, or names a type that the corpus does not have.
        """
        if self._space is None:
            return [], []
        from search.config.space_reading import read_space_file
        from search.config.validation import build_space
        from search.study.limits import find_unexpected_limits, measure_limits

        file, where = read_space_file(self._space)
        corpus = Corpus({split: tuple(found) for split, found in self._documents.items()})
        errors = ErrorList()
        errors.extend(replace(p, where=f"{where}: {p.where}") for p in find_unknown_types(corpus, file.view))
        errors.raise_if_any()
        limits, problems = measure_limits(build_space(file, where), apply_view(corpus, file.view))
        return limits, find_unexpected_limits(limits, where) + problems


def _segment_around(document: Document) -> list[Span]:
    """Return the words of the parts of a text that have concepts; segmenting whole texts takes most of the time."""
    text = document.text
    parts: list[tuple[int, int]] = []
    for start, end in sorted(concept.extent for concept in document.concepts):
        begin = max(text.rfind(blank, 0, start) for blank in " \n") + 1
        stop = min((at for at in (text.find(blank, end) for blank in " \n") if at >= 0), default=len(text))
        if parts and begin <= parts[-1][1]:
            begin, stop = parts[-1][0], max(parts[-1][1], stop)
            parts.pop()
        parts.append((begin, stop))
    return [
        Span(begin + word.start, begin + word.end) for begin, stop in parts for word in segment_words(text[begin:stop])
    ]
