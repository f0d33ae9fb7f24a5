"""QLoRA: train, save, load, and predict the same."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clinie_core.config import BackboneSource, ComponentChoice
from clinie_core.data.document import Document
from clinie_core.inference.extractor import Extractor
from clinie_core.training.train import train
from gpu_sections.results import Figure, NotRun
from gpu_sections.setting import ENCODER, ENCODER_SIZES, Setting, generate_corpus

__all__ = ["measure_qlora"]


def measure_qlora(setting: Setting) -> list[Figure]:
    """Train with QLoRA and compare the predictions of the saved model with those of the model loaded first."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise NotRun("bitsandbytes is not installed (pip install 'clinie[qlora]')")
    corpus = generate_corpus(14, dev=3)
    config = setting.configure_encoder(
        batch_size=8,
        epochs=4,
        backbone=BackboneSource(name="encoder", scratch=ENCODER | ENCODER_SIZES["tiny"]),
        finetuning=ComponentChoice(name="qlora", parameters={"rank": 4, "learning_rate": 5e-3}),
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.perf_counter()
        result = train(config, corpus, distributed=setting.distributed, folder=folder)
        seconds = time.perf_counter() - started
        first = Extractor.load(folder / "best", distributed=setting.distributed)
        expected = _predict(first, corpus["dev"])
        first.save(folder / "saved")
        second = Extractor.load(folder / "saved", distributed=setting.distributed)
        found = _predict(second, corpus["dev"])
        annotations = sum(len(document.concepts) for document in second.annotate(corpus["dev"]))
        checkpoint = (folder / "best" / "model.safetensors").stat().st_size
    if not all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True)):
        raise RuntimeError("the loaded model predicts otherwise than the saved one")
    trained = 4 * result.best_metrics["trainable_parameters"]
    return [
        Figure("training", seconds, "s"),
        Figure("predictions after saving and loading", f"equal ({annotations} annotations)"),
        Figure("checkpoint / trained bytes", checkpoint / trained),
    ]


def _predict(extractor: Extractor, documents: Sequence[Document]) -> list[Any]:
    """Return the scores of all labels at all positions, which differ even where no annotation does."""
    predictor = extractor._make_predictor()
    ((component, formulation),) = predictor._components.items()
    encoded = formulation.encode(documents, predictor._context, targets=False)
    return list(predictor._compute_outputs(component, encoded))
