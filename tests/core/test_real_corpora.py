"""Real annotated corpora are read without problems and with the published numbers of documents.

The corpora may not be redistributed; the environment variable CLINIE_CORPORA names their folder.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.brat import Brat
from clinie_core.data.corpora.document_comparison import count_differences

CORPORA = os.environ.get("CLINIE_CORPORA")
pytestmark = pytest.mark.skipif(CORPORA is None, reason="CLINIE_CORPORA is not set")

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
def test_every_document_of_a_corpus_is_read(folder: str, documents: int) -> None:
    read = Brat().read_all(Path(CORPORA or "") / folder)
    assert len(read) == documents
    assert all(c.end <= len(d.text) for d in read for c in d.concepts)


def test_bc5cdr_is_equal_in_pubtator_and_bioc() -> None:
    folder = Path(CORPORA or "") / "bc5cdr"
    read = {
        name: {d.id: d for d in FORMATS.load(name)().read_all(folder / f"CDR_TestSet.{suffix}")}
        for name, suffix in (("pubtator", "PubTator.txt"), ("bioc_xml", "BioC.xml"))
    }
    assert len(read["pubtator"]) == len(read["bioc_xml"]) == 500
    for id_, document in read["pubtator"].items():
        other = read["bioc_xml"][id_]
        assert other.text == document.text
        assert {(r.type, r.head, r.tail) for r in document.entity_relations} == {
            (r.type, r.head, r.tail) for r in other.entity_relations
        }
        # BioC also contains the parts of composite mentions, such as each of two diseases that share a word.
        assert {(c.type, c.extent) for c in document.concepts} <= {(c.type, c.extent) for c in other.concepts}


@pytest.mark.parametrize("name", ["jsonl", "brat"])
def test_round_trip_of_case_reports_loses_nothing(name: str) -> None:
    format_ = FORMATS.load(name)()
    documents = Brat().read_all(Path(CORPORA or "") / "maccrobat-2020")[:40]
    assert sum(len(d.equivalences) + len(d.notes) for d in documents)
    assert sum((count_differences(d, format_.round_trip(d)) for d in documents), Counter[str]()) == {}
