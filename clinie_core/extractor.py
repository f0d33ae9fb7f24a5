"""A trained model in use: text in, concepts out.

An extractor is loaded from a checkpoint together with its backbone, and can write itself out whole,
backbone included, so that a registered model needs nothing else to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clinie_core.backbones import load_model, load_tokenizer, quiet_transformers
from clinie_core.checkpoint import Checkpoint, load_weights, trained_weights
from clinie_core.config import BackboneSource
from clinie_core.document import Document
from clinie_core.model import ExtractionModel, build_model, formulation_of
from clinie_core.prediction import predict_concepts
from clinie_core.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["Extractor"]

BACKBONE = "backbone"


class Extractor:
    """Predicts concepts; see :meth:`load`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        model: ExtractionModel,
        tokenizer: PreTrainedTokenizerFast,
        pristine: PreTrainedModel,
        world: World,
    ) -> None:
        self.checkpoint = checkpoint
        self._model = model
        self._tokenizer = tokenizer
        self._pristine = pristine
        self._world = world

    @classmethod
    def load(cls, folder: Path, *, world: World | None = None) -> Extractor:
        """Load a checkpoint, with the backbone beside it or else from where its configuration says.

        Args:
            folder: A checkpoint, or a whole model that :meth:`save` wrote.
            world: The device to use; CUDA where there is a GPU if left out.

        Raises:
            InputError: If there is no checkpoint, or its backbone is missing.
        """
        world = world or World.current()
        checkpoint = Checkpoint.read(folder)
        source = checkpoint.config.backbone
        if (folder / BACKBONE).is_dir():
            source = BackboneSource(name=source.name, folder=str((folder / BACKBONE).resolve()))
        config = checkpoint.config
        pristine = load_model(source, dropout=config.dropout, seed=config.seed)
        model = build_model(config, checkpoint.labels, pristine)
        load_weights(model, folder)
        return cls(checkpoint, model.to(world.device).eval(), load_tokenizer(source), pristine, world)

    def save(self, folder: Path) -> None:
        """Write checkpoint, tokenizer and backbone weights, all that :meth:`load` needs."""
        names = frozenset(self._pristine.state_dict())
        self.checkpoint.save(folder, trained_weights(self._model, names))
        with quiet_transformers():
            self._pristine.save_pretrained(folder / BACKBONE)
        self._tokenizer.save_pretrained(folder / BACKBONE)

    def predict(self, texts: Sequence[str]) -> list[Document]:
        """Extract the concepts of texts.

        Args:
            texts: Texts of any length.

        Returns:
            For each text a document with concepts; offsets are code points of the text.
        """
        documents = [Document(f"text-{i + 1}", text) for i, text in enumerate(texts)]
        return self.annotate(documents)

    def annotate(self, documents: Sequence[Document]) -> list[Document]:
        """Give documents the predicted concepts in place of their own."""
        config, labels = self.checkpoint.config, self.checkpoint.labels
        formulation = formulation_of(config)
        encoded = formulation.encode(
            documents,
            self._tokenizer,
            labels,
            window_tokens=config.window_tokens,
            overlap=config.window_overlap,
            targets=False,
        )
        predicted = predict_concepts(
            self._model,
            formulation,
            labels,
            encoded,
            pad_id=int(self._tokenizer.pad_token_id or 0),
            autocast=self._world.autocast(config),
        )
        return [
            Document(document.id, document.text, concepts, sections=document.sections, metadata=document.metadata)
            for document, concepts in zip(documents, predicted, strict=True)
        ]
