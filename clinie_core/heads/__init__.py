"""Task heads: hidden states to losses and scores.

A head knows neither text nor tokens; it reads hidden states at the positions that its formulation
chose. Losses are sums over decisions, so that the trainer can weigh batches by their size.
"""

from __future__ import annotations

from clinie_core.heads.head import TaskHead
from clinie_core.heads.language import LanguageHead
from clinie_core.heads.pairs import PairHead
from clinie_core.heads.spans import BiaffineHead, GlobalPointerHead, QuestionHead, SpanHead
from clinie_core.heads.tokens import CrfHead, LinearHead

__all__ = [
    "BiaffineHead",
    "CrfHead",
    "GlobalPointerHead",
    "LanguageHead",
    "LinearHead",
    "PairHead",
    "QuestionHead",
    "SpanHead",
    "TaskHead",
]
