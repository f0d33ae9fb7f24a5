"""Methods with weights that are computed instead of stored: PiSSA's first factors and VeRA's projections."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.document import Corpus
from clinie_core.data.schema import Schema
from clinie_core.errors import InputError
from clinie_core.inference.extractor import Extractor
from clinie_core.modeling.model import ExtractionModel, build_model
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.modeling.precision import Precision
from clinie_core.training.train import train

MakeConfig = Callable[..., TrialConfig]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SCRATCH = {
    "bert": SIZES,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},  # transposed weights
    "llama": {**SIZES, "num_key_value_heads": 1},  # keys and values of 16 columns, fewer than the rank
}
SCHEMA = Schema(concept_types=("A",))


def choose(name: str, **parameters: float) -> ComponentChoice:
    return ComponentChoice(name=name, parameters={"learning_rate": 1e-3, **parameters})


def compute_states(model: ExtractionModel) -> Tensor:
    with torch.no_grad():
        states: Tensor = model.eval().backbone(input_ids=torch.arange(1, 13).unsqueeze(0)).last_hidden_state
    return states


@pytest.mark.parametrize("kind", SCRATCH)
def test_pissa_starts_from_the_pretrained_model_and_its_principal_vectors(make_config: MakeConfig, kind: str) -> None:
    source = BackboneSource(name=kind, scratch={"model_type": kind, **SCRATCH[kind]})
    parameters = {"rank": 24, "alpha_over_rank": 0.5, "mlp_rank_factor": 0.5}
    config, cache = make_config(backbone=source, finetuning=choose("pissa", **parameters)), ModelCache()
    pretrained = cache.get_backbone(config)
    models = [build_model(config.model_copy(update={"seed": seed}), SCHEMA, pretrained) for seed in (1, 2)]
    untouched = build_model(make_config(backbone=source, finetuning=choose("head_only")), SCHEMA, pretrained)
    torch.testing.assert_close(compute_states(models[0]), compute_states(untouched), rtol=0, atol=1e-4)
    shared = [{p.data_ptr() for n, p in m.named_parameters() if n in m.pretrained_names} for m in models]
    assert shared[0] == shared[1] == {p.data_ptr() for p in pretrained.parameters()}
    layers = [[m for m in model.modules() if hasattr(m, "lora_A")] for model in models]
    for first, second in zip(*layers, strict=True):
        (base, a, b), other = (
            (layer.get_base_layer(), layer.lora_A["default"].weight, layer.lora_B["default"].weight)
            for layer in (first, second)
        )
        assert torch.equal(a, other[1]), "the factors do not depend on the seed"
        weight = base.weight if isinstance(base, torch.nn.Linear) else base.weight.T
        values = torch.linalg.svdvals(weight)
        best = torch.linalg.vector_norm(values[len(a) :])
        found = torch.linalg.matrix_norm(weight - first.scaling["default"] * b @ a)
        assert found <= 1.1 * best + 1e-4
        assert not first.lora_A["initial"].weight.requires_grad


def test_pissa_computes_its_factors_once_per_backbone_rank_and_targets(make_config: MakeConfig) -> None:
    cache = ModelCache()

    def prepare(**parameters: float | str) -> int:
        finetuning = ComponentChoice(name="pissa", parameters={"learning_rate": 1e-3, **parameters})
        return id(cache.get_backbone(make_config(finetuning=finetuning)))

    first = prepare(rank=4)
    assert prepare(rank=4, learning_rate=1e-2, alpha_over_rank=1, layers_from=0.5, lora_dropout=0.1) == first
    assert len({first, prepare(rank=8), prepare(rank=4, targets="attention")}) == 3


@pytest.mark.parametrize("method", ["pissa", "qlora", "vera"])
def test_frozen_weights_of_a_method_have_the_dtype_of_the_computation(make_config: MakeConfig, method: str) -> None:
    if method == "qlora":
        pytest.importorskip("bitsandbytes")
    source = BackboneSource(name="llama", scratch={"model_type": "llama", **SCRATCH["llama"]})
    generation = ComponentChoice(name="generation", parameters={"instruction": "short"})
    config = make_config(backbone=source, formulation=generation, finetuning=choose(method, rank=4))
    pretrained = ModelCache().get_backbone(config, frozen_dtype=torch.bfloat16)
    model = build_model(config, SCHEMA, pretrained, precision=Precision(torch.bfloat16))
    tensors = [*model.named_parameters(), *model.named_buffers()]
    frozen = [t for name, t in tensors if not t.requires_grad and t.ndim > 1 and "inv_freq" not in name]
    assert {t.dtype for t in frozen} <= {torch.bfloat16, torch.uint8}
    ids = torch.arange(1, 9).unsqueeze(0)
    with model.autocast():
        model.backbone(input_ids=ids).logits.float().square().mean().backward()
    assert all(p.grad is not None for p in model.backbone.parameters() if p.requires_grad)
    with torch.inference_mode(), model.prepare_prediction():
        assert model.backbone.generate(input_ids=ids, max_new_tokens=2).shape[1] > 8  # type: ignore[operator]


@pytest.mark.integration
def test_a_vera_checkpoint_of_other_projections_is_rejected(
    make_config: MakeConfig, corpus: Corpus, tmp_path: Path
) -> None:
    train(make_config(finetuning=choose("vera", rank=8), epochs=1), corpus, folder=tmp_path)
    Extractor.load(tmp_path / "best")
    file = tmp_path / "best" / "model.safetensors"
    weights = load_file(file)
    weights["backbone.projection_sample"] = -weights["backbone.projection_sample"]
    save_file(weights, file)
    with pytest.raises(InputError, match="trained with other random projections; use the versions of torch and peft"):
        Extractor.load(tmp_path / "best")
