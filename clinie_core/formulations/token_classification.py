"""Token classification: one BIO label a unit, from a linear or a CRF head.

Flat concepts only: what overlaps or is discontinuous is reported by ``clinie data check``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from clinie_core.document import Concept, Document
from clinie_core.formulations.formulation import EncodedDocument, Example, Formulation
from clinie_core.tagging import bio_labels, legal_transitions, tag_units, tagged_concepts, viterbi
from clinie_core.windows import Unit, tokenize_documents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from clinie_core.heads import TaskHead

__all__ = ["TokenClassification"]


class TokenClassification(Formulation):
    """Label every unit of the text.

    Args:
        head: ``linear`` scores units apart from each other, ``crf`` learns scores between labels.
        dropout: Dropout before the head.
        unit: What carries a label, whole words or single tokens.
    """

    ranges: ClassVar[dict[str, Any]] = {"head": {"choose": ["linear", "crf"]}}

    head: Literal["linear", "crf"] = "linear"
    dropout: float = Field(default=0.1, ge=0, lt=1)
    unit: Unit = "word"

    def labels(self, types: Sequence[str]) -> tuple[str, ...]:
        """``O``, then ``B-`` and ``I-`` of each type."""
        return bio_labels(types)

    def encode(
        self,
        documents: Sequence[Document],
        tokenizer: PreTrainedTokenizerFast,
        labels: Sequence[str],
        *,
        window_tokens: int,
        overlap: int,
        targets: bool,
    ) -> tuple[EncodedDocument, ...]:
        """One example a window, with the labels of the units that the window owns."""
        texts = (document.text for document in documents)
        tokenized = tokenize_documents(texts, tokenizer, window_tokens=window_tokens, overlap=overlap, unit=self.unit)
        encoded = []
        for document, tokens in zip(documents, tokenized, strict=True):
            tags = tag_units(tokens.units, document.concepts, labels)[0] if targets else ()
            examples = tuple(
                Example(w.input_ids, w.positions, tags[w.first_unit : w.first_unit + len(w.positions)])
                for w in tokens.windows
            )
            encoded.append(EncodedDocument(examples, tokens.units))
        return tuple(encoded)

    def build_head(self, hidden_size: int, labels: Sequence[str]) -> TaskHead:
        """A linear or CRF head over ``[batch, positions, hidden_size]``."""
        from clinie_core import heads

        row = {"linear": heads.LinearHead, "crf": heads.CrfHead}[self.head]
        return row(hidden_size, labels, self.dropout)

    def concepts(
        self, encoded: EncodedDocument, outputs: Sequence[np.ndarray], head: TaskHead, labels: Sequence[str]
    ) -> tuple[Concept, ...]:
        """The concepts of the best legal label sequence over the whole document."""
        if not outputs:
            return ()
        start, transitions = legal_transitions(labels)
        learned = head.transition_scores()
        end = None
        if learned is not None:
            start, transitions, end = start + learned[0], transitions + learned[1], learned[2]
        tags = viterbi(np.concatenate(outputs), start, transitions, end)
        return tagged_concepts(encoded.state, tags, labels)
