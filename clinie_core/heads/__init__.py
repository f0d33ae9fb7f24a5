"""Task heads: from hidden states to losses and outputs.

A head does not depend on text or tokens; it reads hidden states at the positions that its formulation selected. Its
loss is a sum over targets, so the trainer can normalize gradients by the number of loss terms.
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
