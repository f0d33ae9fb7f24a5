"""Token classification: one BIO label for each unit, from a linear or a CRF head.

Only flat concepts are supported; ``clinie data check`` reports overlapping and discontinuous ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from clinie_core.data.bio_tagging import (
    build_bio_labels,
    build_transition_scores,
    decode_concepts,
    tag_units,
    viterbi_decode,
)
from clinie_core.data.document import Document, Span
from clinie_core.data.schema import Schema
from clinie_core.encoding.windows import Frame, Unit, tokenize_documents
from clinie_core.formulations.formulation import EncodedDocument, Example, Formulation, InputContext, Prediction
from clinie_core.formulations.representable import RepresentableCounts, count_representable

if TYPE_CHECKING:
    from clinie_core.heads import TaskHead

__all__ = ["TokenClassification"]


class TokenClassification(Formulation[tuple[Span, ...]]):
    """BIO labels of the units of the text.

    Args:
        head: ``linear`` scores units independently, ``crf`` learns scores between neighbouring labels.
        head_layers: Number of hidden layers of the head, each as wide as the backbone; 0 for a linear map.
        dropout: Dropout before the head.
        unit: Unit that has a label: a whole word or a single token.
    """

    ranges: ClassVar[dict[str, Any]] = {"head": {"choose": ["linear", "crf"]}}
    limiting_parameters: ClassVar[tuple[str, ...] | None] = ("unit",)

    head: Literal["linear", "crf"] = "linear"
    head_layers: int = Field(default=0, ge=0, le=3)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    unit: Unit = "word"

    def encode(
        self, documents: Sequence[Document], context: InputContext, *, targets: bool
    ) -> tuple[EncodedDocument[tuple[Span, ...]], ...]:
        """Build one example for each window; its targets are the labels of the units that the window owns."""
        labels = build_bio_labels(context.schema.concept_types)
        frame = Frame.for_text(context.tokenizer, context.prompt)
        opening, size = len(frame.prefix), context.window_tokens - frame.size
        tokenized = tokenize_documents(
            (d.text for d in documents), context.tokenizer, size=size, overlap=context.overlap, unit=self.unit
        )
        encoded = []
        for document, tokens in zip(documents, tokenized, strict=True):
            tags = tag_units(tokens.units, document.concepts, labels)[0] if targets else ()
            examples = tuple(
                Example(
                    frame.wrap(w.token_ids),
                    tuple(opening + p for p in w.owned_positions),
                    tags[slice(*w.owned_units)],
                    second_segment=frame.second_segment,
                )
                for w in tokens.windows
            )
            encoded.append(EncodedDocument(examples, tokens.units))
        return tuple(encoded)

    def build_head(self, hidden_size: int, schema: Schema) -> TaskHead:
        """Build a linear or CRF head over ``[batch, positions, hidden_size]``."""
        from clinie_core import heads

        row = {"linear": heads.LinearHead, "crf": heads.CrfHead}[self.head]
        return row(hidden_size, build_bio_labels(schema.concept_types), self.dropout, self.head_layers)

    def count_representable(
        self, documents: Sequence[Document], encoded: Sequence[EncodedDocument[tuple[Span, ...]]], context: InputContext
    ) -> RepresentableCounts:
        """Count the gold concepts that flat labels of the units express."""
        return count_representable(documents, (item.state for item in encoded), flat=True)

    def decode(self, prediction: Prediction[tuple[Span, ...]]) -> Document:
        """Return the concepts of the best legal label sequence over the whole document."""
        if not prediction.outputs:
            return replace(prediction.document, concepts=())
        labels = build_bio_labels(prediction.context.schema.concept_types)
        start, transitions = build_transition_scores(labels)
        learned = prediction.transition_scores
        end = None
        if learned is not None:
            start, transitions, end = start + learned.start, transitions + learned.between, learned.end
        emissions = np.concatenate([np.asarray(part, dtype=np.float32) for part in prediction.outputs])
        tags = viterbi_decode(emissions, start, transitions, end)
        return replace(prediction.document, concepts=decode_concepts(prediction.encoded.state, tags, labels))
