"""A process of a sharded model holds, gathers and reads only what it needs; its peers are simulated."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.encoding.batch import Batch, collate
from clinie_core.encoding.examples import Example
from clinie_core.finetuning import FINETUNING
from clinie_core.heads import LanguageHead
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.model import ExtractionModel, build_model
from clinie_core.modeling.model_cache import ModelCache, load_backbone
from clinie_core.modeling.precision import Precision
from clinie_core.modeling.sharding import (
    build_mesh,
    fits_gathered,
    gather_weights,
    get_local_shard,
    is_sharded,
    measure_gathered_bytes,
    shard,
)
from tests.core.test_unused_parameters import ARCHITECTURES, DECODERS, make_config

PROCESSES = 8
BFLOAT16 = Precision(torch.bfloat16)
CPU = torch.device("cpu")
SCHEMA = Schema(concept_types=("Drug",))


@pytest.fixture
def processes() -> Iterator[DistributedContext]:
    """The first of eight processes; communication with the others has no effect."""
    yield join(0)
    dist.destroy_process_group()


def join(rank: int) -> DistributedContext:
    dist.init_process_group("fake", rank=rank, world_size=PROCESSES, store=FakeStore())
    return DistributedContext(rank, PROCESSES)


def choose_method(config: TrialConfig, method: str) -> TrialConfig:
    fields = FINETUNING.load(method).model_fields
    required = {"learning_rate": 1e-3, "rank": 4, "prompt_tokens": 4}
    parameters = {name: value for name, value in required.items() if name in fields}
    return config.model_copy(update={"finetuning": ComponentChoice(name=method, parameters=parameters)})


def build_sharded(config: TrialConfig, distributed: DistributedContext, precision: Precision) -> ExtractionModel:
    model = build_model(config, SCHEMA, load_backbone(config), precision=precision, keep_mapped=True)
    shard(model, model.backbone, build_mesh(distributed), precision, CPU)
    for head in model.heads.values():
        if isinstance(head, LanguageHead):
            head.set_budget(4, 2)
    return model


def make_batch(*, left: bool = False) -> Batch:
    row = Example(tuple(range(5, 25)), tuple(range(20)), (1,) * 20)
    return collate([row], 0, CPU, targets=not left, component="concepts", left=left, aligned=not left)


class Gathers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the dtype and size of each gathered tensor, and the memory of all tensors that operations return."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[tuple[torch.dtype, int]] = []
        self._storages: list[weakref.ref[Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.c10d._allgather_base_.default:
            self.found.append((args[0].dtype, args[0].numel()))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and not isinstance(leaf, DTensor)]
        self._storages += [weakref.ref(tensor.untyped_storage()) for tensor in tensors]
        return result

    def count(self, dtype: torch.dtype) -> int:
        """Return the number of gathered elements of a dtype."""
        return sum(size for found, size in self.found if found == dtype)

    def measure_largest(self) -> int:
        """Return the size in bytes of the largest memory that is still in use."""
        alive = [storage for storage in (reference() for reference in self._storages) if storage is not None]
        return max((storage.nbytes() for storage in alive), default=0)


CASES = [
    *((architecture, "full") for architecture in ("bert", "deberta-v2", "gpt2", "llama", "longformer", "modernbert")),
    *((architecture, "lora") for architecture in ("albert", "deberta-v2", "gpt2")),
    *(("bert", method) for method in ("bitfit", "dora", "p_tuning", "vera")),
    *(("llama", method) for method in ("ia3", "lora", "oft", "prefix_tuning", "prompt_tuning")),
]


@pytest.mark.parametrize(("architecture", "method"), CASES)
def test_a_process_has_no_whole_weights_after_a_pass(
    architecture: str, method: str, processes: DistributedContext
) -> None:
    model = build_sharded(choose_method(make_config(architecture, "full"), method), processes, BFLOAT16)
    largest = max(2 * p.numel() for p in model.backbone.parameters())
    with Gathers() as gathers:
        loss = model.train()(make_batch())
        assert all(isinstance(p, DTensor) for p in model.parameters())
        loss.backward()
        del loss
        assert all(isinstance(p, DTensor) for p in model.parameters())
        with torch.no_grad():
            model.eval().predict(make_batch(left=architecture in DECODERS))
    assert all(isinstance(p, DTensor) for p in model.parameters())
    assert gathers.measure_largest() < largest
    gradients = {p.grad.dtype for p in model.parameters() if p.grad is not None}
    assert gradients == {torch.float32}


@pytest.mark.parametrize(("architecture", "method"), CASES)
def test_weights_are_gathered_in_the_dtype_of_the_computation(
    architecture: str, method: str, processes: DistributedContext
) -> None:
    model = build_sharded(choose_method(make_config(architecture, "full"), method), processes, BFLOAT16)
    stored = {p.requires_grad: p.dtype for p in model.parameters()}
    assert stored[True] == torch.float32
    assert stored.get(False, torch.bfloat16) == torch.bfloat16
    with Gathers() as gathers:
        model.train()(make_batch())
    backbone = sum(p.numel() for p in model.backbone.parameters())
    heads = sum(-(-len(p) // PROCESSES) * PROCESSES * p[0].numel() for p in model.heads.parameters())
    assert gathers.count(torch.bfloat16) >= backbone - sum(p.numel() for p in find_pooler(model))
    assert gathers.count(torch.float32) == heads
    assert {dtype for dtype, _ in gathers.found} <= {torch.bfloat16, torch.float32}


def find_pooler(model: ExtractionModel) -> list[Tensor]:
    return [p for name, p in model.named_parameters() if "pooler" in name]


@pytest.mark.parametrize("is_gathered", [True, False])
@pytest.mark.parametrize("architecture", ["bert", "gpt2", "llama"])
def test_predictions_with_gathered_weights_need_no_communication(
    architecture: str, is_gathered: bool, processes: DistributedContext
) -> None:
    model = build_sharded(choose_method(make_config(architecture, "full"), "lora"), processes, BFLOAT16).eval()
    batch = make_batch(left=architecture in DECODERS)
    with Gathers() as gathers, torch.no_grad():
        with gather_weights(model) if is_gathered else nullcontext(), model.prepare_prediction():
            assert is_sharded(model) is not is_gathered
            before = len(gathers.found)
            model.predict(batch)
            model.predict(batch)
            assert (len(gathers.found) == before) is is_gathered
        assert all(isinstance(p, DTensor) for p in model.parameters())
    assert gathers.measure_largest() < max(2 * p.numel() for p in model.backbone.parameters())


def test_weights_are_gathered_if_they_take_at_most_half_of_the_free_memory(processes: DistributedContext) -> None:
    model = build_sharded(make_config("llama", "full"), processes, BFLOAT16)
    size = 2 * sum(p.numel() for p in model.parameters())
    assert measure_gathered_bytes(model, BFLOAT16) == size
    assert measure_gathered_bytes(model, Precision()) == 2 * size
    assert fits_gathered(size, 2 * size)
    assert not fits_gathered(size, 2 * size - 2)


def test_weights_are_freed_after_an_error_in_a_prediction(processes: DistributedContext) -> None:
    model = build_sharded(choose_method(make_config("llama", "full"), "lora"), processes, BFLOAT16)
    with pytest.raises(ZeroDivisionError), gather_weights(model):
        raise ZeroDivisionError
    assert all(isinstance(p, DTensor) for p in model.parameters())


def test_no_weight_is_converted_during_generation(processes: DistributedContext) -> None:
    model = build_sharded(make_config("llama", "full"), processes, BFLOAT16).eval()
    casts: list[tuple[int, ...]] = []

    class Casts(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if func.overloadpacket is torch.ops.aten._to_copy and args[0].data_ptr() in pointers:
                casts.append(tuple(args[0].shape))
            return result

    with gather_weights(model), model.prepare_prediction(), torch.no_grad():
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        pointers = {p.data_ptr() for p in model.parameters()}
        with Casts():  # type: ignore[no-untyped-call]
            model.predict(make_batch(left=True))
    assert casts == []
    assert {p.dtype for p in model.parameters()} == {torch.float32}


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Largest size in bytes of the new memory that an operation returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {id_of(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and not leaf.is_meta and id_of(leaf) not in known:
                self.largest = max(self.largest, leaf.untyped_storage().nbytes())
        return result


def id_of(tensor: Tensor) -> int:
    return 0 if isinstance(tensor, DTensor) else tensor.untyped_storage()._cdata


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", ["full", "lora", "pissa", "prefix_tuning", "vera"])
def test_a_process_reads_only_its_own_rows_of_the_files(method: str, dtype: torch.dtype, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = ARCHITECTURES["llama"] | {"hidden_size": 64, "intermediate_size": 512, "vocab_size": 1000}
    AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes), dtype=dtype).save_pretrained(tmp_path)
    config = choose_method(make_config("llama", "full"), method)
    config = config.model_copy(update={"backbone": BackboneSource(name="tiny", folder=str(tmp_path))})
    pretrained = ModelCache().get_backbone(config, CPU, torch.bfloat16)
    reference = build_model(config, SCHEMA, pretrained, precision=BFLOAT16)
    expected = {name: p.detach().clone() for name, p in reference.named_parameters()}
    found: dict[str, list[Tensor]] = {name: [] for name in expected}
    for rank in range(PROCESSES):
        try:
            distributed = join(rank)
            model = build_model(config, SCHEMA, load_backbone(config), precision=BFLOAT16, keep_mapped=True)
            largest = max(p.numel() * p.element_size() for p in model.parameters())
            with Allocations() as allocations:
                shard(model, model.backbone, build_mesh(distributed), BFLOAT16, CPU)
            assert 0 < allocations.largest <= 1.1 * 2 * largest / PROCESSES, "rows become at most twice as wide"
            for name, p in model.named_parameters():
                assert isinstance(p, DTensor)
                assert p.requires_grad == reference.get_parameter(name).requires_grad
                found[name].append(get_local_shard(p.detach()))
        finally:
            dist.destroy_process_group()
    for name, parts in found.items():
        assert torch.equal(torch.cat(parts), expected[name].to(parts[0].dtype)), name
