"""Train, save and load every supported combination of task, architecture, formulation and fine-tuning method."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache as memoize
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clinie_core.config import LAST, BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus, Document
from clinie_core.encoding.batch import Batch
from clinie_core.encoding.outputs import HeadOutput
from clinie_core.errors import ErrorList, InputError
from clinie_core.finetuning import FINETUNING
from clinie_core.inference.extractor import Extractor
from clinie_core.modeling.capabilities import Cell, list_cells
from clinie_core.modeling.model import build_model
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.training.train import EpochReport, train
from search.config.domains import parse_domain

COMMON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SCRATCH: dict[str, dict[str, Any]] = {
    "encoder": {"model_type": "bert", "max_position_embeddings": 256, **COMMON},
    "decoder": {"model_type": "llama", "max_position_embeddings": 1024, "num_key_value_heads": 1, **COMMON},
}
EPOCHS = 3
FORMULATION_PARAMETERS = {"generation": {"instruction": "short"}, "marked_pairs": {"pair_tokens": 64}}
PREDICT = """
import json, sys
from pathlib import Path
from clinie_core.inference.extractor import Extractor
from tests_cells import predict
for folder in map(Path, json.loads(sys.stdin.read())):
    predict(Extractor.load(folder), folder / "found")
"""


def runs_by_default(cell: Cell) -> bool:
    """Return whether ``make test`` trains a cell; the other ``joint`` cells differ only in the fine-tuning method."""
    return cell.task != "joint" or cell.finetuning in {"full", "lora", "prompt_tuning"}


def choose_marks(cell: Cell) -> list[pytest.MarkDecorator]:
    """Return the marks of a cell; ``make unit`` trains each method once per architecture and each formulation once."""
    if not runs_by_default(cell):
        return [pytest.mark.slow]
    is_common = cell.task == "concepts" and cell.formulation in ("token_classification", "generation")
    is_fast = is_common or (cell.task != "joint" and cell.finetuning == "full")
    return [] if is_fast else [pytest.mark.integration]


ALL = list(list_cells())
MARKED = [pytest.param(cell, id=str(cell), marks=choose_marks(cell)) for cell in ALL]


@memoize
def small_corpus() -> Corpus:
    """Return a few short documents: the beginnings of synthetic ones."""
    splits = generate_splits(10, seed=3)
    return Corpus({split: tuple(shorten(document) for document in documents) for split, documents in splits.items()})


def shorten(document: Document) -> Document:
    """Cut a document after its fourth concept."""
    end = max(c.end for c in document.concepts[:4])
    concepts = tuple(c for c in document.concepts if c.end <= end)
    kept = {c.id for c in concepts}
    relations = tuple(r for r in document.relations if {r.head, r.tail} <= kept)
    return Document(document.id, document.text[:end], concepts, relations)


def predict(extractor: Extractor, file: Path | None = None) -> tuple[list[Any], list[HeadOutput]]:
    """Predict the dev split.

    Args:
        extractor: The model.
        file: Path, without ending, of the JSON and NPZ file to which the result is written; None writes nothing.

    Returns:
        Types and offsets of the annotations of each document, and the raw output of the heads for each example.
    """
    model = extractor._model
    rows: list[HeadOutput] = []
    compute = model.predict

    def record(batch: Batch) -> Sequence[HeadOutput]:
        outputs = compute(batch)
        rows.extend(outputs)
        return outputs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "predict", record)
        documents = extractor.annotate(small_corpus()["dev"])
    annotations = [
        [[(c.type, c.start, c.end) for c in d.concepts], [(r.type, r.head, r.tail) for r in d.relations]]
        for d in documents
    ]
    if file is not None:
        file.with_suffix(".json").write_text(json.dumps(annotations), encoding="utf-8")
        np.savez(file.with_suffix(".npz"), *rows)
    return annotations, rows


@dataclass(frozen=True)
class TrainedCell:
    """A trained cell.

    Args:
        config: Its configuration.
        losses: Training loss of each epoch.
        folder: The checkpoint of the last epoch.
    """

    config: TrialConfig
    losses: tuple[float, ...]
    folder: Path


Train = Callable[[Cell], TrainedCell]


@pytest.fixture(scope="module")
def cache() -> ModelCache:
    """The cache that all cells share."""
    return ModelCache()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: ModelCache) -> Iterator[Train]:
    """Return a function that trains a cell for a few steps, once per cell."""
    root = tmp_path_factory.mktemp("cells")
    gc.collect()
    gc.freeze()  # each training ends with a garbage collection, which is slow with all imported modules in it

    @memoize
    def run(cell: Cell) -> TrainedCell:
        row = FINETUNING.load(cell.finetuning)
        errors = ErrorList()
        corners = {key: parse_domain(value, key, errors).corners for key, value in row.ranges.items()}
        errors.raise_if_any()
        # A tiny model needs the highest learning rate of the range; all other parameters take their first value.
        values = {key: corner[-1] if key == "learning_rate" else corner[0] for key, corner in corners.items()}
        second = cell.relation_formulation

        def part(name: str) -> ComponentChoice:
            return ComponentChoice(name=name, parameters=FORMULATION_PARAMETERS.get(name, {}))

        config = TrialConfig(
            task=cell.task,
            backbone=BackboneSource(name="tiny", scratch=SCRATCH[cell.architecture]),
            formulation=part(cell.formulation),
            relation_formulation=part(second) if second else None,
            finetuning=ComponentChoice(name=cell.finetuning, parameters=values),
            epochs=EPOCHS + 1,  # only an epoch that is followed by another one has a checkpoint of its own
            batch_size=4,
            window_tokens=160 if cell.architecture == "encoder" else 480,
            window_overlap=16,
            precision="float32",
            dropout=0.0,
            warmup_ratio=0.0,
            weight_decay=0.0,  # it would change a parameter that has no gradient
        )
        losses: list[float] = []

        def on_epoch(report: EpochReport) -> bool:
            losses.append(report.metrics["train_loss"])
            return report.epoch < EPOCHS

        train(config, small_corpus(), cache=cache, folder=root / str(cell), on_epoch=on_epoch)
        return TrainedCell(config, tuple(losses), root / str(cell) / LAST)

    yield run
    gc.unfreeze()


@pytest.mark.parametrize("cell", MARKED)
def test_training_lowers_the_loss_and_changes_all_trainable_parameters_and_no_other(
    trained: Train, cache: ModelCache, cell: Cell
) -> None:
    result = trained(cell)
    assert result.losses[-1] < result.losses[0]
    extractor = Extractor.load(result.folder)
    pretrained = cache.get_backbone(result.config)
    fresh = build_model(result.config, extractor.checkpoint.schema, pretrained)
    trainable = {name for name, p in fresh.named_parameters() if p.requires_grad}
    assert any(name.startswith("backbone.") for name in trainable) or cell.finetuning == "head_only"
    old, new = dict(fresh.named_parameters()), dict(extractor._model.named_parameters())
    assert {name for name, value in old.items() if not torch.equal(value, new[name])} == trainable
    untouched = ModelCache().get_backbone(result.config).state_dict()
    assert all(torch.equal(v, untouched[k]) for k, v in pretrained.state_dict().items()), "training changed the cache"


FROZEN_SHARES = {"pissa": 1.0}
"""Bytes of frozen weights in checkpoints, divided by those of trained weights; 0 for other methods."""
BY_METHOD = [c for c in ALL if c.task == "concepts" and c.formulation in ("token_classification", "generation")]


@pytest.mark.parametrize("cell", BY_METHOD, ids=str)
def test_a_checkpoint_has_little_more_than_the_bytes_of_the_trained_weights(trained: Train, cell: Cell) -> None:
    result = trained(cell)
    model = Extractor.load(result.folder)._model
    trainable = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    stored = sum(t.numel() * t.element_size() for t in load_file(result.folder / "model.safetensors").values())
    assert trainable <= stored <= 1.1 * trainable * (1 + FROZEN_SHARES.get(cell.finetuning, 0.0))


@pytest.mark.integration
@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_saved_model_predicts_the_same_in_a_new_process(trained: Train, tmp_path: Path, slow: bool) -> None:
    expected = {}
    for cell in (cell for cell in ALL if runs_by_default(cell) != slow):
        extractor = Extractor.load(trained(cell).folder)
        extractor.save(tmp_path / str(cell))
        expected[tmp_path / str(cell)] = predict(extractor)
    (tmp_path / "tests_cells.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    process = subprocess.run(
        [sys.executable, "-c", PREDICT],
        input=json.dumps([str(folder) for folder in expected]),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    for folder, (concepts_and_relations, rows) in expected.items():
        assert json.loads((folder / "found.json").read_text()) == json.loads(json.dumps(concepts_and_relations)), (
            folder.name
        )
        with np.load(folder / "found.npz") as found:
            assert len(found) == len(rows) > 0
            for row, again in zip(rows, found.values(), strict=True):
                np.testing.assert_allclose(again, row, rtol=0, atol=1e-5, err_msg=folder.name)


@pytest.mark.integration
@pytest.mark.parametrize("cell", BY_METHOD, ids=str)
def test_a_merged_model_predicts_the_same_or_merging_is_refused(trained: Train, tmp_path: Path, cell: Cell) -> None:
    extractor = Extractor.load(trained(cell).folder)
    expected, _ = predict(extractor)
    try:
        merged = extractor.merge_adapter()
    except InputError as error:
        assert cell.finetuning in {"bottleneck", "prompt_tuning", "p_tuning", "prefix_tuning"}
        assert "cannot be merged into the weights of the backbone" in str(error)  # noqa: PT017  # either is right, by method
        return
    assert predict(merged)[0] == expected
    merged.save(tmp_path)
    again = Extractor.load(tmp_path)
    assert predict(again)[0] == expected
    assert predict(extractor)[0] == expected, "merging changed the original model"
    names = {name for name, _ in again._model.backbone.named_parameters()}
    assert not any("lora" in name for name in names)


def test_each_formulation_and_method_is_part_of_a_cell() -> None:
    from clinie_core.formulations import FORMULATIONS

    used = {name for cell in list_cells() for name in (cell.formulation, cell.relation_formulation)}
    assert set(FORMULATIONS) <= used
    assert {cell.finetuning for cell in list_cells()} == set(FINETUNING)
