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

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from clinie_core.backbones.facts import Architecture
    from clinie_core.heads import TaskHead

__all__ = ["EncodedDocument", "Example", "Formulation", "InputContext", "Prediction"]

State = TypeVar("State")


@dataclass(frozen=True)
class InputContext:
    """What documents are encoded for.

    Args:
        tokenizer: The backbone's.
        schema: What there is to extract.
        task: What is extracted.
        window_tokens: Longest input in tokens, special tokens included.
        overlap: Tokens that neighbouring windows share.
        hard_prompt: Whether an encoder's input begins with the task in words.
        seed: Draws the negatives of training.
    """

    tokenizer: PreTrainedTokenizerFast
    schema: Schema
    task: Task
    window_tokens: int
    overlap: int
    hard_prompt: bool = False
    seed: int = 0

    @property
    def prompt(self) -> str:
        """The task in words, where the configuration asks for it; else nothing."""
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
    """Shipped search ranges, as a space writes them, for a space that says ``{}``."""
    architectures: ClassVar[frozenset[Architecture]] = frozenset({"encoder"})
    """Which kinds of backbone carry it."""
    tasks: ClassVar[frozenset[Task]] = frozenset({"concepts"})
    """What it extracts; one with ``joint`` does so alone, in one pass."""
    type_conditioned: ClassVar[bool] = False
    """Whether types stand in words in the input and the head knows none: one model then serves several
    corpora, and types that training never saw."""
    generates: ClassVar[bool] = False
    """Whether the backbone keeps its language-model head and writes the answer."""

    def find_conflict(self, task: Task) -> str | None:
        """Why these parameters cannot carry a task of :attr:`tasks`; None if they can."""
        return None

    def split_task(self, task: Task) -> tuple[Task, ...]:
        """The parts of a task that are asked for one after the other, each on what the one before it found."""
        return (task,)

    @abstractmethod
    def encode(
        self, documents: Sequence[Document], context: InputContext, *, targets: bool
    ) -> tuple[EncodedDocument[State], ...]:
        """Turn documents into examples, with gold targets or without.

        Where relations are sought, the documents' own concepts are taken as given.
        """

    @abstractmethod
    def build_head(self, hidden_size: int, schema: Schema) -> TaskHead:
        """Build the task head for hidden states ``[batch, positions, hidden_size]``."""

    @abstractmethod
    def decode(self, prediction: Prediction[State]) -> Document:
        """Return the document with the predicted annotations in place of its own."""

    def fit_head(self, head: TaskHead, examples: Sequence[Example]) -> None:
        """Take from the training examples what a head has to know beside its weights."""
        return

    def count_answer_faults(self, prediction: Prediction[State]) -> Counter[str]:
        """Count faults of generated answers: ``answers``, ``malformed``, ``mentions`` and ``hallucinated``."""
        return Counter()

    def compute_diagnostics(
        self, documents: Sequence[Document], encoded: Sequence[EncodedDocument[State]]
    ) -> dict[str, float]:
        """Further metrics of a split, by name, from its gold documents and their encoding without targets."""
        return {}
