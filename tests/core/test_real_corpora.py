"""Real annotated corpora read without a problem, with the counts that their makers state.

They may not be redistributed; the environment variable CLINIE_CORPORA names the folder that holds them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clinie_core.corpora.brat import Brat

CORPORA = os.environ.get("CLINIE_CORPORA")
pytestmark = pytest.mark.skipif(CORPORA is None, reason="CLINIE_CORPORA is not set: no real corpora on this machine")

COUNTS = {
    "ncbi-disease/train": 593,
    "ncbi-disease/devel": 100,
    "ncbi-disease/test": 100,
    "phee/train": 2898,
    "phee/dev": 961,
    "phee/test": 968,
    "maccrobat-2020": 200,
}


@pytest.mark.parametrize(("folder", "documents"), COUNTS.items())
def test_every_document_is_read(folder: str, documents: int) -> None:
    read = Brat().read_all(Path(CORPORA or "") / folder)
    assert len(read) == documents
    assert all(c.end <= len(d.text) for d in read for c in d.concepts)
