"""The page on models in Python works as it stands."""

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


@pytest.fixture(scope="module")
def place(home: Path, corpus_folder: Path, promoted: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the page speaks of: a home folder, a corpus, a model's files."""
    from search.promotion.registration import EXTRACTOR, fetch_model_files
    from search.storage.home import Home
    from search.tracking.connection import connect

    folder = tmp_path_factory.mktemp("page")
    (folder / "clinie-home").symlink_to(home)
    (folder / "corpus").symlink_to(corpus_folder)
    connect(Home.open(home))
    (folder / "model-files").symlink_to(fetch_model_files(f"tiny-model/{promoted['version']}") / EXTRACTOR)
    return folder


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_runs(place: Path, number: int) -> None:
    program = BLOCKS[number].replace("my-model@champion", "tiny-model@champion")
    clean = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=place, env=clean, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"^(\w+ \d+ \d+|0\.\d+|\d\.\d+)", done.stdout, re.MULTILINE)


def test_the_page_has_its_blocks() -> None:
    assert len(BLOCKS) == 3
