"""The command ``clinie data score``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

RunClinie = Callable[..., subprocess.CompletedProcess[str]]
NOTE = "aspirin warfarin given"


def write_note(folder: Path, annotations: str, *, name: str = "n", text: str = NOTE) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.txt").write_text(text)
    (folder / f"{name}.ann").write_text(annotations)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two gold concepts, the first touched by both predictions and the second by one of them."""
    gold = write_note(tmp_path / "gold", "T1\tDrug 0 7\taspirin\nT2\tDrug 8 16\twarfarin\n")
    return gold, write_note(tmp_path / "predicted", "T1\tDrug 0 3\tasp\nT2\tDrug 5 12\tin warf\n")


def test_scores_name_their_scorer(folders: tuple[Path, Path], clinie: RunClinie) -> None:
    expected = {"n2c2-2018": (1.0, 0.5, 2 / 3), "clinie": (1.0, 1.0, 1.0)}
    for scorer, rates in expected.items():
        done = clinie("data", "score", *folders, "--scorer", scorer, "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert (found["scorer"], found["task"], found["documents"]) == (scorer, "concepts", 1)
        lenient = tuple(found[f"lenient_{rate}"] for rate in ("precision", "recall", "f1"))
        assert lenient == pytest.approx(rates)
        assert found["by_type"]["strict"] == {"Drug": {"tp": 0, "fp": 2, "fn": 2}}
    shown = clinie("data", "score", *folders, "--scorer", "n2c2-2018").stdout
    assert "concepts, 1 documents, scorer n2c2-2018" in shown
    assert ["all,", "lenient", "0.6667", "1.0000", "0.5000", "2"] in [line.split() for line in shown.splitlines()]


def test_documents_without_predictions_count_as_missed(tmp_path: Path, clinie: RunClinie) -> None:
    gold = write_note(tmp_path / "gold", "T1\tDrug 0 7\taspirin\n")
    done = clinie("data", "score", gold, write_note(tmp_path / "predicted", ""), "--json")
    assert json.loads(done.stdout)["by_type"]["strict"] == {"Drug": {"tp": 0, "fp": 0, "fn": 1}}


def test_unequal_documents_are_reported_together(folders: tuple[Path, Path], clinie: RunClinie) -> None:
    gold, predicted = folders
    write_note(gold, "", name="only-gold")
    write_note(predicted, "", name="only-predicted")
    write_note(predicted, "", text=f"{NOTE}.")
    done = clinie("data", "score", gold, predicted)
    assert done.returncode == 2
    assert f"{predicted}: document only-gold is missing" in done.stderr
    assert f"{predicted}: document only-predicted is not in the annotated corpus" in done.stderr
    assert f"{predicted}: the texts of document n differ (22 and 23 characters)" in done.stderr
    assert done.stderr.count("error ") == 3


def test_unknown_scorer_is_an_error(folders: tuple[Path, Path], clinie: RunClinie) -> None:
    done = clinie("data", "score", *folders, "--scorer", "n2c2")
    assert done.returncode == 2
    assert "--scorer: unknown scorer 'n2c2'; allowed: clinie, n2c2-2018" in done.stderr
