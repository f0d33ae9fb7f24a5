"""Generation settings of a published model do not change the answers of a trained one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clinie_core.backbones.tokenizer import load_tokenizer
from clinie_core.backbones.weights import load_model
from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.document import Corpus
from clinie_core.encoding.batch import collate
from clinie_core.encoding.examples import Example
from clinie_core.heads import LanguageHead
from clinie_core.inference.extractor import Extractor
from clinie_core.modeling.model import LanguageModel
from clinie_core.training.train import train

LLAMA = {
    **{"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"intermediate_size": 64, "max_position_embeddings": 1200, "initializer_range": 0.5},
}
SETTINGS: dict[str, Any] = {
    "bad_words_ids": [[token] for token in range(10, 250)],
    "begin_suppress_tokens": list(range(10, 250)),
    "encoder_repetition_penalty": 3.0,
    "exponential_decay_length_penalty": [1, 3.0],
    "guidance_scale": 4.0,
    "max_time": 1e-6,
    "min_new_tokens": 30,
    "no_repeat_ngram_size": 1,
    "penalty_alpha": 0.6,
    "repetition_penalty": 5.0,
    "return_dict_in_generate": True,
    "sequence_bias": [[[token], -100.0] for token in range(10, 250)],
    "stop_strings": ["a"],
    "suppress_tokens": list(range(10, 200)),
}
"""Each setting changes the tokens that the model below generates, or the type of the result."""


@pytest.fixture
def plain(tmp_path: Path) -> BackboneSource:
    """A decoder in a folder, without generation settings."""
    scratch = BackboneSource(name="writer", scratch=LLAMA)
    load_model(scratch, generates=True, seed=3).save_pretrained(tmp_path / "plain")
    load_tokenizer(scratch).save_pretrained(tmp_path / "plain")
    return BackboneSource(name="writer", folder=str(tmp_path / "plain"))


def publish_settings(plain: BackboneSource, *, file: str = "generation_config.json", **settings: object) -> None:
    """Add generation settings to the files of a model."""
    path = Path(str(plain.folder)) / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def generate(source: BackboneSource) -> list[list[int]]:
    head = LanguageHead()
    head.set_budget(12, 2)
    model = LanguageModel(load_model(source, generates=True), {"concepts": head}).eval()
    rows = [Example((5, 6, 7, 8, 9, 10), ()), Example((20, 21, 22), ())]
    batch = collate(rows, 0, torch.device("cpu"), targets=False, component="concepts", left=True)
    with torch.inference_mode():
        return [np.asarray(row).tolist() for row in model.predict(batch)]


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_published_setting_does_not_change_the_generated_tokens(plain: BackboneSource, name: str) -> None:
    expected = generate(plain)
    publish_settings(plain, **{name: SETTINGS[name]})
    assert generate(plain) == expected


def test_settings_in_the_configuration_file_of_an_old_model_are_removed(plain: BackboneSource) -> None:
    expected = generate(plain)
    (Path(str(plain.folder)) / "generation_config.json").unlink()
    publish_settings(plain, file="config.json", repetition_penalty=5.0, no_repeat_ngram_size=1)
    assert generate(plain) == expected


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_model_with_hostile_settings_predicts_the_same_after_it_is_saved(
    method: str, plain: BackboneSource, make_config: Callable[..., TrialConfig], corpus: Corpus, tmp_path: Path
) -> None:
    few = Corpus({"train": corpus["train"][:3], "dev": corpus["dev"][:1]})
    config = make_config(
        backbone=plain,
        formulation=ComponentChoice(name="generation", parameters={"template": "json", "instruction": "short"}),
        finetuning=ComponentChoice(name=method, parameters={"learning_rate": 3e-3}),
        window_tokens=500,
        epochs=1,
    )
    train(config, few, folder=tmp_path / "trial")
    texts = [document.text for document in corpus["dev"][:2]]
    expected = Extractor.load(tmp_path / "trial" / "best").predict(texts)
    publish_settings(plain, **SETTINGS)
    extractor = Extractor.load(tmp_path / "trial" / "best")
    assert extractor.predict(texts) == expected
    extractor.save(tmp_path / "whole")
    shutil.rmtree(str(plain.folder))
    assert Extractor.load(tmp_path / "whole").predict(texts) == expected
    files = list((tmp_path / "whole" / "backbone").glob("*config.json"))
    assert files
    for file in files:
        assert not set(SETTINGS) & {name for name, value in json.loads(file.read_text()).items() if value}
