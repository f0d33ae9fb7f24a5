"""Layer removal: selected layers, and training and inference with the remaining ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clinie_core.backbones.layer_removal import find_layers, remove_layers, select_layers
from clinie_core.backbones.weights import load_model
from clinie_core.config import BackboneSource, TrialConfig
from clinie_core.data.document import Corpus
from clinie_core.inference.extractor import Extractor
from clinie_core.training.train import train


@given(st.integers(1, 48), st.floats(0.01, 1.0), st.sampled_from(["top", "alternate"]))
def test_the_share_and_the_lowest_layer_are_kept(layers: int, share: float, scheme: str) -> None:
    kept = select_layers(layers, share, scheme)  # type: ignore[arg-type]
    assert kept == sorted(set(kept))
    assert kept[0] == 0
    assert max(kept) < layers
    assert share * layers <= len(kept) + 1e-6
    assert len(kept) < share * layers + 1


@pytest.mark.parametrize(
    "kind", ["bert", "roberta", "deberta-v2", "electra", "modernbert", "megatron-bert", "distilbert"]
)
def test_layers_of_common_encoders_can_be_removed(kind: str) -> None:
    backbone = load_model(BackboneSource(name=kind, scratch=encoder(kind)))
    ids = torch.tensor([[5, 6, 7, 8]])
    remove_layers(backbone, 0.5, "alternate")
    assert len(find_layers(backbone)[1]) == 2
    hidden = backbone(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    assert hidden.shape == (1, 4, 32)


def encoder(kind: str) -> dict[str, object]:
    common: dict[str, object] = {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "pad_token_id": 0,
    }
    if kind == "distilbert":
        return {"model_type": kind, "dim": 32, "n_layers": 4, "n_heads": 2, "hidden_dim": 64}
    return {"model_type": kind, "num_hidden_layers": 4, **common}


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "mistral", "gemma2", "gpt_neox"])
def test_a_decoder_with_removed_layers_uses_its_cache(kind: str) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 2}
    sizes["intermediate_size"] = 64
    source = BackboneSource(name=kind, scratch={"model_type": kind, "initializer_range": 0.4, **sizes})
    backbone = load_model(source, generates=True, seed=1).eval()
    remove_layers(backbone, 0.5, "alternate")
    ids = torch.tensor([[5, 6, 7, 8]])
    generated = [
        backbone.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, use_cache=cached)
        for cached in (True, False)
    ]
    assert torch.equal(*generated)


def test_a_model_with_removed_layers_is_trained_saved_and_loaded(
    make_config: Callable[..., TrialConfig], corpus: Corpus, tmp_path: Path
) -> None:
    train(make_config(layers_kept=0.5, depth_scheme="alternate", epochs=1), corpus, folder=tmp_path)
    extractor = Extractor.load(tmp_path / "best")
    assert len(find_layers(extractor._model.backbone)[1]) == 1
    extractor.save(tmp_path / "whole")
    assert Extractor.load(tmp_path / "whole").annotate(corpus["dev"]) == extractor.annotate(corpus["dev"])
