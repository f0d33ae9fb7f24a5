"""Contract of corpus formats, tested for every row of the registry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.checking import check_document
from clinie_core.data.corpora.conversion import load_target_format
from clinie_core.data.corpora.document_comparison import count_differences
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Document
from clinie_core.errors import InputError, Problem
from tests.corpora import WRITABLE, write_corpus


def make_notes() -> list[Document]:
    """Return notes sorted by id, which is the order in which a folder is read."""
    return sorted((note for split in generate_splits(12, seed=5).values() for note in split), key=lambda d: d.id)


@pytest.mark.parametrize("name", FORMATS)
class TestCorpusFormat:
    def test_it_has_an_example_of_its_files(self, name: str) -> None:
        assert FORMATS.load(name).example

    def test_an_empty_folder_has_no_documents(self, name: str, tmp_path: Path) -> None:
        assert FORMATS.load(name)().read_all(tmp_path) == ()

    def test_invalid_utf_8_is_a_problem_that_names_the_file(self, name: str, tmp_path: Path) -> None:
        format_ = FORMATS.load(name)()
        write_corpus(name, make_notes()[:1], tmp_path)
        file = max((f for f in tmp_path.iterdir() if f.is_file()), key=lambda f: f.stat().st_size)
        file.write_bytes(file.read_bytes()[:40] + b"\xff\xfe" + file.read_bytes()[40:])
        problems = [item for item in format_.read(tmp_path) if isinstance(item, Problem)]
        assert problems
        assert all(str(tmp_path) in problem.where for problem in problems)


@pytest.mark.parametrize("name", WRITABLE)
class TestWritableCorpusFormat:
    def test_written_documents_are_read_as_round_trip_predicts(self, name: str, tmp_path: Path) -> None:
        format_ = FORMATS.load(name)()
        written = make_notes()
        format_.write(written, tmp_path / "corpus")
        read = format_.read_all(tmp_path / "corpus")
        assert [d.id for d in read] == [d.id for d in written]
        assert list(read) == [format_.round_trip(note) for note in written]
        for document in read:
            assert not check_document(document, name)

    def test_a_second_round_trip_loses_nothing(self, name: str) -> None:
        format_ = FORMATS.load(name)()
        for note in make_notes():
            once = format_.round_trip(note)
            assert not count_differences(once, format_.round_trip(once))

    def test_no_text_and_no_whole_word_concept_is_lost(self, name: str) -> None:
        format_ = FORMATS.load(name)()
        for note in make_notes():
            lost = count_differences(replace(note, relations=(), attributes=()), format_.round_trip(note))
            assert lost["text"] == 0
            # Formats with tokens can widen or drop a concept; formats with offsets must not.
            if name not in {"i2b2", "radgraph", "conll", "hf_jsonl", "hf_dataset"}:
                assert lost["concepts"] == 0


@pytest.mark.parametrize("name", sorted({*FORMATS} - {*WRITABLE}))
def test_a_format_that_is_read_only_rejects_documents(name: str, tmp_path: Path) -> None:
    for write in (FORMATS.load(name)().round_trip, lambda note: FORMATS.load(name)().write([note], tmp_path / "new")):
        with pytest.raises(InputError, match=f"{name} is read only"):
            write(make_notes()[0])
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match=f"--to: {name} is read only; brat, "):
        load_target_format(name)
