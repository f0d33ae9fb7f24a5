"""Options for faulty files: trusted offsets, and faults that are skipped or trimmed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.conversion import convert
from clinie_core.data.corpora.loading import CorpusSource, load_corpora, load_corpus, read_split
from clinie_core.data.corpora.reading import ReadingOptions
from clinie_core.data.corpora.summary import summarize
from clinie_core.data.document import Concept, Corpus, Document, Span
from clinie_core.errors import InputError, Problem
from clinie_core.inference.notes import find_notes, read_annotated_notes, read_notes

TEXT = "Aspirin helps. "
BIOC = {"id": "1", "passages": [{"offset": 0, "text": TEXT}]}


def make_bioc(*annotations: tuple[str, int, int, str]) -> str:
    rows = [
        {"id": id_, "infons": {"type": "Drug"}, "text": text, "locations": [{"offset": at, "length": length}]}
        for id_, at, length, text in annotations
    ]
    return json.dumps({"documents": [BIOC | {"annotations": rows}]})


MISMATCHES = {
    "brat": {"n.txt": TEXT, "n.ann": "T1\tDrug 0 7\tacetylsalicylic acid\n"},
    "pubtator": {"n.txt": f"1|t|{TEXT}\n1\t0\t7\tacetylsalicylic acid\tDrug\t1\n"},
    "bioc_json": {"n.json": make_bioc(("T1", 0, 7, "acetylsalicylic acid"))},
    "i2b2": {"n.txt": TEXT, "n.con": 'c="acetylsalicylic acid" 1:0 1:0||t="Drug"\n'},
    "radgraph": {
        "n.json": json.dumps(
            {
                "n": {
                    "text": TEXT,
                    "entities": {"1": {"tokens": "acetylsalicylic acid", "label": "Drug", "start_ix": 0, "end_ix": 0}},
                }
            }
        )
    },
}


def read(
    format_: str, folder: Path, files: dict[str, str], **options: str
) -> tuple[list[Document], list[tuple[str, str]]]:
    """Write files and read them; return the documents, and the severity and place of each problem."""
    for name, content in files.items():
        (folder / name).write_bytes(content.encode())
    items = list(FORMATS.load(format_)(ReadingOptions.model_validate(options)).read(folder))
    documents = [item for item in items if isinstance(item, Document)]
    problems = [(str(p.severity), p.where.removeprefix(f"{folder}/")) for p in items if isinstance(p, Problem)]
    return documents, problems


@pytest.mark.parametrize("format_", MISMATCHES)
def test_a_normalized_mention_is_an_error_unless_offsets_are_trusted(format_: str, tmp_path: Path) -> None:
    documents, problems = read(format_, tmp_path, MISMATCHES[format_])
    assert not documents
    assert [severity for severity, _ in problems] == ["error"]
    (document,), problems = read(format_, tmp_path, MISMATCHES[format_], offsets="trust")
    assert [(c.type, document.mention(c)) for c in document.concepts] == [("Drug", "Aspirin")]
    assert not problems


@pytest.mark.parametrize("format_", MISMATCHES)
@pytest.mark.parametrize("copy", ["Aspirin", "As pirin", "As\u00a0 pirin "])
def test_white_space_in_a_mention_need_not_match(format_: str, copy: str, tmp_path: Path) -> None:
    files = {name: content.replace("acetylsalicylic acid", copy) for name, content in MISMATCHES[format_].items()}
    (document,), problems = read(format_, tmp_path, files)
    assert [document.mention(c) for c in document.concepts] == ["Aspirin"]
    assert not problems


@pytest.mark.parametrize("format_", MISMATCHES)
def test_a_faulty_annotation_is_skipped_with_a_notice(format_: str, tmp_path: Path) -> None:
    (document,), problems = read(format_, tmp_path, MISMATCHES[format_], on_error="skip")
    assert document.concepts == ()
    assert [severity for severity, _ in problems] == ["skipped"]


def test_annotations_that_refer_to_a_skipped_one_are_skipped(tmp_path: Path) -> None:
    annotations = (
        "T1\tDrug 0 7\tAspirin\nT2\tDrug 8 13\tother\nR1\tX Arg1:T1 Arg2:T2\nA1\tNegated T2\nA2\tNegated T1\n"
        "#1\tAnnotatorNotes R1\tsure\nnonsense\n"
    )
    (document,), problems = read("brat", tmp_path, {"n.txt": TEXT, "n.ann": annotations}, on_error="skip")
    assert [c.id for c in document.concepts] == ["T1"]
    assert [a.id for a in document.attributes] == ["A2"]
    assert not document.relations
    assert not document.notes
    assert problems[:2] == [("skipped", "n.ann:2"), ("skipped", "n.ann:7")]
    assert [severity for severity, _ in problems] == ["skipped"] * 5


def test_trimming_cuts_at_the_end_of_the_text_and_removes_white_space(tmp_path: Path) -> None:
    files = {"n.txt": TEXT, "n.ann": "T1\tDrug 7 99\thelps. \nT2\tDrug 0 8\tAspirin\nT3\tDrug 7 8\t\n"}
    (document,), problems = read("brat", tmp_path, files, on_error="trim")
    assert document.concepts == (Concept("T1", "Drug", (Span(8, 14),)), Concept("T2", "Drug", (Span(0, 7),)))
    assert sorted(severity for severity, _ in problems) == ["skipped"] + ["trimmed"] * 4
    (document,), problems = read("brat", tmp_path, files, on_error="skip")
    assert {c.id for c in document.concepts} == {"T2", "T3"}
    assert problems == [("skipped", "n.ann:1")]


@pytest.mark.parametrize(
    ("format_", "files"),
    [
        ("brat", {"a.txt": "\udcff", "b.txt": "x"}),
        ("pubtator", {"a.txt": "1|t|x\n\nnothing\n\n2|t|y\n"}),
        ("conll", {"a.conll": "# newdoc id = a\na\n\n# newdoc id = b\nb O\n"}),
        ("jsonl", {"a.jsonl": '{}\n{"version": 1, "document": {"id": "b", "text": "x"}}\n'}),
        ("bioc_json", {"a.json": json.dumps({"documents": [{}, BIOC]})}),
        ("radgraph", {"a.json": json.dumps({"a": {}, "b": {"text": "", "entities": {}}})}),
        (
            "bioc_xml",
            {"a.xml": "<collection><document/><document><id>b</id></document></collection>"},
        ),
    ],
)
def test_a_document_that_cannot_be_read_is_skipped(format_: str, files: dict[str, str], tmp_path: Path) -> None:
    expected = 2 if format_ == "pubtator" else 1
    for name, content in files.items():
        (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
    documents, problems = read(format_, tmp_path, {}, on_error="skip")
    assert len(documents) == expected
    assert {severity for severity, _ in problems} == {"skipped"}
    documents, problems = read(format_, tmp_path, {})
    assert {severity for severity, _ in problems} == {"error"}


def test_conversion_and_loading_list_what_they_skip(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "n.txt").write_text(TEXT)
    (tmp_path / "c" / "n.ann").write_text("T1\tDrug 0 70\tAspirin\nT2\tDrug 0 7\tAspirin\n")
    source = CorpusSource(path=str(tmp_path / "c"), splits={"train": "."})
    with pytest.raises(InputError):
        load_corpus(source)
    source = source.model_copy(update={"on_error": "skip"})
    assert [c.id for c in load_corpus(source)["train"][0].concepts] == ["T2"]
    report = convert(source, "jsonl", tmp_path / "out")
    assert [(n.severity, n.where) for n in report.notices] == [("skipped", f"{tmp_path}/c/n.ann:1")]
    target = CorpusSource(path=str(tmp_path / "out"), format="jsonl", splits={"train": "."})
    (document,) = read_split(target, "train")
    assert isinstance(document, Document)
    assert [c.id for c in document.concepts] == ["T2"]


@pytest.mark.parametrize(
    ("type_", "state"), [("", "is empty"), ("D\tX", "a tab"), ("D\nX", "line end"), (" ", "empty")]
)
def test_a_type_that_no_annotation_file_can_contain_is_an_error(type_: str, state: str, tmp_path: Path) -> None:
    concept = {"id": "T1", "type": type_, "spans": [{"start": 0, "end": 7}]}
    line = {"version": 1, "document": {"id": "a", "text": TEXT, "concepts": [concept]}}
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    (problem,) = FORMATS.load("jsonl")().read(tmp_path)
    assert isinstance(problem, Problem)
    assert problem.where == f"{tmp_path}/a.jsonl:1"
    assert state in problem.found
    (document,), problems = read("jsonl", tmp_path, {}, on_error="skip")
    assert not document.concepts
    assert problems == [("skipped", "a.jsonl:1")]


def test_a_type_with_a_blank_is_written_to_brat_with_an_underscore(tmp_path: Path) -> None:
    document = Document("a", TEXT, (Concept("T1", "Adverse Event", (Span(0, 7),)),))
    assert FORMATS.load("brat")().round_trip(document).concepts == (Concept("T1", "Adverse_Event", (Span(0, 7),)),)
    (warning,) = summarize(Corpus({"train": (document,)})).warnings()
    assert "Adverse Event contains white space" in warning.found


def test_concepts_that_begin_or_end_in_white_space_are_counted() -> None:
    spans = [Span(0, 7), Span(0, 8), Span(7, 13), Span(8, 13)]
    document = Document("a", TEXT, tuple(Concept(f"T{n}", "Drug", (s,)) for n, s in enumerate(spans)))
    (warning,) = summarize(Corpus({"train": (document,)})).warnings()
    assert warning.where == "corpus.splits.train"
    assert warning.found.startswith("2 concepts begin or end in white space")


def test_a_loaded_corpus_has_the_notices_of_all_its_sources(tmp_path: Path) -> None:
    sources = []
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "n.txt").write_text(TEXT)
        (tmp_path / name / "n.ann").write_text("T1\tDrug 0 70\tAspirin\nT2\tDrug 0 7\tAspirin\n")
        sources.append(CorpusSource(path=str(tmp_path / name), splits={"train": "."}, on_error="skip"))
    corpus = load_corpora(sources)
    assert [(n.severity, n.where) for n in corpus.notices] == [
        ("skipped", f"{name}: {tmp_path}/{name}/n.ann:1") for name in "ab"
    ]
    assert corpus.merge_types({"Thing": ["Drug"]}).notices == corpus.notices


def test_a_listed_document_that_was_skipped_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "a.ann").write_text("T1\tDrug 0 7\tAspirin\n")
    (tmp_path / "b.txt").write_bytes(b"\xff")
    (tmp_path / "train.list").write_text("a\nb\n")
    source = CorpusSource(path=str(tmp_path), splits={"train": "train.list"}, on_error="skip")
    corpus = load_corpus(source)
    assert [d.id for d in corpus["train"]] == ["a"]
    assert {n.severity for n in corpus.notices} == {"skipped"}
    with pytest.raises(InputError):
        load_corpus(source.model_copy(update={"on_error": "stop"}))


def test_prediction_leaves_out_unreadable_texts_and_annotations(tmp_path: Path) -> None:
    for name, content in {"a": b"Aspirin", "b": b"caf\xe9", "c": b"Aspirin", "d": b"Aspirin"}.items():
        (tmp_path / f"{name}.txt").write_bytes(content)
    (tmp_path / "a.ann").write_text("T1\tDrug 0 7\tAspirin\nT2\tDrug 0 70\tx\n")
    (tmp_path / "c.ann").write_text("T1\tDrug 0 7\tAspirin\n")
    notes = find_notes([tmp_path])
    skipped: list[Problem] = []
    documents = read_notes(notes, skipped=skipped)
    assert [d.id for d in documents] == ["a", "c", "d"]
    annotated = read_annotated_notes(notes, documents, ReadingOptions(on_error="skip"), skipped=skipped)
    assert [(d.id, len(d.concepts)) for d in annotated] == [("a", 1), ("c", 1)]
    assert {n.severity for n in skipped} == {"skipped"}
    assert sorted(Path(n.where).name for n in skipped) == ["a.ann:2", "b.txt", "d.txt"]
    with pytest.raises(InputError) as caught:
        read_notes(notes)
    assert [Path(p.where).name for p in caught.value.problems] == ["b.txt"]
    with pytest.raises(InputError):
        read_notes([note for note in notes if note.id == "b"], skipped=[])


CONCEPT = {"id": "T2", "type": "Drug", "spans": [{"start": 0, "end": 7}]}
BAD_CONTENTS = {
    "jsonl": {
        "version": 1,
        "document": {
            "id": "1",
            "text": TEXT,
            "concepts": [
                {"id": "T0", "type": "Drug", "spans": [{"start": 7, "end": 7}]},
                {"id": "T1", "type": None, "spans": [{"start": 0, "end": "x"}]},
                CONCEPT,
            ],
            "relations": [{"id": "R1", "type": "X", "head": "T2", "tail": "T1"}],
        },
    },
    "bioc_json": {
        "documents": [
            BIOC
            | {
                "annotations": [
                    {"id": "T1", "infons": {"type": "Drug"}, "text": "Aspirin", "locations": [{"offset": 0}]},
                    "nonsense",
                    {
                        "id": "T2",
                        "infons": {"type": "Drug"},
                        "text": "Aspirin",
                        "locations": [{"offset": 0, "length": 7}],
                    },
                ]
            }
        ]
    },
    "radgraph": {
        "1": {
            "text": TEXT,
            "entities": {
                "T1": {"tokens": "Aspirin", "label": "", "start_ix": 0, "end_ix": 0},
                "T2": {"tokens": "Aspirin", "label": "Drug", "start_ix": 0, "end_ix": 0},
            },
        }
    },
    "doccano": {"id": 1, "text": TEXT, "label": [[0, "x", "Drug"], [0, 7, "Drug"]]},
}


@pytest.mark.parametrize("format_", BAD_CONTENTS)
def test_a_malformed_annotation_does_not_reject_its_document(format_: str, tmp_path: Path) -> None:
    file = f"a{FORMATS.load(format_).suffix}"  # type: ignore[attr-defined]
    documents, problems = read(format_, tmp_path, {file: json.dumps(BAD_CONTENTS[format_])})
    assert not documents
    assert {severity for severity, _ in problems} == {"error"}
    (document,), problems = read(format_, tmp_path, {}, on_error="skip")
    assert [(c.type, document.mention(c)) for c in document.concepts] == [("Drug", "Aspirin")]
    assert not document.relations
    assert problems
    assert {severity for severity, _ in problems} == {"skipped"}
    assert all(where.startswith(f"{file}:1") for _, where in problems)


@pytest.mark.parametrize(
    ("format_", "good", "bad"),
    [
        ("bioc_xml", "<collection><document><id>b</id></document></collection>", "<collection><document>"),
        ("bioc_json", json.dumps({"documents": [BIOC]}), '{"documents": ['),
        ("radgraph", json.dumps({"b": {"text": "", "entities": {}}}), "{"),
    ],
)
def test_a_file_that_cannot_be_parsed_is_skipped(format_: str, good: str, bad: str, tmp_path: Path) -> None:
    suffix = FORMATS.load(format_).suffix  # type: ignore[attr-defined]
    documents, problems = read(format_, tmp_path, {f"a{suffix}": bad, f"b{suffix}": good}, on_error="skip")
    assert len(documents) == 1
    assert [(severity, where.split(":")[0]) for severity, where in problems] == [("skipped", f"a{suffix}")]
