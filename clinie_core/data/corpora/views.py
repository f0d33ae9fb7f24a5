"""Application of a corpus view, and the names of types in it that no annotation has."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator

from clinie_core.config import CorpusView
from clinie_core.data.document import Corpus
from clinie_core.errors import Problem

__all__ = ["apply_view", "find_unknown_types"]

ALL_TYPES = "*"
CLOSE_MATCH = 0.6
"""Smallest similarity of two names, from 0 to 1, at which one may be a misspelling of the other."""


def apply_view(corpus: Corpus, view: CorpusView) -> Corpus:
    """Merge and filter the types of a corpus as a view specifies; the operation is idempotent."""
    return corpus.merge_types(view.merge_types).restrict_types(view.concept_types, view.relation_types)


def find_unknown_types(corpus: Corpus, view: CorpusView) -> list[Problem]:
    """Return a problem for each key of a view that names types which no annotation has.

    Args:
        corpus: The corpus as it was read, before the view is applied.
        view: The view.
    """
    own, merged = corpus.concept_types(), corpus.merge_types(view.merge_types).concept_types()
    notes = [document for documents in corpus.splits.values() for document in documents]
    relations = {r.type for note in notes for r in note.relations} | {
        r.type for note in notes for r in note.entity_relations
    }
    named = [
        *((f"merge_types.{new}", "concept", old, own) for new, old in view.merge_types.items()),
        ("concept_types", "concept", view.concept_types, merged),
        ("relation_types", "relation", view.relation_types, relations),
    ]
    splits = " or ".join(corpus.splits)
    return [
        problem
        for key, kind, names, known in named
        for problem in _check_names(f"corpus.{key}", f"{kind} in {splits}", names, known)
    ]


def _check_names(where: str, kind: str, names: Iterable[str], known: Collection[str]) -> Iterator[Problem]:
    unknown = [name for name in dict.fromkeys(names) if name not in known and name != ALL_TYPES]
    if unknown:
        found = f"no {kind} has the type {' or '.join(map(repr, unknown))}"
        remedy = "correct the name, or remove it"
        yield Problem(
            where, found, allowed=f"types: {', '.join(_order_types(known, unknown)) or 'none'}", remedy=remedy
        )


def _order_types(known: Iterable[str], unknown: Iterable[str]) -> list[str]:
    """Return types in alphabetical order, after those that are similar to an unknown name."""

    def measure_distance(name: str) -> float:
        pairs = (difflib.SequenceMatcher(None, name.casefold(), other.casefold()) for other in unknown)
        similarity = max(pair.ratio() for pair in pairs)
        return -similarity if similarity >= CLOSE_MATCH else 0.0

    unknown = list(unknown)
    return sorted(sorted(known), key=measure_distance)
