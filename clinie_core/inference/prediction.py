"""Batched prediction: sort examples by length, compute outputs, and decode them for each document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch.distributed.fsdp import FSDPModule

from clinie_core.data.document import Document
from clinie_core.encoding.batch import collate
from clinie_core.encoding.batch_sampling import batch_by_length
from clinie_core.formulations.formulation import Prediction
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.free_memory import measure_free_memory
from clinie_core.modeling.model import ExtractionModel, LanguageModel
from clinie_core.modeling.sharding import fits_gathered, gather_weights, measure_gathered_bytes

if TYPE_CHECKING:
    from clinie_core.encoding.examples import EncodedDocument, Example
    from clinie_core.encoding.outputs import HeadOutput
    from clinie_core.formulations.formulation import Formulation, InputContext

__all__ = ["Predictor"]

BATCH_TOKENS = 4096
CPU_BATCH_TOKENS = 2048
"""Tokens of a batch on a CPU, whose caches do not hold the hidden states of larger batches."""
GENERATION_BATCH_TOKENS = 16_384
"""Tokens of a batch for generation; one step computes one token per row, so large batches cost little more."""
CACHE_MEMORY_SHARE = 0.5
"""Share of the free memory for the keys and values of generated answers; the rest is for activations."""


class Predictor:
    """Prediction with a model on documents.

    Args:
        model: A model on its device; prediction sets it to evaluation mode.
        components: Formulations of the model, in the order in which they predict.
        context: Settings for encoding documents.
        distributed: Processes that share a sharded model. Each computes as many batches as the one with the most,
            because sharded weights are gathered collectively. Default: one process.
    """

    def __init__(
        self,
        model: ExtractionModel,
        components: Mapping[str, Formulation[object]],
        context: InputContext,
        distributed: DistributedContext | None = None,
    ) -> None:
        self._model = model
        self._components = components
        self._context = context
        self._distributed = distributed or DistributedContext()
        self.faults: Counter[str] = Counter()
        """Counts of faults of generated answers so far; see :meth:`Formulation.count_answer_faults`."""
        self.before_batch: Callable[[], None] = lambda: None
        """Called before each batch; an exception that it raises ends the prediction."""

    def annotate(
        self, documents: Sequence[Document], encoded: Sequence[EncodedDocument[object]] | None = None
    ) -> list[Document]:
        """Replace the annotations of documents by predictions.

        A model for ``relations`` predicts relations between the concepts that the documents have.

        Args:
            documents: The documents.
            encoded: Their encoding for the first component without targets, if it is available.
        """
        found = list(documents)
        for number, component in enumerate(self._components):
            found = self.annotate_component(component, found, encoded if number == 0 else None)
        return found

    def annotate_component(
        self, component: str, documents: Sequence[Document], encoded: Sequence[EncodedDocument[object]] | None = None
    ) -> list[Document]:
        """Predict with one component only; annotations that it needs but does not predict are kept.

        Args:
            component: Name of the component.
            documents: The documents.
            encoded: Their encoding for the component without targets, if it is available.
        """
        formulation = self._components[component]
        stripped = [_strip_annotations(document, keep_concepts=component == "relations") for document in documents]
        context = replace(self._context, task=component)  # type: ignore[arg-type]  # components are named by task
        if encoded is None:
            encoded = formulation.encode(stripped, context, targets=False)
        with gather_weights(self._model) if self._can_gather_weights() else nullcontext():
            outputs = self._compute_outputs(component, encoded)
            transition_scores, remaining = self._model.get_head(component).get_transition_scores(), iter(outputs)
            found = []
            for document, item in zip(stripped, encoded, strict=True):
                own = [next(remaining) for _ in item.examples]
                prediction = Prediction(document, item, own, context, transition_scores)
                self.faults += formulation.count_answer_faults(prediction)
                found.append(formulation.decode(prediction))
        return found

    def _can_gather_weights(self) -> bool:
        """Return whether the model is sharded, and all devices can hold all its weights; a collective operation."""
        if not isinstance(self._model, FSDPModule):
            return False
        device, processes = self._distributed.device, self._distributed.size
        # The processes of a machine share the memory of its CPU.
        free = measure_free_memory(device) // (processes if device.type == "cpu" else 1)
        needed = measure_gathered_bytes(self._model, self._model.precision)
        return all(self._distributed.all_gather(fits_gathered(needed, free)))

    def _compute_outputs(self, component: str, encoded: Sequence[EncodedDocument[object]]) -> list[HeadOutput]:
        """Compute the outputs of all examples, in their order."""
        model, tokenizer = self._model.eval(), self._context.tokenizer
        device = next(model.parameters()).device
        examples = [example for document in encoded for example in document.examples]
        left = self._components[component].generates
        outputs: dict[int, HeadOutput] = {}
        batches = self._make_batches(component, examples, device)
        # A process with fewer batches than others repeats its last one, or takes an example of another process.
        others = self._distributed.all_gather((len(batches), examples[:1]))
        turns = max(count for count, _ in others)
        if turns and not batches:
            examples, batches = next(spare for _, spare in others if spare), [[0]]
        # A sharded model cannot train with weights that it has gathered in inference mode.
        mode = torch.no_grad() if isinstance(model, FSDPModule) else torch.inference_mode()
        with self._model.prepare_prediction(), mode:
            for rows in [*batches, *batches[-1:] * (turns - len(batches))]:
                self.before_batch()
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

    def _make_batches(self, component: str, examples: Sequence[Example], device: torch.device) -> list[list[int]]:
        """Return the example indices of each batch; the keys and values of generated answers must fit into memory."""
        lengths = [len(example.input_ids) for example in examples]
        if not isinstance(self._model, LanguageModel):
            return batch_by_length(lengths, CPU_BATCH_TOKENS if device.type == "cpu" else BATCH_TOKENS)
        memory = int(CACHE_MEMORY_SHARE * measure_free_memory(device))
        return batch_by_length(
            lengths,
            GENERATION_BATCH_TOKENS,
            generated=self._model.get_answer_tokens(component),
            cached_tokens=memory // self._model.cache_bytes_per_token,
        )


def _strip_annotations(document: Document, *, keep_concepts: bool) -> Document:
    """Remove annotations from a document, optionally all except concepts and normalizations."""
    return Document(
        document.id,
        document.text,
        document.concepts if keep_concepts else (),
        normalizations=document.normalizations if keep_concepts else (),
        sections=document.sections,
        metadata=document.metadata,
    )
