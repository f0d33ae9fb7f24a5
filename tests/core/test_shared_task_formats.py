"""Formats of shared tasks, each tested with a small file in the layout of the task."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.document_comparison import count_differences
from clinie_core.data.corpora.reading import ReadingOptions
from clinie_core.data.document import Attribute, Concept, Document, Equivalence, Normalization, Relation, Span
from clinie_core.errors import InputError, Problem
from tests.corpora import list_mentions, read_note

TEXT = "\U0001f600 E. coli induces TNF expression.\n"
"""An emoji precedes all concepts."""


class TestBioNlp:
    A1 = "T1\tBacteria 2 9\tE. coli\nT2\tProtein 18 21\tTNF\n"

    def test_entities_events_and_modifications_are_read(self, tmp_path: Path) -> None:
        a2 = (
            "*\tEquiv T1 T2\nT3\tPositive_regulation 10 17\tinduces\nT4\tGene_expression 22 32\texpression\n"
            "E1\tGene_expression:T4 Theme:T2\nE2\tPositive_regulation:T3 Theme:E1 Cause:T1\n"
            "M1\tSpeculation E2\nR1\tCoref Subject:T2 Object:T1\n"
            "N1\tNCBI_Taxonomy Annotation:T1 Referent:562\nN2\tReference T2 UniProt:P01375\tTNF\n"
        )
        document = read_note("bionlp", tmp_path, txt=TEXT, a1=self.A1, a2=a2)
        assert list_mentions(document) == [
            ("Bacteria", "E. coli"),
            ("Protein", "TNF"),
            ("Positive_regulation", "induces"),
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
        assert list_mentions(read_note("bionlp", tmp_path, txt=TEXT, a1=self.A1)) == [
            ("Bacteria", "E. coli"),
            ("Protein", "TNF"),
        ]

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
            read_note("bionlp", tmp_path, txt=TEXT, a1=a1, a2=a2)
        assert str(caught.value).splitlines()[0].startswith(f"{tmp_path / 'note'}.{expected}")

    def test_annotations_without_a_text_are_a_problem(self, tmp_path: Path) -> None:
        (tmp_path / "note.a1").write_text(self.A1)
        with pytest.raises(InputError, match=r"note\.a1: the text note\.txt is missing"):
            FORMATS.load("bionlp")().read_all(tmp_path)


class TestDdiXml:
    XML = (
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n<document id="D1">\n'
        '<sentence id="D1.s0" text="\U0001f600 Aspirin may bind.">\n'
        '<entity id="D1.s0.e0" charOffset="2-8" type="drug" text="Aspirin"/></sentence>\n'
        '<sentence id="D1.s1" text="Give \U0001f600 loop and thiazide diuretics with &quot;X&quot;.">\n'
        '<entity id="D1.s1.e0" charOffset="7-10;25-33" type="group" text="loop diuretics"/>\n'
        '<entity id="D1.s1.e1" charOffset="16-33" type="group" text="thiazide diuretics"/>\n'
        '<pair id="D1.s1.p0" e1="D1.s1.e0" e2="D1.s1.e1" ddi="true" type="effect"/>\n'
        '<pair id="D1.s1.p1" e1="D1.s1.e1" e2="D1.s1.e0" ddi="false"/></sentence></document>'
    )

    def test_entities_with_inclusive_ends_and_pairs_are_read(self, tmp_path: Path) -> None:
        document = read_note("ddi_xml", tmp_path, xml=self.XML)
        assert document.text.split("\n")[0] == "\U0001f600 Aspirin may bind."
        assert list_mentions(document) == [
            ("drug", "Aspirin"),
            ("group", "loop diuretics"),
            ("group", "thiazide diuretics"),
        ]
        assert document.relations == (Relation("R1", "effect", "D1.s1.e0", "D1.s1.e1"),)
        assert not count_differences(document, FORMATS.load("ddi_xml")().round_trip(document))

    @pytest.mark.parametrize("offsets", ["2-8", "2-9", "3-9"], ids=["inclusive", "exclusive", "utf-16"])
    def test_the_copy_of_the_mention_decides_the_unit(self, tmp_path: Path, offsets: str) -> None:
        document = read_note("ddi_xml", tmp_path, xml=self.XML.replace("2-8", offsets))
        assert list_mentions(document)[0] == ("drug", "Aspirin")

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            ("2-8", "4-10", "4: D1.s0.e0: the mention differs from the text at its offsets"),
            ("2-8", "2-99", "4: D1.s0.e0: offsets 2:100 lie outside the text"),
            ("2-8", "2", "4: D1.s0.e0: charOffset does not parse"),
            ('type="drug" ', "", "4: D1.s0.e0: no type"),
            ('e2="D1.s1.e1"', 'e2="D1.s1.e9"', " R1 refers to D1.s1.e9, which does not exist"),
            ("</document>", "", "9: not well-formed XML"),
            ("sentence", "passage", "1: not a document of the DDI corpus"),
        ],
    )
    def test_each_problem_names_its_file_and_line(self, tmp_path: Path, old: str, new: str, expected: str) -> None:
        with pytest.raises(InputError) as caught:
            read_note("ddi_xml", tmp_path, xml=self.XML.replace(old, new))
        assert str(caught.value).splitlines()[0].startswith(f"{tmp_path / 'note.xml'}:{expected}")


class TestI2b2Xml:
    XML_2012 = (
        '<?xml version="1.0" encoding="UTF-8" ?>\n<ClinicalNarrativeTemporalAnnotation>\n<TEXT><![CDATA[\n'
        "Admission Date :\n2011-03-04\n\U0001f600 Given aspirin & rest .\n]]></TEXT>\n<TAGS>\n"
        '<EVENT id="E0" start="1" end="10" text="Admission" modality="FACTUAL" polarity="POS" type="OCCURRENCE" />\n'
        '<EVENT id="E1" start="37" end="44" text="aspirin" modality="FACTUAL" polarity="NEG" type="TREATMENT" />\n'
        '<TIMEX3 id="T0" start="18" end="28" text="2011-03-04" type="DATE" val="2011-03-04" mod="NA" />\n'
        '<TLINK id="TL0" fromID="E1" fromText="aspirin" toID="T0" toText="2011-03-04" type="AFTER" />\n'
        "</TAGS>\n</ClinicalNarrativeTemporalAnnotation>\n"
    )
    XML_2014 = (
        '<?xml version="1.0" encoding="UTF-8" ?>\n<deIdi2b2>\n<TEXT><![CDATA[\n\nRecord date: 2067-05-03\n\n'
        "Seen by Xu, 61 yo\n]]></TEXT>\n<TAGS>\n"
        '<DATE id="P0" start="15" end="25" text="2067-05-03" TYPE="DATE" comment="" />\n'
        '<NAME id="P1" start="35" end="37" text="Xu" TYPE="DOCTOR" comment="sure" />\n</TAGS>\n</deIdi2b2>\n'
    )

    def test_events_times_and_links_of_2012_are_read(self, tmp_path: Path) -> None:
        document = read_note("i2b2_xml", tmp_path, xml=self.XML_2012)
        assert list_mentions(document) == [
            ("OCCURRENCE", "Admission"),
            ("TREATMENT", "aspirin"),
            ("DATE", "2011-03-04"),
        ]
        assert document.relations == (Relation("TL0", "AFTER", "E1", "T0"),)
        values = [(a.type, a.target, a.value) for a in document.attributes]
        assert values[2:] == [
            ("modality", "E1", "FACTUAL"),
            ("polarity", "E1", "NEG"),
            ("val", "T0", "2011-03-04"),
            ("mod", "T0", "NA"),
        ]
        assert not count_differences(document, FORMATS.load("i2b2_xml")().round_trip(document))

    def test_offsets_in_utf_16_are_recognized_by_the_copies(self, tmp_path: Path) -> None:
        content = self.XML_2012.replace('start="37" end="44"', 'start="38" end="45"')
        assert list_mentions(read_note("i2b2_xml", tmp_path, xml=content))[1] == ("TREATMENT", "aspirin")

    def test_the_tags_of_2014_are_read(self, tmp_path: Path) -> None:
        document = read_note("i2b2_xml", tmp_path, xml=self.XML_2014)
        assert list_mentions(document) == [("DATE", "2067-05-03"), ("DOCTOR", "Xu")]
        assert document.attributes == (Attribute("A1", "comment", "P1", "sure"),)

    def test_discontinuous_spans_of_mae_are_read(self, tmp_path: Path) -> None:
        content = (
            "<t><TEXT>left and right knee</TEXT><TAGS><SITE id='a' spans='0~4,15~19' text='left ... knee'/></TAGS></t>"
        )
        document = read_note("i2b2_xml", tmp_path, xml=content.replace(" ... ", " "))
        assert list_mentions(document) == [("SITE", "left knee")]
        assert not count_differences(document, FORMATS.load("i2b2_xml")().round_trip(document))

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            ('start="15"', 'start="13"', "10: P0: the mention differs from the text at its offsets"),
            ('start="15" end="25"', 'start="99" end="109"', "10: P0: offsets 99:109 lie outside the text"),
            ('start="15"', 'start="x"', "10: P0: offsets do not parse"),
            ('start="15" end="25"', "", "10: a tag DATE without offsets"),
            ("<TEXT>", "<NOTE>", "8: not well-formed XML"),
        ],
    )
    def test_each_problem_names_its_file_and_line(self, tmp_path: Path, old: str, new: str, expected: str) -> None:
        with pytest.raises(InputError) as caught:
            read_note("i2b2_xml", tmp_path, xml=self.XML_2014.replace(old, new))
        assert str(caught.value).splitlines()[0].startswith(f"{tmp_path / 'note.xml'}:{expected}")


class TestWebAnnoTsv:
    TSV = (
        "#FORMAT=WebAnno TSV 3.3\n"
        "#T_SP=de.tudarmstadt.ukp.dkpro.core.api.lexmorph.type.pos.POS|PosValue\n"
        "#T_SP=de.tudarmstadt.ukp.dkpro.core.api.ner.type.NamedEntity|identifier|value\n"
        "#T_SP=webanno.custom.Finding|certainty|type\n"
        "#T_RL=webanno.custom.Link|label|BT_de.tudarmstadt.ukp.dkpro.core.api.ner.type.NamedEntity\n\n\n"
        "#Text=\U0001f600 Given 5 mg a\\tdose\n"
        "1-1\t0-2\t\U0001f600\tX\t_\t_\t_\t_\t_\t_\t\n"
        "1-2\t3-8\tGiven\tVERB\t_\t_\t_\t_\t_\t_\t\n"
        "1-3\t9-10\t5\tNUM\t*[1]\tDose[1]\t_\t_\t_\t_\t\n"
        "1-4\t11-13\tmg\tX\t*[1]\tDose[1]\tlow\\_er\tUnit\t_\t_\t\n"
        "1-5\t14-15\ta\tX\t_\t_\t_\t_\t_\t_\t\n"
        "1-6\t16-20\tdose\tX\t_\t_\t_\t_\t_\t_\t\n\n"
        "#Text=Warfarin-like\n"
        "2-1\t22-35\tWarfarin-like\tX\t_\t_\t_\t*\t_\t_\t\n"
        "2-1.1\t22-30\tWarfarin\t_\thttp://x.org/e/Q1[2]|*[3]\tDrug[2]|Name[3]\t_\t_\tdose of\t1-3[1_2]\t\n"
    )

    def test_layers_relations_and_parts_of_tokens_are_read(self, tmp_path: Path) -> None:
        document = read_note("webanno_tsv", tmp_path, tsv=self.TSV)
        assert document.text == "\U0001f600 Given 5 mg a\tdose\n Warfarin-like"
        assert list_mentions(document) == [
            ("Dose", "5 mg"),
            ("Drug", "Warfarin"),
            ("Name", "Warfarin"),
            ("Unit", "mg"),
            ("Finding", "Warfarin-like"),
        ]
        assert document.normalizations == (Normalization("N1", "T2", "http://x.org/e", "Q1"),)
        assert document.attributes == (Attribute("A1", "certainty", "T4", "low_er"),)
        assert document.relations == (Relation("R1", "dose of", "T1", "T2"),)
        assert not count_differences(document, FORMATS.load("webanno_tsv")().round_trip(document))

    def test_offsets_in_code_points_are_recognized_by_the_tokens(self, tmp_path: Path) -> None:
        rows = "1-1\t0-1\t\U0001f600\t_\t\n1-2\t2-6\tPain\tProblem\t\n"
        content = f"#FORMAT=WebAnno TSV 3.3\n#T_SP=webanno.custom.C|value\n\n#Text=\U0001f600 Pain\n{rows}"
        assert list_mentions(read_note("webanno_tsv", tmp_path, tsv=content)) == [("Problem", "Pain")]

    def test_texts_with_blank_lines_tabs_and_backslashes_are_kept(self) -> None:
        text = " \n\\n is\ta [path] \U0001f600_|\r\n\n  end*;\n\n"
        concepts = (
            Concept("a", "A|B_*", (Span(2, 4),)),
            Concept("b", "C", (Span(text.index("["), text.index("*") + 1),)),
        )
        document = Document("d", text, concepts, (Relation("r", "a|b", "a", "b"),))
        assert not count_differences(document, FORMATS.load("webanno_tsv")().round_trip(document))

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            ("#FORMAT=WebAnno TSV 3.3", "#FORMAT=WebAnno TSV 2", "1: not a WebAnno TSV 3 file"),
            ("9-10\t5", "8-9\t5", "11: the token differs from the text at its offsets"),
            ("9-10\t5\tNUM", "9-10\t5", "11: 9 columns"),
            ("1-3\t9-10", "1\t9-10", "11: not a token with its columns"),
            ("1-3[1_2]", "1-3[7_2]", "18: a relation of Link refers to an annotation that does not exist"),
        ],
    )
    def test_each_problem_names_its_file_and_line(self, tmp_path: Path, old: str, new: str, expected: str) -> None:
        with pytest.raises(InputError) as caught:
            read_note("webanno_tsv", tmp_path, tsv=self.TSV.replace(old, new))
        assert str(caught.value).splitlines()[0].startswith(f"{tmp_path / 'note.tsv'}:{expected}")
        assert "Warfarin" not in str(caught.value)

    def test_slots_and_relations_between_tokens_are_listed_as_not_read(self, tmp_path: Path) -> None:
        token = "de.tudarmstadt.ukp.dkpro.core.api.segmentation.type.Token"
        content = (
            "#FORMAT=WebAnno TSV 3.3\n#T_SP=webanno.custom.Part|\n"
            "#T_SP=webanno.custom.Host|ROLE_webanno.custom.Host:links_webanno.custom.Link|webanno.custom.Part\n"
            f"#T_RL=webanno.custom.Link|value|BT_{token}\n\n\n#Text=This is\n"
            "1-1\t0-4\tThis\t_\tp1\t1-2\t_\t_\t\n1-2\t5-7\tis\t*\t_\t_\tnsubj\t1-1\t\n"
        )
        (tmp_path / "note.tsv").write_text(content)
        items = list(FORMATS.load("webanno_tsv")().read(tmp_path))
        warnings = [item.found for item in items if isinstance(item, Problem)]
        assert warnings == [
            "chains or slots of webanno.custom.Host are not read",
            "relations of webanno.custom.Link between tokens are not read",
        ]
        (document,) = (item for item in items if isinstance(item, Document))
        assert list_mentions(document) == [("Part", "is"), ("Host", "This")]

    def test_an_annotation_without_characters_is_a_problem_of_its_own(self, tmp_path: Path) -> None:
        rows = "1-1\t0-4\tThis\tA\t\n1-1.1\t0-0\t\tB\t\n"
        content = f"#FORMAT=WebAnno TSV 3.3\n#T_SP=webanno.custom.C|value\n\n#Text=This\n{rows}"
        with pytest.raises(InputError, match=r"note\.tsv:6: T2: offsets 0:0 lie outside the text"):
            read_note("webanno_tsv", tmp_path, tsv=content)
        items = list(FORMATS.load("webanno_tsv")(ReadingOptions(on_error="skip")).read(tmp_path))
        assert [list_mentions(item) for item in items if isinstance(item, Document)] == [[("A", "This")]]
