"""The code blocks of docs/python.md run as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL)
SEARCH_BLOCKS = [block for block in BLOCKS if "import search" in block]
MODEL_BLOCKS = [block for block in BLOCKS if block not in SEARCH_BLOCKS]


def run_block(program: str, folder: Path) -> None:
    """Run a block in a process of its own, and check that it prints a concept or a score."""
    clean = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=clean, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"^(\w+ \d+ \d+|0\.\d+|\d\.\d+)", done.stdout, re.MULTILINE), done.stdout


@pytest.fixture(scope="module")
def folder(home: Path, corpus_folder: Path, promoted: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the home folder, corpus and model files that the page refers to."""
    from search.promotion.model_files import EXTRACTOR
    from search.promotion.registration import fetch_model_files
    from search.storage.home import Home
    from search.tracking.connection import connect

    folder = tmp_path_factory.mktemp("page")
    (folder / "clinie-home").symlink_to(home)
    (folder / "corpus").symlink_to(corpus_folder)
    connect(Home.open(home))
    (folder / "model-files").symlink_to(fetch_model_files(f"tiny-model/{promoted['version']}") / EXTRACTOR)
    return folder


@pytest.mark.parametrize("number", range(len(MODEL_BLOCKS)))
def test_a_block_on_models_runs(folder: Path, number: int) -> None:
    run_block(MODEL_BLOCKS[number].replace("my-model@champion", "tiny-model@champion"), folder)


def test_the_blocks_on_studies_run_one_after_the_other(corpus_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus").symlink_to(corpus_folder)
    for block in SEARCH_BLOCKS:
        run_block(block, tmp_path)
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_has_its_blocks() -> None:
    assert (len(SEARCH_BLOCKS), len(MODEL_BLOCKS)) == (2, 3)
