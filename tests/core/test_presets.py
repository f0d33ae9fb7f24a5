"""Presets read the released layouts of published corpora with their official splits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.conversion import convert
from clinie_core.data.corpora.loading import CorpusSource, discover_splits, find_files, load_corpus
from clinie_core.data.corpora.presets import PRESETS, CorpusPreset
from clinie_core.data.document import Attribute, Corpus
from clinie_core.errors import InputError
from clinie_core.scoring import SCORERS
from tests.corpora import list_mentions
from tests.releases import REFERENCE, RELEASES, TEXTS, TRAINING, write_ade, write_file, write_records

IDS = {
    "n2c2-2018": {
        "train": ["100035", "100036", "100037"],
        "dev": ["100038"],
        "test": ["200035", "200036"],
    },
    "n2c2-2022": {split: [f"mimic/{split}-0001", f"uw/{split}-0001"] for split in ("train", "dev", "test")},
    "i2b2-2010": {
        "train": ["beth/record-1", "partners/record-1", "partners/record-2"],
        "dev": ["beth/record-2"],
        "test": ["0001"],
    },
    "radgraph": {"train": ["p10/p10/s0.txt"], "dev": ["p10/p11/s1.txt"], "test": ["p10/p12/s2.txt"]},
}
COUNTS = {"n2c2-2018": (7, 3, 0), "n2c2-2022": (6, 4, 3), "i2b2-2010": (2, 1, 1), "radgraph": (2, 1, 0)}
"""Concepts, relations and attributes of each document."""
DIFFERENCES = {
    "n2c2-2018": "expected 303 train and 202 test documents, found 4 train and 2 test (train includes dev)",
    "n2c2-2022": "expected 3,067 train and 447 dev and 891 test documents, found 2 train and 2 dev and 2 test",
    "i2b2-2010": "expected 170 train and 256 test documents, found 4 train and 1 test (train includes dev)",
    "radgraph": "expected 425 train and 75 dev and 100 test documents, found 1 train and 1 dev and 1 test",
}


def read(root: Path, name: str, **keys: Any) -> Corpus:
    return load_corpus(CorpusSource(path=str(root), preset=name, **keys))


def list_ids(corpus: Corpus) -> dict[str, list[str]]:
    return {split: sorted(d.id for d in documents) for split, documents in corpus.splits.items()}


def list_warnings(corpus: Corpus) -> list[str]:
    return [str(notice) for notice in corpus.notices]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_reads_its_release(tmp_path: Path, name: str) -> None:
    RELEASES[name](tmp_path)
    corpus = read(tmp_path, name)
    assert list_ids(corpus) == IDS[name]
    assert list(corpus.splits) == ["train", "dev", "test"]
    for documents in corpus.splits.values():
        for document in documents:
            assert (len(document.concepts), len(document.relations), len(document.attributes)) == COUNTS[name]
    assert f"corpus.preset: {name}: {DIFFERENCES[name]}" in "\n".join(list_warnings(corpus))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_an_existing_scorer_and_has_a_release_to_test(name: str) -> None:
    assert PRESETS[name].scorer is None or PRESETS[name].scorer in SCORERS
    assert PRESETS[name].format in FORMATS
    assert name in RELEASES


def test_a_complete_release_has_no_warning_and_a_fixed_dev_split(tmp_path: Path) -> None:
    write_ade(tmp_path, 303, 202)
    corpus = read(tmp_path, "n2c2-2018")
    assert {split: len(documents) for split, documents in corpus.splits.items()} == {
        "train": 273,
        "dev": 30,
        "test": 202,
    }
    assert not corpus.notices
    dev = list_ids(corpus)["dev"]
    assert dev[:3] == ["100040", "100059", "100073"]
    # A search reads train and dev only; the test documents are not opened.
    shutil.rmtree(tmp_path / "gold-standard-test-data")
    (tmp_path / "gold-standard-test-data").mkdir()
    searched = load_corpus(CorpusSource(path=str(tmp_path), preset="n2c2-2018"), ("train", "dev"))
    assert list_ids(searched)["dev"] == dev
    assert not searched.notices
    (tmp_path / "training_20180910" / "100036.ann").unlink()
    (tmp_path / "training_20180910" / "100036.txt").unlink()
    assert (
        "expected 303 train documents, found 302 train (train includes dev)"
        in list_warnings(load_corpus(CorpusSource(path=str(tmp_path), preset="n2c2-2018"), ("train", "dev")))[0]
    )


def test_the_text_of_a_discontinuous_reason_is_read_as_released(tmp_path: Path) -> None:
    write_ade(tmp_path)
    document = read(tmp_path, "n2c2-2018")["train"][0]
    assert ("Reason", "for AF") in list_mentions(document)
    assert {r.type for r in document.relations} == {"Strength-Drug", "Route-Drug", "ADE-Drug"}


def test_events_become_relations_and_keep_the_labels_of_their_arguments(tmp_path: Path) -> None:
    RELEASES["n2c2-2022"](tmp_path)
    document = read(tmp_path, "n2c2-2022")["dev"][0]
    types = {c.id: c.type for c in document.concepts}
    assert [(types[r.head], r.type, types[r.tail]) for r in document.relations] == [
        ("Tobacco", "Status", "StatusTime"),
        ("Tobacco", "Amount", "Amount"),
        ("LivingStatus", "Status", "StatusTime"),
        ("LivingStatus", "Type", "TypeLiving"),
    ]
    assert Attribute("A3", "TypeLivingVal", "T6", "with_family") in document.attributes


def test_the_second_annotator_of_radgraph_is_reported_once_as_not_read(tmp_path: Path) -> None:
    RELEASES["radgraph"](tmp_path)
    lines = [line for line in list_warnings(read(tmp_path, "radgraph")) if "labeler_2" in line]
    assert lines == [f"{tmp_path / 'test.json'}:1: labeler_2 is not read, where a report has two annotators"]


@pytest.mark.parametrize("folder", ["test", "gold-standard-test-data/test", "gold-standard-test-data"])
def test_the_test_folder_of_n2c2_2018_has_several_names(tmp_path: Path, folder: str) -> None:
    write_ade(tmp_path, test_folder=folder)
    assert list_ids(read(tmp_path, "n2c2-2018"))["test"] == ["200035", "200036"]


@pytest.mark.parametrize("folder", ["SHAC", "Annotations"])
def test_shac_may_be_in_the_folder_of_its_archive(tmp_path: Path, folder: str) -> None:
    RELEASES["n2c2-2022"](tmp_path / folder)
    assert list_ids(read(tmp_path, "n2c2-2022")) == IDS["n2c2-2022"]


def test_only_equal_texts_of_one_name_in_two_splits_are_an_error(tmp_path: Path) -> None:
    RELEASES["n2c2-2022"](tmp_path)
    for split in ("train", "test"):
        write_file(tmp_path / split / "uw" / "1.txt", f"Smokes, {split}")
        write_file(tmp_path / split / "uw" / "1.ann", "T1\tTobacco 0 6\tSmokes\n")
    ids = list_ids(read(tmp_path, "n2c2-2022"))
    assert "train/uw/1" in ids["train"]
    assert "test/uw/1" in ids["test"]
    write_file(tmp_path / "test" / "uw" / "1.txt", "Smokes, train")
    with pytest.raises(InputError, match="document uw/1 is also in train"):
        read(tmp_path, "n2c2-2022")


def test_test_texts_of_i2b2_may_be_beside_their_annotations(tmp_path: Path) -> None:
    write_records(tmp_path)
    shutil.move(tmp_path / TEXTS, tmp_path / REFERENCE / "txt")
    corpus = read(tmp_path, "i2b2-2010")
    assert list_ids(corpus)["test"] == ["0001"]
    assert len(corpus["test"][0].concepts) == 2


def test_texts_without_annotations_of_i2b2_are_ignored_and_counted(tmp_path: Path) -> None:
    write_records(tmp_path)
    source = CorpusSource(path=str(tmp_path), preset="i2b2-2010")
    assert find_files(source).ignored["train"] == 1
    assert "018636330_DH" not in str(list_ids(load_corpus(source)))


@pytest.mark.parametrize("name", PRESETS)
def test_missing_folders_are_one_line_with_the_expected_and_the_existing_names(tmp_path: Path, name: str) -> None:
    for archive in ("a.zip", "b.zip"):
        write_file(tmp_path / archive, "")
    with pytest.raises(InputError) as caught:
        read(tmp_path, name)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"corpus.preset: {tmp_path} lacks ")
    for split, alternatives in PRESETS[name].layouts.items():
        assert f"({split})" in line
        assert all(place in line for places in alternatives for place in places)
    assert "it contains a.zip, b.zip; unpack the archives" in line


def test_a_missing_test_split_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_ade(tmp_path, test=0)
    with pytest.raises(
        InputError, match=r"lacks gold-standard-test-data/test or gold-standard-test-data or test \(test"
    ):
        read(tmp_path, "n2c2-2018")


def test_files_outside_the_splits_are_reported_unless_they_are_known(tmp_path: Path) -> None:
    write_ade(tmp_path)
    for known in ("training_20180910.zip", "README.txt", "__MACOSX/x"):
        write_file(tmp_path / known, "")
    assert len(read(tmp_path, "n2c2-2018").notices) == 1
    for other in ("more/1.txt", "more/2.txt"):
        write_file(tmp_path / other, "")
    (warning,) = [line for line in list_warnings(read(tmp_path, "n2c2-2018")) if "outside" in line]
    assert warning.startswith(
        f"{tmp_path / 'more/1.txt'}: not read, since it is outside the splits of the preset, like 1"
    )
    assert len(read(tmp_path, "n2c2-2018", ignore=["more"]).notices) == 1


def test_unread_files_within_the_splits_are_errors(tmp_path: Path) -> None:
    write_ade(tmp_path)
    write_file(tmp_path / "training_20180910" / "notes.csv", "")
    with pytest.raises(InputError, match=r"notes\.csv: not read"):
        read(tmp_path, "n2c2-2018")
    assert list_ids(read(tmp_path, "n2c2-2018", ignore=["*.csv"])) == IDS["n2c2-2018"]


def test_splits_of_the_user_replace_those_of_the_preset(tmp_path: Path) -> None:
    RELEASES["n2c2-2022"](tmp_path)
    splits = {split: f"{split}/mimic" for split in ("train", "dev", "test")}
    corpus = read(tmp_path, "n2c2-2022", splits=splits)
    assert list_ids(corpus) == {split: [f"{split}-0001"] for split in splits}
    assert not corpus.notices


def test_a_conversion_warns_of_a_wrong_number_of_documents(tmp_path: Path) -> None:
    write_ade(tmp_path / "release")
    report = convert(discover_splits(tmp_path / "release", preset="n2c2-2018"), "jsonl", tmp_path / "out")
    assert report.documents == {"train": 3, "dev": 1, "test": 2}
    assert [str(notice).partition("; ")[0] for notice in report.notices] == [
        f"corpus.preset: n2c2-2018: {DIFFERENCES['n2c2-2018']}"
    ]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"preset": "n2c2-2019"}, "unknown preset 'n2c2-2019'; allowed: n2c2-2018, n2c2-2022, i2b2-2010, radgraph"),
        ({"preset": "n2c2-2018", "format": "i2b2"}, "preset n2c2-2018 has the format brat, not i2b2; remove format"),
        ({"preset": "radgraph", "shares": {}}, "preset radgraph has official splits; remove shares"),
        ({"preset": ["radgraph"]}, "string"),
    ],
    ids=["unknown", "format", "shares", "no-string"],
)
def test_contradictory_keys_are_refused(tmp_path: Path, keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match="1 validation error") as caught:
        CorpusSource.model_validate({"path": str(tmp_path), **keys})
    assert expected in caught.value.errors()[0]["msg"]


def test_a_preset_determines_the_format_and_survives_storage(tmp_path: Path) -> None:
    for format_ in ("auto", "radgraph"):
        source = CorpusSource(path=str(tmp_path), preset="radgraph", format=format_)
        assert source.format == "radgraph"
        assert CorpusSource.model_validate_json(source.model_dump_json()) == source
    assert discover_splits(tmp_path, preset="i2b2-2010").format == "i2b2"
    with pytest.raises(InputError, match=r"--preset: unknown preset 'shac'; allowed: n2c2-2018"):
        discover_splits(tmp_path, preset="shac")
    with pytest.raises(InputError, match="preset i2b2-2010 has the format i2b2, not brat"):
        discover_splits(tmp_path, "brat", preset="i2b2-2010")


@pytest.mark.parametrize(
    "keys",
    [
        {"format": "bart"},
        {"documents": {"train": 1}},
        {"dev_share": 0},
        {"layouts": {"train": (("a",),), "dev": (("b",),)}, "documents": {"train": 1, "dev": 1}},
    ],
    ids=["format", "documents", "no-dev", "two-devs"],
)
def test_an_inconsistent_preset_is_refused(keys: dict[str, Any]) -> None:
    valid: dict[str, Any] = {
        "title": "x",
        "format": "brat",
        "layouts": {"train": (("a",),), "test": (("b",),)},
        "documents": {"train": 2, "test": 1},
        "dev_share": 0.1,
    }
    assert CorpusPreset.model_validate(valid).locate(Path("missing")) == {}
    assert TRAINING in str(PRESETS["i2b2-2010"].layouts)
    with pytest.raises(ValidationError):
        CorpusPreset.model_validate(valid | keys)
