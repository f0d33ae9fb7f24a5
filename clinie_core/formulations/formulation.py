"""Base class of formulations: encode documents, build a task head, decode its outputs.

A formulation is a frozen value that holds its own parameters. Its module does not import torch, so a search
space is validated quickly; :mod:`clinie_core.heads` is imported when a model is built.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from clinie_core.config import FrozenModel, Task
from clinie_core.data.document import Document
from clinie_core.data.schema import Schema
from clinie_core.encoding.examples import EncodedDocument, Example
from clinie_core.encoding.outputs import HeadOutput, TransitionScores
from clinie_core.formulations.representable import RepresentableCounts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from clinie_core.backbones.facts import Architecture
    from clinie_core.heads import TaskHead

__all__ = ["EncodedDocument", "Example", "Formulation", "InputContext", "Prediction"]

State = TypeVar("State")


@dataclass(frozen=True)
class InputContext:
    """Settings for encoding documents.

    Args:
        tokenizer: Tokenizer of the backbone.
        schema: Types to extract.
        task: Annotations to extract.
        window_tokens: Longest input in tokens, special tokens included.
        overlap: Number of tokens that neighbouring windows share.
        hard_prompt: Whether an encoder's input begins with a description of the task.
        seed: Seed for sampling negative examples in training.
        answer_tokens: Longest generated answer in tokens; None if it is not known.
    """

    tokenizer: PreTrainedTokenizerFast
    schema: Schema
    task: Task
    window_tokens: int
    overlap: int
    hard_prompt: bool = False
    seed: int = 0
    answer_tokens: int | None = None

    @property
    def prompt(self) -> str:
        """Description of the task if ``hard_prompt`` is set, otherwise an empty string."""
        if not self.hard_prompt:
            return ""
        types = self.schema.relation_types if self.task == "relations" else self.schema.concept_types
        return f"find {', '.join(map(self.schema.describe_type, types))}"


@dataclass(frozen=True)
class Prediction(Generic[State]):
    """Outputs of a model for one document, before they are decoded.

    Args:
        document: The document; it has concepts only if relations between them are predicted.
        encoded: Its encoding without targets.
        outputs: One array for each example of ``encoded``, in order.
        context: Settings with which the document was encoded.
        transition_scores: Learned transition scores of the head; None if it has none.
    """

    document: Document
    encoded: EncodedDocument[State]
    outputs: Sequence[HeadOutput]
    context: InputContext
    transition_scores: TransitionScores | None = None


class Formulation(FrozenModel, ABC, Generic[State]):
    """Base class of formulations; every subclass is one row of ``FORMULATIONS``.

    ``State`` is the type of the data that :meth:`encode` passes to :meth:`decode`. Code that works with any
    formulation treats it as ``object``.
    """

    ranges: ClassVar[dict[str, Any]] = {}
    """Default search ranges in the syntax of a space, for a space that says ``{}``."""
    architectures: ClassVar[frozenset[Architecture]] = frozenset({"encoder"})
    """Architectures of backbones that the formulation supports."""
    tasks: ClassVar[frozenset[Task]] = frozenset({"concepts"})
    """Tasks that the formulation supports; with ``joint`` it predicts concepts and relations in one pass."""
    type_conditioned: ClassVar[bool] = False
    """Whether the input contains the names of the types, and the head is independent of them.

    One model then serves several corpora, and types that were not seen in training.
    """
    limiting_parameters: ClassVar[tuple[str, ...] | None] = None
    """Parameters on which :meth:`count_representable` depends; None if the formulation predicts only relations."""
    generates: ClassVar[bool] = False
    """Whether the backbone generates the answer with its language-model head."""

    def find_conflict(self, task: Task) -> str | None:
        """Return the reason why these parameters do not support a task; None if they do.

        Args:
            task: One of :attr:`tasks`.
        """
        return None

    def split_task(self, task: Task) -> tuple[Task, ...]:
        """Return the tasks that are predicted in separate passes, each based on the predictions of the previous."""
        return (task,)

    @abstractmethod
    def encode(
        self, documents: Sequence[Document], context: InputContext, *, targets: bool
    ) -> tuple[EncodedDocument[State], ...]:
        """Convert documents to examples.

        Args:
            documents: The documents. If the task is ``relations``, their concepts are part of the input.
            context: Settings for encoding.
            targets: Whether the examples have gold targets; in training, some negative examples may be omitted.

        Returns:
            One encoded document for each document, in order.
        """

    @abstractmethod
    def build_head(self, hidden_size: int, schema: Schema) -> TaskHead:
        """Build the task head.

        Args:
            hidden_size: Width of the hidden states ``[batch, positions, hidden_size]`` that the head reads.
            schema: Types to extract.
        """

    @abstractmethod
    def decode(self, prediction: Prediction[State]) -> Document:
        """Return the document with predicted annotations that replace its own."""

    def fit_head(self, head: TaskHead, examples: Sequence[Example]) -> None:
        """Set values of the head that depend on the training examples; no-op by default."""
        return

    def limit_answer_tokens(self, examples: Sequence[Example]) -> int | None:
        """Return the longest answer in tokens, given the training examples; None if answers are not generated."""
        return None

    def count_answer_faults(self, prediction: Prediction[State]) -> Counter[str]:
        """Count faults of generated answers: ``answers``, ``malformed``, ``mentions`` and ``hallucinated``."""
        return Counter()

    def count_representable(
        self, documents: Sequence[Document], encoded: Sequence[EncodedDocument[State]], context: InputContext
    ) -> RepresentableCounts | None:
        """Count the gold concepts that the formulation can and cannot express; None if it predicts only relations.

        Args:
            documents: Gold documents.
            encoded: Their encoding.
            context: Settings with which they were encoded.
        """
        return None

    def compute_diagnostics(
        self, documents: Sequence[Document], encoded: Sequence[EncodedDocument[State]], context: InputContext
    ) -> dict[str, float]:
        """Compute further metrics of a split, by name, which do not depend on a model.

        By default ``representable``, the share of the gold concepts that the formulation can express.

        Args:
            documents: Gold documents.
            encoded: Their encoding without targets.
            context: Settings with which they were encoded.
        """
        counts = self.count_representable(documents, encoded, context)
        return {} if counts is None else {"representable": counts.share}
