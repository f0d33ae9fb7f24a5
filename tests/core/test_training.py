"""Training reduces the loss, is reproducible, resumes after a stop, and writes checkpoints that can be loaded."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clinie_core.config import ComponentChoice, TrialConfig
from clinie_core.data.document import Corpus
from clinie_core.data.schema import Schema
from clinie_core.encoding.batch_sampling import batch_by_length, draw_epoch_batches
from clinie_core.errors import InputError
from clinie_core.inference.extractor import Extractor
from clinie_core.modeling.checkpoint import Checkpoint
from clinie_core.modeling.model import build_model, load_finetuning
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.scoring import score_concepts
from clinie_core.training.optimization import build_optimizer
from clinie_core.training.train import EpochReport, train

MakeConfig = Callable[..., TrialConfig]
STABLE = ("strict_f1", "lenient_f1", "train_loss", "optimizer_steps")


def curve(config: TrialConfig, corpus: Corpus, folder: Path | None = None, stop_after: int = 99) -> list[EpochReport]:
    reports: list[EpochReport] = []

    def on_epoch(report: EpochReport) -> bool:
        reports.append(report)
        return report.epoch < stop_after

    train(config, corpus, folder=folder, on_epoch=on_epoch)
    return reports


def scores(reports: list[EpochReport]) -> list[tuple[float, ...]]:
    return [tuple(r.metrics[name] for name in STABLE) for r in reports]


@pytest.mark.integration
def test_the_loss_falls_and_is_reproducible_with_the_same_seed(make_config: MakeConfig, corpus: Corpus) -> None:
    config = make_config(epochs=3, dropout=0.1)
    reports = curve(config, corpus)
    assert [r.finished for r in reports] == [False, False, True]
    assert reports[-1].metrics["train_loss"] < 0.8 * reports[0].metrics["train_loss"]
    assert scores(curve(config, corpus)) == scores(reports)
    assert scores(curve(make_config(epochs=3, dropout=0.1, seed=14), corpus)) != scores(reports)


@pytest.mark.integration
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_resumed_trial_has_the_same_results_as_an_uninterrupted_one(
    make_config: MakeConfig, corpus: Corpus, tmp_path: Path, ema_decay: float
) -> None:
    config = make_config(
        epochs=4, ema_decay=ema_decay, finetuning=ComponentChoice(name="lora", parameters={"learning_rate": 5e-3})
    )
    whole = curve(config, corpus)
    first = curve(config, corpus, tmp_path, stop_after=2)
    rest = curve(config, corpus, tmp_path)
    assert [r.epoch for r in first] == [1, 2]
    assert [r.epoch for r in rest] == [1, 2, 3, 4]  # the first two are reported again
    assert [r.metrics for r in rest[:2]] == [r.metrics for r in first]
    assert scores(rest) == scores(whole)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_each_layer_follows_the_schedule_from_its_own_rate(make_config: MakeConfig, schedule: str) -> None:
    parameters = {"learning_rate": 1e-3, "layerwise_lr_decay": 0.5, "head_rate_factor": 2.0}
    finetuning = ComponentChoice(name="full", parameters=parameters)
    config = make_config(schedule=schedule, warmup_ratio=0.2, finetuning=finetuning)
    model = build_model(config, Schema(concept_types=("A",)), ModelCache().get_backbone(config))
    optimizer, scheduler = build_optimizer(config, load_finetuning(config), model, steps=20)
    rates = []
    for _ in range(20):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    peak = {0.25e-3, 0.5e-3, 1e-3, 2e-3}  # embeddings, two layers, head
    assert set(rates[4]) == peak
    for step, row in enumerate(rates):
        falling = (step - 4) / 16
        down = 1 - falling if schedule == "linear" else (1 + math.cos(math.pi * falling)) / 2
        scale = step / 4 if step < 4 else down
        assert row == pytest.approx([rate * scale for rate in rates[4]])
    assert scheduler.get_last_lr() == pytest.approx([0.0] * len(rates[4]), abs=1e-12)


def test_the_state_of_another_configuration_is_rejected(
    make_config: MakeConfig, corpus: Corpus, tmp_path: Path
) -> None:
    curve(make_config(epochs=3), corpus, tmp_path, stop_after=1)
    with pytest.raises(InputError, match="training state of another configuration"):
        curve(make_config(epochs=3, batch_size=4), corpus, tmp_path)


def test_patience_ends_a_trial_without_improvement(make_config: MakeConfig, corpus: Corpus) -> None:
    config = make_config(
        epochs=9, patience=2, finetuning=ComponentChoice(name="full", parameters={"learning_rate": 1e-9})
    )
    reports = curve(config, corpus)
    assert len(reports) == 3
    assert reports[-1].finished
    assert reports[-1].stopped_early


def test_a_training_that_has_diverged_ends(make_config: MakeConfig, corpus: Corpus) -> None:
    overflow = ComponentChoice(name="full", parameters={"learning_rate": 1.0})
    config = make_config(epochs=9, weight_decay=1e30, finetuning=overflow)
    reports = curve(config, corpus)
    assert not any(math.isfinite(report.metrics["train_loss"]) for report in reports[-2:])
    assert len(reports) < 5
    assert reports[-1].finished
    assert reports[-1].stopped_early


def test_the_checkpoint_of_a_study_of_the_training_loss_has_the_lowest_loss(
    make_config: MakeConfig, corpus: Corpus, tmp_path: Path
) -> None:
    rates = ComponentChoice(name="full", parameters={"learning_rate": 3e-2})
    result = train(make_config(epochs=4, selection="train_loss", finetuning=rates), corpus, folder=tmp_path)
    losses = [report.metrics["train_loss"] for report in curve(make_config(epochs=4, finetuning=rates), corpus)]
    assert result.best_epoch == losses.index(min(losses)) + 1
    assert Checkpoint.read(tmp_path / "best").metrics["train_loss"] == min(losses)


def test_a_saved_extractor_reproduces_the_score_of_the_best_epoch(
    make_config: MakeConfig, corpus: Corpus, tmp_path: Path
) -> None:
    config = make_config(epochs=3, formulation=ComponentChoice(name="token_classification", parameters={"head": "crf"}))
    train(config, corpus, folder=tmp_path)
    extractor = Extractor.load(tmp_path / "best")
    found = extractor.annotate(corpus["dev"])
    scored = score_concepts((g.concepts, f.concepts) for g, f in zip(corpus["dev"], found, strict=True))
    assert scored.metrics()["strict_f1"] == Checkpoint.read(tmp_path / "best").metrics["strict_f1"]
    extractor.save(tmp_path / "whole")
    assert Extractor.load(tmp_path / "whole").annotate(corpus["dev"]) == found


def test_an_empty_text_has_no_concepts(make_config: MakeConfig, corpus: Corpus, tmp_path: Path) -> None:
    train(make_config(epochs=1), corpus, folder=tmp_path)
    documents = Extractor.load(tmp_path / "best").predict(["", "\n", "fever"])
    assert [d.text for d in documents] == ["", "\n", "fever"]
    assert documents[0].concepts == ()


def test_a_folder_without_a_checkpoint_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint here"):
        Extractor.load(tmp_path)


def test_a_checkpoint_with_a_symbolic_link_is_rejected(make_config: MakeConfig, corpus: Corpus, tmp_path: Path) -> None:
    train(make_config(epochs=1), corpus, folder=tmp_path / "trial")
    (tmp_path / "trial" / "best" / "more.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(InputError, match=r"more\.json: a symbolic link in a checkpoint"):
        Checkpoint.read(tmp_path / "trial" / "best")


def test_checkpoints_contain_no_text(make_config: MakeConfig, corpus: Corpus, tmp_path: Path) -> None:
    train(make_config(epochs=1), corpus, folder=tmp_path)
    long_words = {w for d in corpus["train"] for w in d.text.split() if len(w) > 9}
    content = b"".join(f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()).decode(errors="ignore")
    assert not [word for word in long_words if word in content]


@given(st.lists(st.integers(3, 200), min_size=1, max_size=300), st.integers(1, 16), st.integers(0, 5))
def test_an_epoch_contains_every_example_once(lengths: list[int], size: int, epoch: int) -> None:
    batches = draw_epoch_batches(lengths, size, seed=1, epoch=epoch)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) <= size for batch in batches)
    assert batches == draw_epoch_batches(lengths, size, seed=1, epoch=epoch)


def test_sorting_by_length_avoids_most_padding() -> None:
    draw = random.Random(0)
    lengths = [draw.randint(8, 256) for _ in range(1000)]
    batches = draw_epoch_batches(lengths, 16, seed=1, epoch=1)
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=100))
def test_prediction_batches_do_not_exceed_the_maximum_size(lengths: list[int]) -> None:
    batches = batch_by_length(lengths, 512)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(b) == 1 or max(lengths[i] for i in b) * len(b) <= 512 for b in batches)


def test_building_a_model_preserves_the_callers_random_state(make_config: MakeConfig, corpus: Corpus) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    config = make_config()
    build_model(config, Schema(concept_types=("A",)), ModelCache().get_backbone(config))
    assert torch.equal(torch.rand(1), expected)
