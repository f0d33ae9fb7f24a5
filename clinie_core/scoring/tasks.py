"""Scores of a task: the annotations that count, and the metrics that a trial reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clinie_core.config import Task
from clinie_core.data.document import Document
from clinie_core.scoring.annotations import score_concepts, score_entity_relations, score_relations
from clinie_core.scoring.scorers import DEFAULT_SCORER
from clinie_core.scoring.scores import Scores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["TaskScores", "score_task"]

Pairs = Sequence[tuple[Document, Document]]


@dataclass(frozen=True)
class TaskScores:
    """Scores of a task.

    Args:
        overall: Scores of the task's annotations; for ``joint`` of concepts and relations together.
        parts: For ``joint``: ``concept``, ``relation`` (between predicted concepts), and optionally
            ``gold_relation`` (between annotated concepts).
        scorer: Name of the scorer that counted.
    """

    overall: Scores
    parts: dict[str, Scores]
    scorer: str = DEFAULT_SCORER

    def counts(self, metric: str) -> NDArray[np.float64]:
        """Return the counts by document behind a metric such as ``relation_strict_f1``, ``[documents, 3]``."""
        *part, mode, _ = metric.split("_")
        return (self.parts["_".join(part)] if part else self.overall).documents(mode)

    def metrics(self) -> dict[str, float]:
        """Return flat metrics, overall (``strict_f1``) and of the parts (``relation_strict_f1``)."""
        apart = {f"{part}_{k}": v for part, scores in self.parts.items() for k, v in scores.metrics().items()}
        return self.overall.metrics() | apart


def score_task(task: Task, pairs: Pairs, gold_pairs: Pairs | None = None, scorer: str = DEFAULT_SCORER) -> TaskScores:
    """Score the predictions of a task.

    Args:
        task: The extraction task.
        pairs: For each document its gold and its predicted version.
        gold_pairs: The same with relations predicted between gold concepts; only for ``joint``.
        scorer: How to count; one of :data:`~clinie_core.scoring.scorers.SCORERS`.

    Raises:
        InputError: If there is no such scorer.
    """
    if task == "relations":
        return TaskScores(_score_all_relations(pairs, scorer), {}, scorer)
    concepts = score_concepts(((gold.concepts, found.concepts) for gold, found in pairs), scorer=scorer)
    if task == "concepts":
        return TaskScores(concepts, {}, scorer)
    relations = _score_all_relations(pairs, scorer)
    parts = {"concept": concepts, "relation": relations}
    if gold_pairs is not None:
        parts["gold_relation"] = _score_all_relations(gold_pairs, scorer)
    return TaskScores(Scores.combine(concepts, relations), parts, scorer)


def _score_all_relations(pairs: Pairs, scorer: str) -> Scores:
    """Score relations between concepts together with document-level relations, where either kind occurs."""
    stated = any(gold.entity_relations or found.entity_relations for gold, found in pairs)
    if not stated:
        return score_relations(pairs, scorer=scorer)
    linked = any(gold.relations or found.relations for gold, found in pairs)
    if not linked:
        return score_entity_relations(pairs, scorer)
    return Scores.combine(score_relations(pairs, scorer=scorer), score_entity_relations(pairs, scorer))
