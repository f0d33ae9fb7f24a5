"""What every reader keeps; a new row of the table is tested without a new test."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinie_core.corpora import READERS
from clinie_core.document import Document


@pytest.mark.parametrize("name", READERS)
class TestReader:
    def test_it_says_what_a_folder_holds(self, name: str) -> None:
        assert READERS.load(name).example

    def test_an_empty_folder_has_no_documents(self, name: str, tmp_path: Path) -> None:
        assert READERS.load(name)().read_all(tmp_path) == ()

    def test_it_reads_a_document_at_a_time_and_in_order(self, name: str, corpus_folder: Path) -> None:
        reader = READERS.load(name)()
        items = [item for item in reader.read(corpus_folder / "train") if isinstance(item, Document)]
        assert [d.id for d in items] == sorted(d.id for d in items)
        for document in items:
            length = len(document.text)
            assert all(0 <= s.start < s.end <= length for c in document.concepts for s in c.spans)
            ids = {c.id for c in document.concepts} | {r.id for r in document.relations}
            assert all(r.head in ids and r.tail in ids for r in document.relations)
            assert all(a.target in ids for a in document.attributes)
