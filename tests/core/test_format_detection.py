"""Detection of formats from the names and contents of files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.detection import detect, detect_format
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.errors import InputError
from tests.corpora import write_corpus


@pytest.mark.parametrize("name", FORMATS)
def test_the_format_of_written_documents_is_detected(name: str, tmp_path: Path) -> None:
    for split, notes in generate_splits(12, seed=5).items():
        write_corpus(name, notes, tmp_path / split)
    assert detect_format(tmp_path) == name


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("label_studio", "a.json", '[{"id": 1, "annotations": [{"result": []}], "data": {"text": "x"}}]'),
        ("label_studio", "a.json", '[{"id": 1, "text": "x", "annotator": 1, "annotation_id": 2}]'),
        ("doccano", "all.jsonl", '{"id": 1, "text": "say \\"spans\\": x", "label": [[0, 1, "A"]]}\n'),
        ("doccano", "all.jsonl", '{"id": 1, "text": "x", "entities": [], "relations": []}\n'),
        ("spacy_jsonl", "a.jsonl", '{"text": "x", "_input_hash": 1, "_task_hash": 2, "tokens": [], "spans": []}\n'),
        ("spacy_jsonl", "a.json", '[["x", {"entities": [[0, 1, "A"]]}]]'),
        ("hf_jsonl", "train.json", '{"id": "0", "tokens": ["x"], "ner_tags": [0]}\n'),
        ("hf_jsonl", "train.json", '{"names": ["O"]}\n{"tokens": ["x"], "ner_tags": [0]}\n'),
        ("bioc_json", "a.json", '[{"documents": [{"id": "1", "passages": []}]}]'),
        ("cas_xmi", "a.xmi", '<?xml version="1.0"?>\n<xmi:XMI xmlns:xmi="x"/>'),
        ("ade", "DRUG-AE.rel", "10030778|A sentence.|pain|1|5|drug|7|9\n"),
        ("pubtator", "a.PubTator", "1|t|Pain\n1|a|None\n"),
        ("conll", "a.conll", "No O\nchest B-Problem\npain I-Problem\n"),
        ("conll", "a.conll", "chest\tB\npain\tI\n"),
        ("conll", "a.conll", "chest B-X \r\n\r\npain I-X\r\n"),
        ("conll", "train.bio", "No\tO\nchest\tB-Problem\npain\tI-Problem\n"),
        ("doccano", "a.json", '[{"text": "x", "labels": [[0, 1, "A"]]}]'),
        ("conll", "a.txt", "-DOCSTART- -X- O O\n\nNo DT B-NP O\n"),
        ("i2b2", "concept/a.con", 'c="x" 1:0 1:0||t="problem"\n'),
        ("bionlp", "a.a1", "T1\tProtein 0 1\tx\n"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_the_layouts_of_tools_are_detected(
    name: str, file: str, content: str, compressed: bool, tmp_path: Path
) -> None:
    place = tmp_path / "sub" / file
    place.parent.mkdir(parents=True)
    (tmp_path / "README.md").write_text("# A corpus\n")
    if compressed and name not in ("i2b2", "bionlp"):
        place.with_name(f"{place.name}.gz").write_bytes(gzip.compress(content.encode()))
    else:
        place.write_text(content, encoding="utf-8-sig")
    assert detect_format(tmp_path) == name
    if name not in ("i2b2", "bionlp"):
        groups = FORMATS.load(name)().group_files([file for file in tmp_path.rglob("*") if file.is_file()], tmp_path)
        assert [group.main.parent for group in groups] == [place.parent]


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("a.xml", '<annotations textSource="a.txt"/>', "the format is Knowtator XML, which is not supported"),
        ("train.parquet", "PAR1", "the format is Parquet"),
        ("a.xml", "<?xml version='1.0'?>\n<GateDocument/>", "the format is GATE XML"),
        ("a.xml", "<PatientMatching><TEXT>x</TEXT></PatientMatching>", "the format is n2c2 2018 track 1 XML"),
        ("a.json", '{"%TYPES": {}}', "the format is UIMA CAS JSON"),
    ],
)
def test_an_unsupported_format_is_named(file: str, content: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError) as caught:
        detect_format(tmp_path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{tmp_path / file}: {expected}")


def test_several_formats_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1|t|Pain\n")
    (tmp_path / "b.conll").write_text("a O\nb O\nc B-X\n")
    with pytest.raises(InputError, match=r"several formats: pubtator \(a\.txt\), conll \(b\.conll\)"):
        detect_format(tmp_path)
    assert detect_format(tmp_path, ignore=("*.conll",)) == "pubtator"


def test_texts_without_annotations_count_as_brat(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("No chest pain.\n")
    assert detect(tmp_path) == ("brat", tmp_path / "a.txt", 0)


def test_unknown_files_and_missing_folders_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\0\1")
    with pytest.raises(InputError, match="the format of the files is not recognized; brat, jsonl"):
        detect_format(tmp_path)
    with pytest.raises(InputError, match="no such folder or file"):
        detect_format(tmp_path / "missing")
