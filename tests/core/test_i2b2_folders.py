"""The i2b2 format reads texts and annotations in sibling folders, and in different folders of one split."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinie_core.data.corpora.conversion import convert
from clinie_core.data.corpora.detection import detect_format
from clinie_core.data.corpora.loading import CorpusSource, discover_splits, find_files, load_corpus
from clinie_core.data.document import Attribute, Corpus, Relation
from clinie_core.errors import InputError
from tests.corpora import list_mentions
from tests.releases import RECORD_ANNOTATIONS, RECORD_TEXT, REFERENCE, TEXTS, TRAINING, write_file, write_record


def write_release(root: Path) -> None:
    """Write the folders of the released corpus with one document each."""
    for name, institution in (("record-1", "beth"), ("018636330_DH", "partners")):
        write_record(name, root / TRAINING / institution / "txt", root / TRAINING / institution)
    write_record("0001", root / TEXTS, root / REFERENCE, "concepts")


def list_ids(corpus: Corpus) -> dict[str, list[str]]:
    return {split: sorted(d.id for d in documents) for split, documents in corpus.splits.items()}


def test_released_folders_are_read_without_a_preset(tmp_path: Path) -> None:
    write_release(tmp_path)
    assert detect_format(tmp_path) == "i2b2"
    corpus = load_corpus(discover_splits(tmp_path))
    assert list_ids(corpus) == {"train": ["beth/record-1", "partners/018636330_DH"], "test": ["0001"]}
    for document in (*corpus["train"], *corpus["test"]):
        assert list_mentions(document) == [("treatment", "Lasix"), ("problem", "pulmonary edema")]
        assert document.relations == (Relation("R1", "TrAP", "T1", "T2"),)
        assert document.attributes == (Attribute("A1", "assertion", "T2", "present"),)


def test_texts_and_annotations_may_be_two_named_places_of_a_split(tmp_path: Path) -> None:
    write_release(tmp_path)
    places: dict[str, str | list[str]] = {"train": TRAINING, "test": [TEXTS, REFERENCE]}
    corpus = load_corpus(CorpusSource(path=str(tmp_path), format="i2b2", splits=places))
    assert list_ids(corpus) == {"train": ["beth/record-1", "partners/018636330_DH"], "test": ["0001"]}
    assert len(corpus["test"][0].concepts) == 2
    without = CorpusSource(path=str(tmp_path), format="i2b2", splits={"train": TRAINING, "test": REFERENCE})
    with pytest.raises(InputError, match=r"0001\.con: there is no text of this name"):
        load_corpus(without)


@pytest.mark.parametrize("kinds_are_outside", [False, True], ids=["train/txt", "txt/train"])
def test_folders_of_kinds_and_of_splits_may_be_nested_in_any_order(tmp_path: Path, kinds_are_outside: bool) -> None:
    for split in ("train", "test"):
        for folder, suffix in (("TXT", "txt"), ("con", "con"), ("rel", "rel"), ("ast", "ast")):
            parts = (folder, split) if kinds_are_outside else (split, folder)
            write_file(
                tmp_path / Path(*parts) / f"{split}-note.{suffix}",
                RECORD_TEXT if suffix == "txt" else RECORD_ANNOTATIONS[suffix],
            )
    corpus = load_corpus(CorpusSource(path=str(tmp_path), format="i2b2"))
    assert list_ids(corpus) == {"train": ["train-note"], "test": ["test-note"]}
    assert all(len(d.concepts) == 2 for documents in corpus.splits.values() for d in documents)


def test_annotations_beside_the_text_and_in_a_sibling_folder_are_combined(tmp_path: Path) -> None:
    write_file(tmp_path / "n.txt", RECORD_TEXT)
    write_file(tmp_path / "n.con", RECORD_ANNOTATIONS["con"])
    write_file(tmp_path / "rel" / "n.rel", RECORD_ANNOTATIONS["rel"])
    (document,) = load_corpus(discover_splits(tmp_path, "i2b2"))["train"]
    assert (document.id, len(document.concepts), len(document.relations)) == ("n", 2, 1)


def test_annotations_that_fit_two_texts_are_an_error(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_file(tmp_path / folder / "n.txt", RECORD_TEXT)
    write_file(tmp_path / "concept" / "n.con", RECORD_ANNOTATIONS["con"])
    with pytest.raises(InputError, match=r"concept/n\.con: there is no text of this name, or the file is one of"):
        load_corpus(discover_splits(tmp_path, "i2b2"))


def test_texts_in_the_folder_unannotated_are_not_documents_without_concepts(tmp_path: Path) -> None:
    write_release(tmp_path)
    for name in ("a", "b"):
        write_file(tmp_path / TRAINING / "partners" / "unannotated" / f"{name}.txt", RECORD_TEXT)
    with pytest.raises(InputError) as caught:
        load_corpus(discover_splits(tmp_path))
    (line,) = str(caught.value).splitlines()
    assert "unannotated: a folder of texts without annotations is not read; pass --ignore unannotated" in line
    ignored = discover_splits(tmp_path, "i2b2", ["unannotated"])
    assert [d.id for d in load_corpus(ignored)["train"]] == ["beth/record-1", "partners/018636330_DH"]
    assert find_files(ignored).ignored["train"] == 2


def test_released_folders_convert_without_loss(tmp_path: Path) -> None:
    write_release(tmp_path / "release")
    report = convert(discover_splits(tmp_path / "release"), "jsonl", tmp_path / "out")
    assert (report.documents, report.concepts, report.files) == ({"train": 2, "test": 1}, 6, 12)
    assert not report.lost
