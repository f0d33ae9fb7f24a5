"""Pickled weights are converted to equal safetensors, and code in them is not executed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from clinie_core.backbones.pickle_conversion import convert_pickled_model
from clinie_core.backbones.weights import load_model
from clinie_core.config import BackboneSource
from clinie_core.errors import InputError


class Malicious:
    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._file}",)


@pytest.mark.parametrize("shards", [1, 2])
def test_converted_weights_are_equal(tmp_path: Path, shards: int) -> None:
    folder, output = tmp_path / "bin", tmp_path / "out"
    folder.mkdir()
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    model = BertForMaskedLM(BertConfig(vocab_size=32, num_attention_heads=2, **sizes))
    model.config.save_pretrained(folder)
    (folder / "vocab.txt").write_text("[PAD]\n")
    state = model.state_dict()  # has tied embeddings
    names = sorted(state)
    for number in range(shards):
        part = {name: state[name] for name in names[number::shards]}
        suffix = f"-0000{number + 1}-of-0000{shards}" if shards > 1 else ""
        torch.save(part, folder / f"pytorch_model{suffix}.bin")
    files = convert_pickled_model(str(folder), output)
    assert {"config.json", "vocab.txt"} <= set(files)
    assert ("model.safetensors.index.json" in files) == (shards > 1)
    loaded = load_model(BackboneSource(name="out", folder=str(output))).state_dict()
    assert all(torch.equal(tensor.float(), state[f"bert.{name}"]) for name, tensor in loaded.items())
    with pytest.raises(InputError, match="exists and is not empty"):
        convert_pickled_model(str(folder), output)


@pytest.mark.parametrize("is_code", [True, False], ids=["code", "nested"])
def test_other_objects_than_tensors_are_refused_in_one_line(tmp_path: Path, is_code: bool) -> None:
    (tmp_path / "config.json").write_text(json.dumps({}))
    content = Malicious(tmp_path / "executed") if is_code else {"state_dict": {"a": torch.zeros(1)}}
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError) as caught:
        convert_pickled_model(str(tmp_path), tmp_path / "out")
    assert "the weights contain code or other objects than tensors" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "out" / "model.safetensors").exists()
