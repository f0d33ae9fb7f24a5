"""What every fine-tuning method keeps; a new row of the table is tested without a new test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clinie_core.config import Part, TrialConfig
from clinie_core.document import Corpus
from clinie_core.errors import ErrorList
from clinie_core.extractor import Extractor
from clinie_core.finetuning import FINETUNING
from clinie_core.model import build_model
from clinie_core.shelf import Shelf
from clinie_core.training import EpochReport, train
from search.domains import parse_domain

MakeConfig = Callable[..., TrialConfig]


@pytest.mark.parametrize("name", FINETUNING)
class TestFineTuningMethod:
    def config(self, make_config: MakeConfig, name: str, **changes: object) -> TrialConfig:
        """The method with the highest learning rate of its shipped range, which a tiny model needs."""
        errors = ErrorList()
        ranges = FINETUNING.load(name).ranges
        corners = {key: parse_domain(value, key, errors).corners for key, value in ranges.items()}
        errors.raise_if_any()
        values = {key: corner[-1] if key == "learning_rate" else corner[0] for key, corner in corners.items()}
        return make_config(finetuning=Part(name=name, parameters=values), **changes)

    def test_its_shipped_ranges_are_legal_and_hold_a_learning_rate(self, name: str) -> None:
        row = FINETUNING.load(name)
        assert "learning_rate" in row.ranges
        assert set(row.ranges) <= set(row.model_fields)
        errors = ErrorList()
        corners = {key: parse_domain(value, key, errors).corners for key, value in row.ranges.items()}
        errors.raise_if_any()
        first = {key: values[0] for key, values in corners.items()}
        for key, values in corners.items():
            for value in values:
                row.model_validate(first | {key: value})

    def test_its_docstring_says_what_it_is(self, name: str) -> None:
        assert (FINETUNING.load(name).__doc__ or "").strip()

    def test_the_loss_falls_and_only_what_should_move_moves(
        self, make_config: MakeConfig, corpus: Corpus, tmp_path: Path, name: str
    ) -> None:
        config = self.config(make_config, name, epochs=3)
        losses: list[float] = []

        def on_epoch(report: EpochReport) -> bool:
            losses.append(report.metrics["train_loss"])
            return True

        shelf = Shelf()
        before = {k: v.clone() for k, v in shelf.backbone(config).state_dict().items()}
        train(config, corpus, shelf=shelf, folder=tmp_path, on_epoch=on_epoch)
        assert losses[-1] < losses[0]
        # The pristine weights on the shelf stay as they were: trials share them.
        assert all(torch.equal(v, before[k]) for k, v in shelf.backbone(config).state_dict().items())
        trained = Extractor.load(tmp_path / "best")._model
        fresh = build_model(config, trained_labels(tmp_path), shelf.backbone(config))
        frozen = [n for n, p in fresh.named_parameters() if not p.requires_grad]
        old, new = fresh.state_dict(), trained.state_dict()
        assert all(torch.equal(old[n], new[n]) for n in frozen)
        assert any(not torch.equal(old[n], new[n]) for n, p in fresh.named_parameters() if p.requires_grad)

    def test_a_reloaded_checkpoint_predicts_the_same(
        self, make_config: MakeConfig, corpus: Corpus, tmp_path: Path, name: str
    ) -> None:
        train(self.config(make_config, name, epochs=1), corpus, folder=tmp_path)
        first = Extractor.load(tmp_path / "best")
        first.save(tmp_path / "whole")
        again = Extractor.load(tmp_path / "whole")
        assert again.annotate(corpus["dev"]) == first.annotate(corpus["dev"])


def trained_labels(folder: Path) -> tuple[str, ...]:
    from clinie_core.checkpoint import Checkpoint

    return Checkpoint.read(folder / "best").labels
