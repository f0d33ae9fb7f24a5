"""Formats of shared tasks, each tested with a small file in the layout of the task."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.document_comparison import count_differences
from clinie_core.data.document import Attribute, Document, Equivalence, Normalization
from clinie_core.errors import InputError

TEXT = "\U0001f600 E. coli induces TNF expression.\n"
"""An emoji precedes all concepts."""


def read(format_: str, folder: Path, **files: str) -> Document:
    """Write files and read the only document; ``a1="..."`` is the content of ``note.a1``."""
    for suffix, content in files.items():
        (folder / f"note.{suffix}").write_text(content, encoding="utf-8", newline="")
    (document,) = FORMATS.load(format_)().read_all(folder)
    return document


def mentions(document: Document) -> list[tuple[str, str]]:
    return [(c.type, document.mention(c)) for c in document.concepts]


class TestBioNlp:
    A1 = "T1\tBacteria 2 9\tE. coli\nT2\tProtein 18 21\tTNF\n"

    def test_entities_events_and_modifications_are_read(self, tmp_path: Path) -> None:
        a2 = (
            "*\tEquiv T1 T2\nT3\tPositive_regulation 10 17\tinduces\nT4\tGene_expression 22 32\texpression\n"
            "E1\tGene_expression:T4 Theme:T2\nE2\tPositive_regulation:T3 Theme:E1 Cause:T1\n"
            "M1\tSpeculation E2\nR1\tCoref Subject:T2 Object:T1\n"
            "N1\tNCBI_Taxonomy Annotation:T1 Referent:562\nN2\tReference T2 UniProt:P01375\tTNF\n"
        )
        document = read("bionlp", tmp_path, txt=TEXT, a1=self.A1, a2=a2)
        assert mentions(document) == [
            ("Bacteria", "E. coli"),
            ("Positive_regulation", "induces"),
            ("Protein", "TNF"),
            ("Gene_expression", "expression"),
        ]
        assert [(r.type, r.head, r.tail) for r in document.relations] == [
            ("Theme", "T4", "T2"),
            ("Theme", "T3", "T4"),
            ("Cause", "T3", "T1"),
            ("Coref", "T2", "T1"),
        ]
        assert document.attributes == (Attribute("M1", "Speculation", "T3"),)
        assert document.equivalences == (Equivalence("Equiv", ("T1", "T2")),)
        assert document.normalizations == (
            Normalization("N1", "T1", "NCBI_Taxonomy", "562"),
            Normalization("N2", "T2", "UniProt", "P01375", "TNF"),
        )
        assert not count_differences(document, FORMATS.load("bionlp")().round_trip(document))

    def test_a_test_set_has_no_a2_file(self, tmp_path: Path) -> None:
        assert mentions(read("bionlp", tmp_path, txt=TEXT, a1=self.A1)) == [("Bacteria", "E. coli"), ("Protein", "TNF")]

    @pytest.mark.parametrize(
        ("a1", "a2", "expected"),
        [
            ("T1\tBacteria 2 9\tE. coli\nT2\tProtein 17 20\tTNF\n", "", "a1:2: T2: the mention differs"),
            ("T1\tBacteria 2 99\tE. coli\n", "", "a1:1: T1: offsets 2:99 lie outside the text"),
            ("T1\t2 9\tE. coli\n", "", "a1:1: T1: offsets do not parse"),
            (A1, "E1\tExpression:T9 Theme:T1\n", "a2:1: E1 refers to T9, which does not exist"),
            (A1, "*\tEquiv T1 T2\nT1\tProtein 18 21\tTNF\n", "a2:2: duplicate id T1"),
            (A1, "M1\n", "a2:1: not a brat annotation"),
        ],
    )
    def test_each_problem_names_its_file_and_line(self, tmp_path: Path, a1: str, a2: str, expected: str) -> None:
        with pytest.raises(InputError) as caught:
            read("bionlp", tmp_path, txt=TEXT, a1=a1, a2=a2)
        assert str(caught.value).splitlines()[0].startswith(f"{tmp_path / 'note'}.{expected}")

    def test_annotations_without_a_text_are_a_problem(self, tmp_path: Path) -> None:
        (tmp_path / "note.a1").write_text(self.A1)
        with pytest.raises(InputError, match=r"note\.a1: the text note\.txt is missing"):
            FORMATS.load("bionlp")().read_all(tmp_path)
