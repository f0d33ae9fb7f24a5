"""The brat format: reading, round trips, and one line per problem."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinie_core.data.corpora.brat import Brat
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Attribute, Concept, Document, Normalization, Relation, Span
from clinie_core.errors import InputError


def folder_with(tmp_path: Path, text: str, annotations: str, name: str = "a") -> Path:
    (tmp_path / f"{name}.txt").write_bytes(text.encode())
    (tmp_path / f"{name}.ann").write_bytes(annotations.encode())
    return tmp_path


def read_one(folder: Path) -> Document:
    (document,) = Brat().read_all(folder)
    return document


def problem_of(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        Brat().read_all(folder)
    return str(caught.value)


def test_offsets_count_code_points_of_the_unmodified_file(tmp_path: Path) -> None:
    text = "Größe 😀\r\nfever\r\n"
    document = read_one(folder_with(tmp_path, text, "T1\tProblem 9 14\tfever\n"))
    assert document.text == text
    assert document.concepts == (Concept("T1", "Problem", (Span(9, 14),)),)


def test_discontinuous_concept_has_several_spans(tmp_path: Path) -> None:
    document = read_one(folder_with(tmp_path, "left and right knee", "T1\tSite 0 4;15 19\tleft knee\n"))
    assert document.concepts[0].spans == (Span(0, 4), Span(15, 19))


def test_mention_across_a_line_break_with_a_trailing_blank_is_read(tmp_path: Path) -> None:
    document = read_one(folder_with(tmp_path, "chest\npain", "T1\tProblem 0 10\tchest pain \n\n"))
    assert document.concepts[0].end == 10


def test_relations_events_and_attributes_resolve_to_concepts(tmp_path: Path) -> None:
    annotations = (
        "T1\tDrug 0 7\taspirin\nT2\tADE 8 12\trash\nE1\tADE:T2 Cause1:T1\n"
        "R1\tADE-Drug Arg1:T2 Arg2:T1\nA1\tNegation E1\nM1\tSeverity T2 mild\n"
        "N1\tReference T1 RxNorm:1191\taspirin\n#1\tAnnotatorNotes T1\tseen\n*\tEquiv T1 T2\n"
    )
    document = read_one(folder_with(tmp_path, "aspirin rash", annotations))
    assert document.relations == (Relation("E1.1", "Cause", "T2", "T1"), Relation("R1", "ADE-Drug", "T2", "T1")) or set(
        document.relations
    ) == {Relation("E1.1", "Cause", "T2", "T1"), Relation("R1", "ADE-Drug", "T2", "T1")}
    assert document.attributes == (Attribute("A1", "Negation", "T2"), Attribute("M1", "Severity", "T2", "mild"))


@pytest.mark.parametrize(
    ("annotations", "line", "expected"),
    [
        ("T1\tDrug 0 70\taspirin\n", 1, "offsets 0:70 lie outside the text of 12 characters"),
        ("T1\tDrug 8 12\taspirin\n", 1, "the mention differs from the text at its offsets"),
        ("T1\tDrug 0 7\taspirin\nT1\tADE 8 12\trash\n", 2, "duplicate id T1, first on line 1"),
        ("T1\tDrug 0 7\taspirin\nR1\tX Arg1:T1 Arg2:T9\n", 2, "R1 refers to T9, which does not exist"),
        ("T1\tDrug 0 7\taspirin\nA1\tNegation T5\n", 2, "A1 refers to T5, which does not exist"),
        ("T1\tDrug zero 7\taspirin\n", 1, "offsets do not parse"),
        ("T1\tDrug 7 7\t\n", 1, "offsets 7:7 lie outside"),
        ("R1\tX Arg1:T1\n", 1, "a relation needs two arguments"),
        ("E1\tADE\n", 1, "an event needs a trigger"),
        ("something else\n", 1, "not a brat annotation"),
    ],
)
def test_each_problem_is_one_line_with_file_and_line_number(
    tmp_path: Path, annotations: str, line: int, expected: str
) -> None:
    message = problem_of(folder_with(tmp_path, "aspirin rash", annotations))
    assert message.count("\n") == 0
    assert message.startswith(f"{tmp_path / 'a.ann'}:{line}: ")
    assert expected in message


def test_messages_quote_no_text(tmp_path: Path) -> None:
    message = problem_of(folder_with(tmp_path, "aspirin rash", "T1\tDrug 8 12\taspirin\n"))
    assert "aspirin" not in message
    assert "rash" not in message


def test_missing_text_and_invalid_utf8_are_reported(tmp_path: Path) -> None:
    (tmp_path / "b.ann").write_text("T1\tDrug 0 1\tx\n")
    (tmp_path / "c.txt").write_bytes(b"caf\xe9")
    message = problem_of(tmp_path)
    assert "b.ann: the text b.txt is missing" in message
    assert "c.txt: broken UTF-8 at byte 3" in message


def test_all_problems_of_all_files_are_reported_together(tmp_path: Path) -> None:
    folder_with(tmp_path, "aspirin", "T1\tDrug 0 70\tx\nT2\tDrug 5 90\ty\n", "a")
    folder_with(tmp_path, "aspirin", "T1\tDrug 0 70\tx\n", "b")
    assert len(problem_of(tmp_path).splitlines()) == 3


def test_written_documents_are_read_back_unchanged(tmp_path: Path) -> None:
    for split, notes in generate_splits(20, seed=1).items():
        Brat().write(notes, tmp_path / split)
        read = {document.id: document for document in Brat().read_all(tmp_path / split)}
        assert {note.id: (note.text, set(note.concepts), set(note.relations)) for note in notes} == {
            id_: (d.text, set(d.concepts), set(d.relations)) for id_, d in read.items()
        }


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40), data=st.data())
def test_round_trip_preserves_any_text_and_span(
    tmp_path_factory: pytest.TempPathFactory, text: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    document = Document("x", text, (Concept("T1", "Problem", (Span(start, end),)),))
    folder = tmp_path_factory.mktemp("trip")
    Brat().write([document], folder)
    assert read_one(folder) == document


@pytest.mark.parametrize(
    "line",
    [
        "# written by a tool",
        "#",
        "#\tcheck this",
        "#1\tplease check",
        "#1\tAnnotatorNotes unclear whether it is a drug",
        "#1 a comment without a tab",
        "#!version 2\n#!version 2",
    ],
)
def test_comments_without_a_target_are_no_annotations(tmp_path: Path, line: str) -> None:
    document = read_one(
        folder_with(tmp_path, "aspirin", f"{line}\nT1\tDrug 0 7\taspirin\n#1\tAnnotatorNotes T1\tsure\n")
    )
    assert [c.id for c in document.concepts] == ["T1"]
    assert [(n.target, n.text) for n in document.notes] == [("T1", "sure")]


def test_a_note_on_a_missing_annotation_is_an_error(tmp_path: Path) -> None:
    message = problem_of(folder_with(tmp_path, "aspirin", "#1\tAnnotatorNotes T9\tsure\n"))
    assert "#1 refers to T9, which does not exist" in message


@pytest.mark.parametrize(
    ("text", "annotation"),
    [
        ("mu- and kappa-opioids", "T1\tDrug 0 3;14 21\tmu-opioids"),
        ("mu- and kappa-opioids", "T1\tDrug 0 3;14 21\tmu-  opioids "),
        ("mu- and kappa-opioids", "T1\tDrug 0 3;14 21\tmu- opioids"),
        ("chest\n  pain", "T1\tProblem 0 5;8 12\tchestpain"),
        ("chest\n  pain", "T1\tProblem 0 12\tchestpain"),
        ("chestpain", "T1\tProblem 0 9\tchest pain"),
    ],
)
def test_white_space_in_a_mention_and_between_its_parts_need_not_match(
    tmp_path: Path, text: str, annotation: str
) -> None:
    (concept,) = read_one(folder_with(tmp_path, text, annotation)).concepts
    offsets = annotation.split("\t")[1].split(" ", 1)[1]
    assert ";".join(f"{s.start} {s.end}" for s in concept.spans) == offsets


def test_codes_of_cadec_normalize_the_concepts_at_their_offsets(tmp_path: Path) -> None:
    annotations = (
        "T1\tADR 0 10\tbit drowsy\nT2\tDrug 16 23\taspirin\nT3\tADR 24 28\trash\n"
        "TT1\t10013649 0 10\tbit drowsy\nTT2 271782001 | Drowsy | 0 10 bit drowsy\nTT3\tCONCEPT_LESS 24 28\trash\n"
    )
    document = read_one(folder_with(tmp_path, "bit drowsy from aspirin rash", annotations))
    assert [c.id for c in document.concepts] == ["T1", "T2", "T3"]
    assert document.normalizations == (
        Normalization("TT1", "T1", "MedDRA", "10013649"),
        Normalization("TT2", "T1", "SNOMED", "271782001", "Drowsy"),
    )


def test_codes_of_cadec_without_concepts_are_concepts(tmp_path: Path) -> None:
    document = read_one(folder_with(tmp_path, "bit drowsy", "TT1\t10013649 0 3;4 10\tbit drowsy\n"))
    assert document.concepts == (Concept("TT1", "10013649", (Span(0, 3), Span(4, 10))),)
    message = problem_of(folder_with(tmp_path, "bit drowsy", "TT1\t10013649 0 99\tbit drowsy\n"))
    assert "TT1: offsets 0:99 lie outside the text" in message
