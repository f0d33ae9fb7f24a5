"""Scores of concepts, relations, attributes and document-level relations.

In every mode a discontinuous concept counts as the range from its first start to its last end, as in
2018 n2c2 track 2. By default the order of documents and annotations does not matter, and duplicate
annotations count once. See :mod:`clinie_core.scoring.items` for the modes, and
:mod:`clinie_core.scoring.scorers` for scorers that count in other ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from clinie_core.data.document import Concept, Document
from clinie_core.scoring.items import ByType, Item, ItemSets
from clinie_core.scoring.scorers import DEFAULT_SCORER, SCORERS
from clinie_core.scoring.scores import Scores

__all__ = ["score_attributes", "score_concepts", "score_entity_relations", "score_relations"]

Kind = TypeVar("Kind")
DEFAULT_MODES = ("strict", "lenient")


def score_concepts(
    pairs: Iterable[tuple[Sequence[Concept], Sequence[Concept]]],
    modes: Sequence[str] = DEFAULT_MODES,
    scorer: str = DEFAULT_SCORER,
) -> Scores:
    """Score the concepts of documents.

    Args:
        pairs: For each document its gold and its predicted concepts.
        modes: ``strict``, ``lenient``, ``overlap``, ``partial``, ``type``; only the first two for other scorers.
        scorer: How to count; one of :data:`SCORERS`.

    Raises:
        InputError: If there is no such scorer.
    """
    return _score(pairs, modes, scorer, lambda concepts: [(c.extent, c.type, ()) for c in concepts])


def score_relations(
    pairs: Iterable[tuple[Document, Document]],
    modes: Sequence[str] = DEFAULT_MODES,
    scorer: str = DEFAULT_SCORER,
) -> Scores:
    """Score the relations of documents: type, direction, and both ends with their types.

    For relation extraction from gold concepts, the predicted document contains the gold concepts. For
    end-to-end extraction it contains the predicted concepts, so a relation with a missed end is wrong.

    Args:
        pairs: For each document its gold and its predicted version.
        modes: ``strict``, ``lenient``, ``overlap``: how both ends must match.
        scorer: How to count; one of :data:`SCORERS`.
    """
    return _score(pairs, modes, scorer, _build_relation_items)


def score_attributes(
    pairs: Iterable[tuple[Document, Document]],
    modes: Sequence[str] = DEFAULT_MODES,
    scorer: str = DEFAULT_SCORER,
) -> Scores:
    """Score the attributes of concepts: type, value, and the concept with its type.

    Args:
        pairs: For each document its gold and its predicted version.
        modes: ``strict``, ``lenient``, ``overlap``: how the concept must match.
        scorer: How to count; one of :data:`SCORERS`.
    """
    return _score(pairs, modes, scorer, _build_attribute_items)


def score_entity_relations(pairs: Iterable[tuple[Document, Document]], scorer: str = DEFAULT_SCORER) -> Scores:
    """Score document-level relations between terminology entries, as BioCreative V CDR does.

    These relations have no position in the text, so strict and lenient scores are equal.

    Args:
        pairs: For each document its gold and its predicted version.
        scorer: How to count; one of :data:`SCORERS`.
    """
    return _score(
        pairs,
        DEFAULT_MODES,
        scorer,
        lambda document: [((), r.type, (r.head, r.tail)) for r in document.entity_relations],
    )


def _build_relation_items(document: Document) -> list[Item]:
    concepts = {c.id: c for c in document.concepts}
    ends = ((r.type, concepts[r.head], concepts[r.tail]) for r in document.relations)
    return [((*h.extent, *t.extent), type_, (h.type, t.type)) for type_, h, t in ends]


def _build_attribute_items(document: Document) -> list[Item]:
    concepts = {c.id: c for c in document.concepts}
    owned = ((a, concepts[a.target]) for a in document.attributes if a.target in concepts)
    return [(c.extent, a.type, (c.type, a.value or "")) for a, c in owned]


def _score(
    pairs: Iterable[tuple[Kind, Kind]], modes: Sequence[str], scorer: str, items: Callable[[Kind], list[Item]]
) -> Scores:
    counters = SCORERS.load(scorer)

    def rows() -> Iterator[dict[str, ByType]]:
        for gold, predicted in pairs:
            sides = ItemSets(items(gold), items(predicted))
            yield {mode: counters[mode](sides) for mode in modes}

    return Scores(modes, rows())
