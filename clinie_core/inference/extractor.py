"""Trained models for inference: from text to annotations.

An extractor is loaded from a checkpoint and its backbone. It can be saved with the backbone, so that a registered
model has no external dependencies. If training has replaced all weights of the backbone, only its configuration and
tokenizer are saved with the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinie_core.backbones.integrity import check_backbone, pin_weights
from clinie_core.backbones.tokenizer import load_tokenizer
from clinie_core.backbones.transformers_logging import quiet_transformers
from clinie_core.config import BackboneSource, ComponentChoice, Task
from clinie_core.data.corpora.views import apply_view
from clinie_core.data.document import Corpus, Document
from clinie_core.data.schema import Schema
from clinie_core.errors import fail
from clinie_core.formulations import build_components
from clinie_core.formulations.input_context import build_input_context
from clinie_core.inference.prediction import Predictor
from clinie_core.modeling.backbone_copies import prepare_backbone
from clinie_core.modeling.checkpoint import Checkpoint, is_fully_trained, load_weights, select_trained_weights
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.model import ExtractionModel, build_model, load_finetuning, merge_backbone
from clinie_core.modeling.model_cache import load_backbone
from clinie_core.modeling.precision import convert_linear_weights, detect_precision
from clinie_core.modeling.weight_file import GatheredTensors
from clinie_core.scoring import DEFAULT_SCORER, TaskScores, score_task

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["Extractor", "annotations_to_json"]

BACKBONE = "backbone"


def annotations_to_json(document: Document) -> dict[str, list[dict[str, Any]]]:
    """Convert the annotations of a document to JSON without its text.

    Returns:
        ``concepts`` with id, type and offsets (code points, half-open), and ``relations`` between them by id;
        ``entity_relations`` between terminology entries only if there are any.
    """
    concepts = [{"id": c.id, "type": c.type, "start": c.start, "end": c.end} for c in document.concepts]
    relations = [{"type": r.type, "head": r.head, "tail": r.tail} for r in document.relations]
    stated = [{"type": r.type, "head": r.head, "tail": r.tail} for r in document.entity_relations]
    found: dict[str, list[dict[str, Any]]] = {"concepts": concepts, "relations": relations}
    if stated:
        found["entity_relations"] = stated
    return found


class Extractor:
    """Trained model that annotates texts; see :meth:`load`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        model: ExtractionModel,
        tokenizer: PreTrainedTokenizerFast,
        base: PreTrainedModel | PretrainedConfig,
        distributed: DistributedContext,
    ) -> None:
        self.checkpoint = checkpoint
        self._model = model
        self._tokenizer = tokenizer
        self._base = base
        self._distributed = distributed
        self._is_converted = False

    @classmethod
    def load(cls, folder: Path, *, distributed: DistributedContext | None = None) -> Extractor:
        """Load a checkpoint and its backbone.

        The backbone is loaded from the checkpoint's folder if it is there, otherwise from its configured source.

        Args:
            folder: A checkpoint, or a model that :meth:`save` wrote.
            distributed: Distributed context with the device; by default CUDA if there is a GPU.

        Raises:
            InputError: If the checkpoint or its backbone is missing, or a pinned file was changed.
        """
        distributed = distributed or DistributedContext.current()
        checkpoint = Checkpoint.read(folder)
        source, config = checkpoint.config.backbone, checkpoint.config
        method, own = load_finetuning(config), folder / BACKBONE
        complete = False
        if own.is_dir():
            source = BackboneSource(name=source.name, folder=str(own.resolve()))
            complete = not any(own.glob("*.safetensors"))
            if complete and method.needs_pretrained_weights:
                fail(str(own), "no *.safetensors weights", remedy="register the model again")
        elif source.sha256:
            check_backbone(source, str(folder))  # other weights under the same name would predict otherwise
        pretrained = load_backbone(config.model_copy(update={"backbone": source}), empty=complete)
        backbone, device = pretrained, distributed.device
        precision = detect_precision(config.precision, device)
        if method.freezes_backbone:
            backbone = prepare_backbone(pretrained, method, device, precision.dtype)
        model = build_model(config, checkpoint.schema, backbone, device=device, precision=precision)
        load_weights(model, folder, complete=complete)
        replaced = not method.needs_pretrained_weights and is_fully_trained(model)
        base = pretrained.config if replaced else pretrained
        return cls(checkpoint, model.eval(), load_tokenizer(source), base, distributed)

    def convert_weights(self) -> None:
        """Convert the weights of a fully fine-tuned encoder once instead of in each prediction.

        Predictions are the same and need less time; the effect is largest for single short texts. The extractor cannot
        be saved or merged afterwards.
        """
        precision, config = self._model.precision, self.checkpoint.config
        generates = any(formulation.generates for formulation in build_components(config).values())
        if precision.is_reduced and not generates and not load_finetuning(config).freezes_backbone:
            convert_linear_weights(self._model.backbone, precision.dtype)
            self._is_converted = True

    def save(self, folder: Path) -> None:
        """Write the checkpoint, the tokenizer, and the backbone without weights that training has replaced.

        Args:
            folder: The folder to write; :meth:`load` needs nothing else.
        """
        self.checkpoint.save(folder, self._list_trained_weights())
        with quiet_transformers():
            self._base.save_pretrained(folder / BACKBONE)
        self._tokenizer.save_pretrained(folder / BACKBONE)

    def save_pinned(self, folder: Path) -> None:
        """Write the checkpoint with the backbone pinned by name, commit and sha256; :meth:`load` verifies these.

        Args:
            folder: The folder to write.

        Raises:
            InputError: If the backbone is randomly initialized.
        """
        held = self.checkpoint.config.model_copy(update={"backbone": pin_weights(self.checkpoint.config.backbone)})
        replace(self.checkpoint, config=held).save(folder, self._list_trained_weights())

    def _list_trained_weights(self) -> GatheredTensors:
        assert not self._is_converted, "the weights have lost digits"
        return GatheredTensors(select_trained_weights(self._model), DistributedContext())

    def merge_adapter(self) -> Extractor:
        """Return the same model with the trained weights merged into the backbone's own weights.

        The order of floating-point operations changes, so scores may differ in the last digits.

        Raises:
            InputError: If the method adds weights that cannot be merged, such as a soft prompt.
        """
        assert not self._is_converted, "the weights have lost digits"
        config = self.checkpoint.config
        plain = merge_backbone(self._model, load_finetuning(config), config.finetuning.name)
        rate = config.finetuning.parameters["learning_rate"]
        whole = config.model_copy(
            update={
                "finetuning": ComponentChoice(name="head_only", parameters={"learning_rate": rate}),
                "layers_kept": 1.0,
            }
        )
        device, precision = self._distributed.device, self._model.precision
        model = build_model(whole, self.checkpoint.schema, plain, device=device, precision=precision)
        model.heads.load_state_dict(self._model.heads.state_dict())
        checkpoint = replace(self.checkpoint, config=whole)
        return Extractor(checkpoint, model.eval(), self._tokenizer, plain, self._distributed)

    def __call__(self, text: str) -> Document:
        """Annotate one text; see :meth:`predict`."""
        return self.predict([text])[0]

    @property
    def task(self) -> Task:
        """Task of the model; a model for ``relations`` needs documents with concepts."""
        return self.checkpoint.config.task

    def predict(self, texts: Sequence[str]) -> list[Document]:
        """Annotate texts.

        Args:
            texts: Texts of any length.

        Returns:
            A document with the predicted annotations for each text; offsets are code points of the text.
        """
        documents = [Document(f"text-{i + 1}", text) for i, text in enumerate(texts)]
        return self.annotate(documents)

    def annotate(self, documents: Sequence[Document]) -> list[Document]:
        """Replace the annotations of documents by predictions.

        A model for ``relations`` predicts relations between the concepts that the documents have.

        Args:
            documents: The documents.

        Returns:
            New documents in the same order.
        """
        return self._make_predictor().annotate(documents)

    def annotate_pairs(self, documents: Sequence[Document]) -> list[tuple[Document, Document]]:
        """Predict annotated documents.

        Args:
            documents: Annotated documents; the view of the model's corpus is applied to them.

        Returns:
            For each document its gold and its predicted version.
        """
        gold = self._apply_view(documents)
        return list(zip(gold, self.annotate(gold), strict=True))

    def _apply_view(self, documents: Sequence[Document]) -> tuple[Document, ...]:
        (viewed,) = apply_view(Corpus({"all": tuple(documents)}), self.checkpoint.config.view).splits.values()
        return viewed

    def score(
        self, documents: Sequence[Document], schema: Schema | None = None, scorer: str = DEFAULT_SCORER
    ) -> TaskScores:
        """Score predictions against the annotations of documents.

        Args:
            documents: Annotated documents; the view of the model's corpus is applied to them.
            schema: Types to predict instead of those seen in training; only for a type-conditioned model.
            scorer: How to count; one of :data:`~clinie_core.scoring.scorers.SCORERS`.
        """
        config = self.checkpoint.config
        _, *further = build_components(config)
        gold = self._apply_view(documents)
        predictor = self._make_predictor(schema)
        found = predictor.annotate(gold)
        given = None
        for component in further:
            given = list(zip(gold, predictor.annotate_component(component, gold), strict=True))
        return score_task(config.task, list(zip(gold, found, strict=True)), given, scorer)

    def _make_predictor(self, schema: Schema | None = None) -> Predictor:
        config = self.checkpoint.config
        context = build_input_context(config, self._tokenizer, schema or self.checkpoint.schema)
        return Predictor(self._model, build_components(config), context)
