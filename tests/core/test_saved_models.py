"""Saved models hold the backbone's weights only if training has not replaced them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from clinie_core.config import ComponentChoice, TrialConfig
from clinie_core.data.document import Corpus, Document
from clinie_core.errors import InputError
from clinie_core.inference.extractor import Extractor
from clinie_core.modeling.model_cache import load_backbone
from clinie_core.training.train import train

MakeConfig = Callable[..., TrialConfig]


@pytest.fixture
def save(make_config: MakeConfig, corpus: Corpus, tmp_path: Path) -> Callable[..., tuple[Path, list[Document]]]:
    """Function that trains and saves a model; it returns the folder and predictions."""

    def run(**parameters: object) -> tuple[Path, list[Document]]:
        method = str(parameters.pop("name", "full"))
        finetuning = ComponentChoice(name=method, parameters={"learning_rate": 3e-3, **parameters})
        train(make_config(finetuning=finetuning, epochs=1), corpus, folder=tmp_path)
        extractor = Extractor.load(tmp_path / "best")
        extractor.save(tmp_path / "saved")
        return tmp_path / "saved", extractor.annotate(corpus["dev"])

    return run


def list_weights(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.safetensors"))


def test_a_fully_trained_model_has_each_weight_once(
    save: Callable[..., tuple[Path, list[Document]]], corpus: Corpus, tmp_path: Path
) -> None:
    folder, predicted = save()
    assert list_weights(folder) == ["model.safetensors"]
    loaded = Extractor.load(folder)
    assert loaded.annotate(corpus["dev"]) == predicted
    loaded.save(tmp_path / "again")
    assert list_weights(tmp_path / "again") == ["model.safetensors"]
    assert Extractor.load(tmp_path / "again").annotate(corpus["dev"]) == predicted


@pytest.mark.parametrize(
    "parameters",
    [{"name": "lora", "rank": 4, "alpha_over_rank": 1, "targets": "attention"}, {"frozen_layers": 1}],
    ids=["lora", "frozen layer"],
)
def test_a_model_with_frozen_weights_has_those_of_the_backbone(
    parameters: dict[str, object], save: Callable[..., tuple[Path, list[Document]]], corpus: Corpus
) -> None:
    folder, predicted = save(**parameters)
    assert list_weights(folder) == ["backbone/model.safetensors", "model.safetensors"]
    assert Extractor.load(folder).annotate(corpus["dev"]) == predicted
    (folder / "backbone" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no \*\.safetensors weights|tensors of the model are missing"):
        Extractor.load(folder)


def test_a_fully_trained_model_that_was_saved_with_pretrained_weights_is_loaded(
    save: Callable[..., tuple[Path, list[Document]]], corpus: Corpus, tmp_path: Path
) -> None:
    folder, predicted = save()
    load_backbone(Extractor.load(tmp_path / "best").checkpoint.config).save_pretrained(folder / "backbone")
    assert list_weights(folder) == ["backbone/model.safetensors", "model.safetensors"]
    assert Extractor.load(folder).annotate(corpus["dev"]) == predicted


def test_a_fully_trained_model_without_one_of_its_weights_is_rejected(
    save: Callable[..., tuple[Path, list[Document]]],
) -> None:
    folder, _ = save()
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if name.startswith("backbone.")))
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(InputError, match="1 tensors of the model are missing"):
        Extractor.load(folder)
