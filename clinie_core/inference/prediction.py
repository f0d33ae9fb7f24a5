"""Predict with a model: batches by length, outputs to the CPU, read back document by document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from clinie_core.data.document import Document
from clinie_core.encoding.batch import collate
from clinie_core.encoding.batch_sampling import batch_by_length
from clinie_core.formulations.formulation import Prediction
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.model import ExtractionModel
from clinie_core.modeling.parallel import unshard_heads

if TYPE_CHECKING:
    from clinie_core.encoding.examples import EncodedDocument
    from clinie_core.encoding.outputs import HeadOutput
    from clinie_core.formulations.formulation import Formulation, InputContext

__all__ = ["Predictor"]

BATCH_TOKENS = 4096
WRITING_BATCH_TOKENS = 16_384
"""A row that writes computes one token a step, so that many rows a step cost little more than one."""


class Predictor:
    """Runs a model on documents.

    Args:
        model: A model on the device to use; predicting puts it into evaluation mode.
        components: Its formulations, in the order in which they predict.
        context: What documents are encoded for.
        autocast: The precision to compute in.
        in_step: The processes that a sharded model is shared out between: they take as many batches as the one
            with the most. One process if left out.
    """

    def __init__(
        self,
        model: ExtractionModel,
        components: Mapping[str, Formulation[object]],
        context: InputContext,
        autocast: torch.autocast,
        in_step: DistributedContext | None = None,
    ) -> None:
        self._model = model
        self._components = components
        self._context = context
        self._autocast = autocast
        self._in_step = in_step or DistributedContext()
        self.faults: Counter[str] = Counter()
        """What was wrong with written answers so far; see :meth:`Formulation.count_answer_faults`."""

    def annotate(
        self, documents: Sequence[Document], encoded: Sequence[EncodedDocument[object]] | None = None
    ) -> list[Document]:
        """Give documents what is predicted in place of their own annotations.

        Relations alone are predicted between the concepts that the documents have.

        Args:
            documents: The documents.
            encoded: Their encoding for the first component without targets, if it is at hand.
        """
        found = list(documents)
        for number, component in enumerate(self._components):
            found = self.annotate_component(component, found, encoded if number == 0 else None)
        return found

    def annotate_component(
        self, component: str, documents: Sequence[Document], encoded: Sequence[EncodedDocument[object]] | None = None
    ) -> list[Document]:
        """Let one component predict; what it does not predict but needs is kept."""
        formulation = self._components[component]
        bare = [_bare(document, keep_concepts=component == "relations") for document in documents]
        context = replace(self._context, task=component)  # type: ignore[arg-type]  # components are named by task
        if encoded is None:
            encoded = formulation.encode(bare, context, targets=False)
        with unshard_heads(self._model):
            outputs = self._outputs(component, encoded)
            transition_scores, remaining = self._model.head(component).get_transition_scores(), iter(outputs)
            found = []
            for document, item in zip(bare, encoded, strict=True):
                own = [next(remaining) for _ in item.examples]
                prediction = Prediction(document, item, own, context, transition_scores)
                self.faults += formulation.count_answer_faults(prediction)
                found.append(formulation.decode(prediction))
        return found

    def _outputs(self, component: str, encoded: Sequence[EncodedDocument[object]]) -> list[HeadOutput]:
        """The outputs of all examples, in their order."""
        model, tokenizer = self._model.eval(), self._context.tokenizer
        device = next(model.parameters()).device
        examples = [example for document in encoded for example in document.examples]
        left = self._components[component].generates
        size = WRITING_BATCH_TOKENS if left else BATCH_TOKENS
        outputs: dict[int, HeadOutput] = {}
        batches = batch_by_length([len(e.input_ids) for e in examples], size)
        # Who has fewer batches than others takes part in theirs with what is at hand.
        others = self._in_step.all_gather((len(batches), examples[:1]))
        turns = max(count for count, _ in others)
        if turns and not batches:
            examples, batches = next(spare for _, spare in others if spare), [[0]]
        with torch.inference_mode(), self._autocast:
            for rows in [*batches, *batches[-1:] * (turns - len(batches))]:
                batch = collate(
                    [examples[i] for i in rows],
                    int(tokenizer.pad_token_id or 0),
                    device,
                    targets=False,
                    component=component,
                    left=left,
                )
                outputs.update(zip(rows, model.predict(batch), strict=True))
        return [outputs[i] for i in range(len(examples))]


def _bare(document: Document, *, keep_concepts: bool) -> Document:
    """A document without annotations, or with its concepts and their entries alone."""
    return Document(
        document.id,
        document.text,
        document.concepts if keep_concepts else (),
        normalizations=document.normalizations if keep_concepts else (),
        sections=document.sections,
        metadata=document.metadata,
    )
