"""Backbones are loaded once, memory-mapped in their own dtype, shared between trials, and dropped beyond a limit."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from clinie_core.backbones.dropout import set_dropout
from clinie_core.backbones.weights import initialize_model, load_config, load_model
from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.encoding.batch import collate
from clinie_core.encoding.examples import Example
from clinie_core.modeling.model import ExtractionModel, build_model
from clinie_core.modeling.model_cache import ModelCache, compute_cache_limit

MakeConfig = Callable[..., TrialConfig]
SCHEMA = Schema(concept_types=("A",))
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": SIZES,
    "roberta": SIZES,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "electra": SIZES | {"embedding_size": 32},
    "deberta-v2": SIZES,
    "longformer": SIZES | {"attention_window": 16},
    "modernbert": SIZES | dict.fromkeys(("pad_token_id", "cls_token_id", "sep_token_id"), 0),
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "gpt_neox": SIZES,
    "llama": SIZES,
    "mistral": SIZES | {"num_key_value_heads": 1},
    "qwen2": SIZES | {"num_key_value_heads": 1},
}


def choose(name: str, **parameters: Any) -> ComponentChoice:
    return ComponentChoice(name=name, parameters={"learning_rate": 1e-3, **parameters})


def build(config: TrialConfig, cache: ModelCache) -> ExtractionModel:
    return build_model(config, SCHEMA, cache.get_backbone(config))


def addresses(model: ExtractionModel) -> set[int]:
    return {p.data_ptr() for name, p in model.named_parameters() if name in model.pretrained_names}


def read_floats(model: torch.nn.Module) -> dict[tuple[str, str], float]:
    """Return all attributes of a model's modules that are floating-point numbers."""
    return {
        (path, name): value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, float)
    }


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_dropout_set_after_loading_equals_dropout_of_the_configuration(kind: str) -> None:
    source = BackboneSource(name=kind, scratch={"model_type": kind, **ARCHITECTURES[kind]})
    changed = initialize_model(load_config(source), generates=False)
    before = read_floats(changed)
    set_dropout(changed, 0.375)
    expected = read_floats(initialize_model(changed.config, generates=False))
    assert read_floats(changed) == expected != before


def test_one_loaded_backbone_serves_trials_with_different_dropout(make_config: MakeConfig) -> None:
    cache = ModelCache()
    example = Example(tuple(range(2, 12)), positions=tuple(range(10)))
    batch = collate([example], 0, torch.device("cpu"), targets=False, component="concepts")
    for method in ("lora", "full"):
        configs = {p: make_config(finetuning=choose(method), dropout=p) for p in (None, 0.0, 0.5)}
        assert len({id(cache.get_backbone(config)) for config in configs.values()}) == 1
        varies = {}
        for probability, config in configs.items():
            backbone = build(config, cache).train()
            outputs = [backbone._compute_hidden_states(batch) for _ in range(2)]
            varies[probability] = not torch.equal(*outputs)
        assert varies == {None: True, 0.0: False, 0.5: True}  # the pretrained value is 0.1


def test_trials_that_freeze_the_backbone_share_its_memory(make_config: MakeConfig) -> None:
    cache = ModelCache()
    frozen = [build(make_config(finetuning=choose(name)), cache) for name in ("lora", "ia3", "bottleneck", "head_only")]
    shared = set.intersection(*(addresses(model) for model in frozen))
    assert len(shared) == len(addresses(frozen[0])) > 20
    trained = build(make_config(finetuning=choose("full")), cache)
    assert not addresses(trained) & shared


def test_the_cached_bytes_have_a_limit(make_config: MakeConfig) -> None:
    source = make_config().backbone
    one = sum(t.numel() * t.element_size() for t in load_model(source).state_dict().values())
    cache = ModelCache(max_bytes=3 * one)
    for seed in range(6):
        config = make_config(seed=seed, finetuning=choose("lora"))
        kept = cache.get_backbone(config)
        assert cache.measure_bytes() <= 3 * one
        assert cache.get_backbone(config) is kept
    assert cache.measure_bytes() > one
    tight = ModelCache(max_bytes=1)
    assert tight.get_backbone(config) is tight.get_backbone(config), "the entry in use is kept"
    assert tight.measure_bytes() < 1.1 * one
    assert 0 < compute_cache_limit(8) < compute_cache_limit()


class CpuAllocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Largest tensor, in elements, that operations create on the CPU."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        is_new = isinstance(result, torch.Tensor) and func is not torch.ops.aten.detach.default
        if is_new and result.device.type == "cpu":
            self.largest = max(self.largest, result.numel())
        return result


@pytest.mark.parametrize("method", ["full", "lora"])
def test_weights_are_copied_straight_to_the_device_of_the_trial(make_config: MakeConfig, method: str) -> None:
    cache, device = ModelCache(), torch.device("meta")  # in the place of a GPU
    config = make_config(finetuning=choose(method))
    cache.get_backbone(config)
    with CpuAllocations() as created:  # type: ignore[no-untyped-call]
        model = build_model(config, SCHEMA, cache.get_backbone(config, device), device=device)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert created.largest < max(p.numel() for p in model.parameters())


def test_a_frozen_backbone_stays_on_the_device_until_a_trial_does_not_use_it(make_config: MakeConfig) -> None:
    cache, device = ModelCache(), torch.device("meta")  # in the place of a GPU
    held = cache.get_backbone(make_config(finetuning=choose("lora")), device)
    assert cache.get_backbone(make_config(finetuning=choose("ia3"), dropout=0.2), device) is held
    released = weakref.ref(held.embeddings.word_embeddings.weight)
    del held
    gc.collect()
    assert released() is not None
    cache.get_backbone(make_config(finetuning=choose("full")), device)
    gc.collect()
    assert released() is None


LOAD = """
import json, sys
from pathlib import Path
import torch
from clinie_core.config import TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.modeling.model import build_model
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.modeling.precision import Precision

def measure():  # pages that belong to this process alone, unlike those of mapped files
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}["Anonymous"]

def build(config):
    pretrained = cache.get_backbone(config, frozen_dtype=dtype)
    model = build_model(config, Schema(concept_types=("A",)), pretrained, precision=Precision(dtype))
    with torch.no_grad(), model.autocast():
        model.backbone(input_ids=torch.arange(5, 25).unsqueeze(0)) # reads every layer
    return model

cache, dtype = ModelCache(), torch.bfloat16
small, large = map(TrialConfig.model_validate_json, sys.argv[1:])
build(small)
before = measure()
model = build(large)
frozen = [p for n, p in model.named_parameters() if n in model.pretrained_names]
print(json.dumps([measure() - before, sum(p.numel() * p.element_size() for p in frozen)]))
"""


@pytest.mark.integration
def test_a_process_shares_the_memory_of_the_weight_files(make_config: MakeConfig, tmp_path: Path) -> None:
    configs = []
    for name, width in (("small", 64), ("large", 512)):
        sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 8, "num_attention_heads": 8}
        source = BackboneSource(name=name, scratch={"model_type": "bert", "vocab_size": 30_000, **sizes})
        load_model(source).to(torch.bfloat16).save_pretrained(tmp_path / name)
        saved = BackboneSource(name=name, folder=str(tmp_path / name))
        configs.append(make_config(backbone=saved, finetuning=choose("lora", rank=2)).model_dump_json())
    process = subprocess.run([sys.executable, "-c", LOAD, *configs], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    own, size = json.loads(process.stdout)
    assert size > 75 * 2**20
    assert own < size / 5


REPLICATE = """
import sys
from pathlib import Path
import torch
from torch import distributed
from clinie_core.config import TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.model import build_model
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.modeling.parallel import wrap_data_parallel

rank = int(sys.argv[1])
config, store = TrialConfig.model_validate_json(sys.argv[2]), distributed.FileStore(sys.argv[3], 2)
distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
pretrained = ModelCache().get_backbone(config)
model = build_model(config, Schema(concept_types=("A",)), pretrained)
with torch.no_grad():
    for parameter in model.parameters():
        parameter.fill_(rank)  # a difference between the processes, as a mark
wrap_data_parallel(model, DistributedContext(rank, 2), find_unused=False)
assert all(bool((p == 0).all()) for p in model.parameters() if p.requires_grad), "trained weights are not equal"
assert all(bool((p == rank).all()) for p in pretrained.parameters()), "the shared memory was overwritten"
distributed.destroy_process_group()
"""


@pytest.mark.integration
def test_processes_that_train_together_do_not_overwrite_the_shared_memory(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(finetuning=choose("lora")).model_dump_json()
    command = [sys.executable, "-c", REPLICATE]
    with subprocess.Popen([*command, "0", config, str(tmp_path / "store")]) as first:
        second = subprocess.run(
            [*command, "1", config, str(tmp_path / "store")], capture_output=True, text=True, check=False, timeout=300
        )
    assert (first.returncode, second.returncode) == (0, 0), second.stderr[-3000:]
