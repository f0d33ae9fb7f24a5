"""Scores of predicted against annotated information, with confidence intervals and significance tests."""

from __future__ import annotations

from clinie_core.scoring.annotations import (
    score_attributes,
    score_concepts,
    score_entity_relations,
    score_relations,
)
from clinie_core.scoring.scorers import DEFAULT_SCORER, SCORERS
from clinie_core.scoring.scores import Counts, Scores
from clinie_core.scoring.tasks import TaskScores, score_task

__all__ = [
    "DEFAULT_SCORER",
    "SCORERS",
    "Counts",
    "Scores",
    "TaskScores",
    "score_attributes",
    "score_concepts",
    "score_entity_relations",
    "score_relations",
    "score_task",
]
