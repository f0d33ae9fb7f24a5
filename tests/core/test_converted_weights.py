"""Weights that are converted once for predictions: the same predictions, and no way to save them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clinie_core.config import ComponentChoice, TrialConfig
from clinie_core.data.document import Corpus
from clinie_core.inference.extractor import Extractor
from clinie_core.training.train import train


def load(config: TrialConfig, corpus: Corpus, folder: Path) -> Extractor:
    few = Corpus({"train": corpus["train"][:8], "dev": corpus["dev"][:1]})
    train(config, few, folder=folder)
    return Extractor.load(folder / "best")


@pytest.mark.integration
def test_a_fully_fine_tuned_encoder_predicts_the_same_with_converted_weights(
    make_config: Callable[..., TrialConfig], corpus: Corpus, tmp_path: Path
) -> None:
    extractor = load(make_config(precision="bfloat16", epochs=1), corpus, tmp_path)
    texts = [document.text for document in corpus["test"]]
    expected = extractor.predict(texts), [extractor(text) for text in texts[:3]]
    extractor.convert_weights()
    layers = [m for m in extractor._model.backbone.modules() if type(m) is torch.nn.Linear]
    assert {layer.weight.dtype for layer in layers} == {torch.bfloat16}
    assert (extractor.predict(texts), [extractor(text) for text in texts[:3]]) == expected
    with pytest.raises(AssertionError, match="lost digits"):
        extractor.save(tmp_path / "saved")
    with pytest.raises(AssertionError, match="lost digits"):
        extractor.merge_adapter()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("precision", "method"), [("float32", "full"), ("bfloat16", "lora")], ids=["float32", "frozen backbone"]
)
def test_other_weights_are_not_changed(
    precision: str, method: str, make_config: Callable[..., TrialConfig], corpus: Corpus, tmp_path: Path
) -> None:
    finetuning = ComponentChoice(name=method, parameters={"learning_rate": 3e-3})
    extractor = load(make_config(precision=precision, finetuning=finetuning, epochs=1), corpus, tmp_path)
    before = {name: tensor.dtype for name, tensor in extractor._model.state_dict().items()}
    extractor.convert_weights()
    assert {name: tensor.dtype for name, tensor in extractor._model.state_dict().items()} == before
    extractor.save(tmp_path / "saved")
