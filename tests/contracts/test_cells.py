"""Every legal combination of task, architecture, formulation and fine-tuning method, trained and loaded again."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.corpora.synthetic import synthetic_splits
from clinie_core.data.document import Corpus, Document
from clinie_core.errors import ErrorList, InputError
from clinie_core.finetuning import FINETUNING
from clinie_core.inference.extractor import Extractor
from clinie_core.modeling.capabilities import Cell, cells
from clinie_core.modeling.model import build_model
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.training.train import EpochReport, train
from search.config.domains import parse_domain

COMMON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SCRATCH: dict[str, dict[str, Any]] = {
    "encoder": {"model_type": "bert", "max_position_embeddings": 256, **COMMON},
    "decoder": {"model_type": "llama", "max_position_embeddings": 1024, "num_key_value_heads": 1, **COMMON},
}
FORMULATION_PARAMETERS = {"generation": {"instruction": "short"}, "marked_pairs": {"pair_tokens": 64}}
PREDICT = """
import json, sys
from pathlib import Path
from clinie_core.data.document import Document
from clinie_core.inference.extractor import Extractor
from tests_cells import gold, plain
folders = json.loads(sys.stdin.read())
print(json.dumps({folder: plain(Extractor.load(Path(folder)).annotate(gold())) for folder in folders}))
"""


def usual(cell: Cell) -> bool:
    """Whether a cell is trained by ``make test``; the rest of ``joint`` differs from it in nothing but the method."""
    return cell.task != "joint" or cell.finetuning in {"full", "lora", "prompt_tuning"}


ALL = [cell for cell in cells() if not FINETUNING.load(cell.finetuning).needs_cuda]
MARKED = [pytest.param(cell, id=str(cell), marks=[] if usual(cell) else [pytest.mark.slow]) for cell in ALL]


@cache
def small_corpus() -> Corpus:
    """A few short notes: the first sentences of synthetic ones."""
    splits = synthetic_splits(10, seed=3)
    return Corpus({split: tuple(_shortened(note) for note in notes) for split, notes in splits.items()})


def _shortened(note: Document) -> Document:
    end = max(c.end for c in note.concepts[:4])
    concepts = tuple(c for c in note.concepts if c.end <= end)
    kept = {c.id for c in concepts}
    relations = tuple(r for r in note.relations if {r.head, r.tail} <= kept)
    return Document(note.id, note.text[:end], concepts, relations)


def gold() -> tuple[Document, ...]:
    return small_corpus()["dev"]


def plain(documents: list[Document]) -> list[Any]:
    return [
        [
            [(c.type, c.start, c.end) for c in d.concepts],
            [(r.type, r.head, r.tail) for r in d.relations],
        ]
        for d in documents
    ]


@dataclass(frozen=True)
class Trained:
    config: TrialConfig
    losses: tuple[float, ...]
    shelf: ModelCache
    folder: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Trains a cell for a few steps, once."""
    root = tmp_path_factory.mktemp("cells")

    @cache
    def run(cell: Cell) -> Trained:
        row = FINETUNING.load(cell.finetuning)
        errors = ErrorList()
        corners = {key: parse_domain(value, key, errors).corners for key, value in row.ranges.items()}
        errors.raise_if_any()
        # The highest learning rate of the shipped range, which a tiny model needs; of all else the first choice.
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
            epochs=3,
            batch_size=4,
            window_tokens=160 if cell.architecture == "encoder" else 480,
            window_overlap=16,
            precision="float32",
            dropout=0.0,
            warmup_ratio=0.0,
        )
        losses: list[float] = []

        def on_epoch(report: EpochReport) -> bool:
            losses.append(report.metrics["train_loss"])
            return True

        shelf = ModelCache()
        train(config, small_corpus(), shelf=shelf, folder=root / str(cell), on_epoch=on_epoch)
        return Trained(config, tuple(losses), shelf, root / str(cell) / "best")

    return run


@pytest.mark.parametrize("cell", MARKED)
def test_the_loss_falls_and_only_what_should_move_moves(trained: Any, cell: Cell) -> None:
    done: Trained = trained(cell)
    assert done.losses[-1] < done.losses[0]
    extractor = Extractor.load(done.folder)
    pristine = done.shelf.backbone(done.config)
    fresh = build_model(done.config, extractor.checkpoint.schema, pristine)
    old, new = fresh.state_dict(), extractor._model.state_dict()
    moving = {name for name, p in fresh.named_parameters() if p.requires_grad}
    assert all(torch.equal(old[name], new[name]) for name in fresh.pristine_names - moving)
    assert any(not torch.equal(old[name], new[name]) for name in moving)
    # The weights on the shelf stay as they were: trials share them.
    untouched = ModelCache().backbone(done.config).state_dict()
    assert all(torch.equal(v, untouched[k]) for k, v in pristine.state_dict().items())


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_saved_whole_and_loaded_in_a_fresh_process_they_predict_the_same(
    trained: Any, tmp_path: Path, slow: bool
) -> None:
    expected = {}
    for cell in (cell for cell in ALL if usual(cell) != slow):
        extractor = Extractor.load(trained(cell).folder)
        extractor.save(tmp_path / str(cell))
        expected[str(tmp_path / str(cell))] = plain(extractor.annotate(gold()))
    (tmp_path / "tests_cells.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PREDICT],
        input=json.dumps(list(expected)),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == json.loads(json.dumps(expected))


READING = [c for c in ALL if c.task == "concepts" and c.formulation in ("token_classification", "generation")]


@pytest.mark.parametrize("cell", READING, ids=str)
def test_merged_it_predicts_the_same_or_says_that_it_cannot_be(trained: Any, tmp_path: Path, cell: Cell) -> None:
    extractor = Extractor.load(trained(cell).folder)
    expected = plain(extractor.annotate(gold()))
    try:
        merged = extractor.merge_adapter()
    except InputError as error:
        assert cell.finetuning in {"bottleneck", "prompt_tuning", "p_tuning", "prefix_tuning"}
        assert "adds what is no part of a weight" in str(error)  # noqa: PT017  # either is right, by method
        return
    assert plain(merged.annotate(gold())) == expected
    merged.save(tmp_path)
    again = Extractor.load(tmp_path)
    assert plain(again.annotate(gold())) == expected
    assert plain(extractor.annotate(gold())) == expected  # which stayed as it was
    kept = {name for name, _ in again._model.backbone.named_parameters()}
    assert not any("lora" in name for name in kept)


def test_every_row_is_in_some_cell() -> None:
    from clinie_core.formulations import FORMULATIONS

    used = {name for cell in cells() for name in (cell.formulation, cell.relation_formulation)}
    assert set(FORMULATIONS) <= used
    assert {cell.finetuning for cell in cells()} == set(FINETUNING)
