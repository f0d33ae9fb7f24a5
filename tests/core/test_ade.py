"""The ADE corpus in the layout of its release."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinie_core.data.corpora.ade import Ade
from clinie_core.data.corpora.detection import detect_format
from clinie_core.data.corpora.discovery import discover_files
from clinie_core.data.corpora.reading import ReadingOptions
from clinie_core.data.document import Document, Relation
from clinie_core.errors import InputError, Problem
from tests.corpora import list_mentions

TITLE = "Intravenous vancomycin-induced rash."
BODY = "Rash and rash after vancomycin 1 g | day, not vancomycin b.i.d."
ABSTRACT = f"101\n\n{TITLE}\n\n{BODY}"
"""The text that offsets refer to."""


def find(mention: str, number: int = 1) -> str:
    """Return a mention with the offsets of one of its occurrences in the abstract."""
    at = -1
    for _ in range(number):
        at = ABSTRACT.index(mention, at + 1)
    return f"{mention}|{at}|{at + len(mention)}"


def write(folder: Path, **files: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    names = {"ae": "DRUG-AE.rel", "dose": "DRUG-DOSE.rel", "neg": "ADE-NEG.txt"}
    for key, lines in files.items():
        (folder / names[key]).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


AE = [
    f"101|{TITLE}|{find('rash')}|{find('vancomycin')}",
    f"101|{BODY}|{find('rash', 2)}|{find('vancomycin', 3)}",
    f"101|{BODY}|{find('Rash')}|{find('vancomycin', 2)}",
    f"101|{BODY}|{find('Rash')}|{find('vancomycin', 2)}",
]
DOSE = [f"101|{BODY}|{find('1 g')}|{find('vancomycin', 2)}"]


def test_the_annotations_of_a_sentence_are_those_of_all_its_lines(tmp_path: Path) -> None:
    write(
        tmp_path, ae=AE, dose=DOSE, neg=["101 NEG No rash was seen.", f"202 NEG {BODY}", "101 NEG  No rash was seen. "]
    )
    (tmp_path / "README.txt").write_text("ADE Corpus")
    assert detect_format(tmp_path) == "ade"
    found = discover_files(Ade(), tmp_path)
    assert (found.problems, found.unread) == ([], [])
    title, body, negative, other = Ade().read_all(tmp_path)
    assert [d.id for d in (title, body, negative, other)] == ["101-1", "101-2", "101-3", "202-1"]
    assert (title.text, body.text, negative.text) == (TITLE, BODY, "No rash was seen.")
    assert title.metadata == {"pmid": "101", "begin": str(ABSTRACT.index(TITLE))}
    assert body.metadata == {"pmid": "101", "begin": str(ABSTRACT.index(BODY))}
    assert negative.metadata == {"pmid": "101"}
    assert [(c.type, c.start) for c in body.concepts] == [
        ("Drug", BODY.rindex("vancomycin")),
        ("Adverse-Effect", BODY.index("rash")),
        ("Drug", BODY.index("vancomycin")),
        ("Adverse-Effect", 0),
        ("Dose", BODY.index("1 g")),
    ]
    assert body.relations == (
        Relation("R1", "DRUG-AE", "T1", "T2"),
        Relation("R2", "DRUG-AE", "T3", "T4"),
        Relation("R3", "DRUG-DOSE", "T3", "T5"),
    )
    assert not negative.concepts
    assert not other.concepts


def test_white_space_may_differ_and_ambiguous_places_are_named(tmp_path: Path) -> None:
    write(tmp_path, ae=["7|a rash  x, b, b|rash x|90|96|b|900|901"])
    document, notice = sorted(Ade().read(tmp_path), key=lambda item: isinstance(item, Problem))
    assert isinstance(document, Document)
    assert list_mentions(document) == [("Drug", "b"), ("Adverse-Effect", "rash  x")]
    assert isinstance(notice, Problem)
    assert notice.severity == "warning"
    assert str(notice) == f"{tmp_path}/DRUG-AE.rel:1: the Drug at 900 is in the sentence 2 times; the first is taken"


FAULTS = {
    "columns": ("101|A rash.|rash|1|5", "not a relation"),
    "pmid": (f"PMID|{TITLE}|{find('rash')}|{find('vancomycin')}", "not a relation"),
    "offset": (f"101|{TITLE}|rash|x|9|{find('vancomycin')}", "an offset is not a number"),
    "sentence": (f"101||{find('rash')}|{find('vancomycin')}", "an empty sentence"),
    "mention": (f"101|{TITLE}|fever|5|9|{find('vancomycin')}", "the Adverse-Effect at 5 is not in the sentence"),
    "empty": (f"101|{TITLE}||5|5|{find('vancomycin')}", "the Adverse-Effect at 5 is not in the sentence"),
}


@pytest.mark.parametrize(("line", "expected"), FAULTS.values(), ids=FAULTS)
def test_a_fault_names_its_line_and_can_be_left_out(tmp_path: Path, line: str, expected: str) -> None:
    write(tmp_path, ae=[line, *AE])
    problems = [item for item in Ade().read(tmp_path) if isinstance(item, Problem)]
    assert str(problems[0]).startswith(f"{tmp_path}/DRUG-AE.rel:1: {expected}")
    items = list(Ade(ReadingOptions(on_error="skip")).read(tmp_path))
    assert {item.severity for item in items if isinstance(item, Problem)} == {"skipped"}
    assert [len(item.concepts) for item in items if isinstance(item, Document)] == [2, 4]


def test_other_files_and_lines_are_reported(tmp_path: Path) -> None:
    write(tmp_path, ae=AE, neg=["101 POS No rash."])
    (tmp_path / "relations.rel").write_text(AE[0])
    with pytest.raises(InputError) as caught:
        Ade().read_all(tmp_path)
    assert [str(problem).partition(";")[0] for problem in caught.value.problems] == [
        f"{tmp_path}/relations.rel: its name does not tell the type of its annotations",
        f"{tmp_path}/ADE-NEG.txt:1: not a sentence without adverse effects",
    ]


def test_a_single_file_and_folders_of_splits_are_read(tmp_path: Path) -> None:
    write(tmp_path / "train", ae=AE)
    write(tmp_path / "test", dose=["9|Give 1 g aspirin.|1 g|5|8|aspirin|9|16"])
    found = discover_files(Ade(), tmp_path)
    assert {split: len(files.groups) for split, files in found.splits.items()} == {"train": 1, "test": 1}
    (document,) = Ade().read_all(tmp_path / "test" / "DRUG-DOSE.rel")
    assert list_mentions(document) == [("Drug", "aspirin"), ("Dose", "1 g")]
