"""Predict concepts with a model: batches by length, scores to the CPU, decoding by document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from clinie_core.batching import length_sorted_batches
from clinie_core.document import Concept
from clinie_core.model import ExtractionModel, collate

if TYPE_CHECKING:
    from numpy import ndarray

    from clinie_core.formulations.formulation import EncodedDocument, Formulation

__all__ = ["predict_concepts"]

BATCH_TOKENS = 4096


def predict_concepts(
    model: ExtractionModel,
    formulation: Formulation,
    labels: Sequence[str],
    documents: Sequence[EncodedDocument],
    *,
    pad_id: int,
    autocast: torch.autocast,
) -> list[tuple[Concept, ...]]:
    """Predict the concepts of encoded documents, in their order.

    Args:
        model: A model on the device to use; it is put into evaluation mode.
        formulation: Reads the scores.
        labels: The formulation's label names.
        documents: Documents that the formulation encoded.
        pad_id: The tokenizer's padding token.
        autocast: The precision to compute in.
    """
    model.eval()
    device = next(model.parameters()).device
    examples = [example for document in documents for example in document.examples]
    outputs: dict[int, ndarray] = {}
    with torch.inference_mode(), autocast:
        for batch in length_sorted_batches([len(e.input_ids) for e in examples], BATCH_TOKENS):
            rows = [examples[i] for i in batch]
            scores = model.scores(collate(rows, pad_id, device, targets=False)).float().cpu().numpy()
            for i, row, score in zip(batch, rows, scores, strict=True):
                outputs[i] = score[: len(row.positions)]  # [positions, labels]
    remaining = (outputs[i] for i in range(len(examples)))
    return [
        formulation.concepts(
            document,
            [next(remaining) for _ in document.examples],
            model.head,
            labels,
        )
        for document in documents
    ]
