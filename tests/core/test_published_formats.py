"""Published formats, each tested with a small file in its exact layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.brat import Brat
from clinie_core.data.corpora.conll import Conll
from clinie_core.data.corpora.document_comparison import count_differences
from clinie_core.data.document import (
    Attribute,
    Concept,
    Document,
    EntityRelation,
    Equivalence,
    Normalization,
    Note,
    Relation,
    Span,
)
from clinie_core.errors import InputError
from tests.corpora import list_mentions, read_note


def test_brat_reads_2018_n2c2(tmp_path: Path) -> None:
    document = read_note(
        "brat",
        tmp_path,
        txt="Lasix 40 mg\ndaily for edema.",
        ann="T1\tDrug 0 5\tLasix\nT2\tStrength 6 11\t40 mg\nT3\tFrequency 12 17\tdaily\nT4\tReason 22 27\tedema\n"
        "R1\tStrength-Drug Arg1:T2 Arg2:T1\nR2\tReason-Drug Arg1:T4 Arg2:T1\n",
    )
    assert list_mentions(document) == [
        ("Drug", "Lasix"),
        ("Strength", "40 mg"),
        ("Frequency", "daily"),
        ("Reason", "edema"),
    ]
    assert document.relations[1] == Relation("R2", "Reason-Drug", "T4", "T1")


def test_brat_reads_2022_n2c2_events(tmp_path: Path) -> None:
    document = read_note(
        "brat",
        tmp_path,
        txt="Smokes 1 ppd, quit in 2010.",
        ann="T1\tTobacco 0 6\tSmokes\nT2\tStatusTime 14 18\tquit\nT3\tAmount 7 12\t1 ppd\n"
        "E1\tTobacco:T1 Status:T2 Amount:T3\nA1\tStatusTimeVal T2 past\n",
    )
    assert [(r.type, r.head, r.tail) for r in document.relations] == [("Status", "T1", "T2"), ("Amount", "T1", "T3")]
    assert document.attributes == (Attribute("A1", "StatusTimeVal", "T2", "past"),)


def test_brat_reads_discontinuous_concepts_normalizations_equivalences_and_notes(tmp_path: Path) -> None:
    document = read_note(
        "brat",
        tmp_path,
        txt="left and right knee pain",
        ann="T1\tPain 20 24\tpain\nT2\tSite 0 4;15 19\tleft knee\nT3\tSite 9 19\tright knee \n"
        "E1\tPain:T1 Loc:T2 Loc2:T3\nN1\tReference T1 UMLS:C0030193\tpain\n*\tAlias E1 T2\n"
        "#1\tAnnotatorNotes E1\tsure\n",
    )
    assert [c.spans for c in document.concepts[:2]] == [(Span(20, 24),), (Span(0, 4), Span(15, 19))]
    assert [r.type for r in document.relations] == ["Loc", "Loc"]
    assert document.normalizations == (Normalization("N1", "T1", "UMLS", "C0030193", "pain"),)
    assert document.equivalences == (Equivalence("Alias", ("T1", "T2")),)
    assert document.notes == (Note("#1", "AnnotatorNotes", "T1", "sure"),)
    assert not count_differences(document, Brat().round_trip(document))


def test_i2b2_reads_concepts_relations_and_assertions(tmp_path: Path) -> None:
    document = read_note(
        "i2b2",
        tmp_path,
        txt="Admission Date :\nHe was given  Lasix for\npulmonary edema .\n",
        con='c="pulmonary edema" 3:0 3:1||t="problem"\nc="lasix" 2:3 2:3||t="treatment"\n',
        rel='c="lasix" 2:3 2:3||r="TrAP"||c="pulmonary edema" 3:0 3:1\n',
        ast='c="pulmonary edema" 3:0 3:1||t="problem"||a="present"\n',
    )
    assert list_mentions(document) == [("problem", "pulmonary edema"), ("treatment", "Lasix")]
    assert document.relations == (Relation("R1", "TrAP", "T2", "T1"),)
    assert document.attributes == (Attribute("A1", "assertion", "T1", "present"),)
    assert not count_differences(document, FORMATS.load("i2b2")().round_trip(document))


@pytest.mark.parametrize(
    ("suffix", "line", "expected"),
    [
        ("con", 'c="lasix" 1:9 1:9||t="treatment"', "1:9 is not a token of the text"),
        ("con", 'c="heparin" 1:2 1:2||t="treatment"', "the mention differs from the text"),
        ("con", 'c="lasix" 1:2 1:1||t="treatment"', "ends before it begins"),
        ("con", 'c="lasix" 1:2||t="treatment"', "not a line of a .con file"),
        ("rel", 'c="lasix" 1:2 1:2||r="TrAP"||c="edema" 1:4 1:4', "no such concept in the .con file"),
        ("ast", 'c="lasix" 1:2 1:2||t="problem"||a="present"', "no such concept in the .con file"),
    ],
)
def test_each_i2b2_problem_is_one_line(tmp_path: Path, suffix: str, line: str, expected: str) -> None:
    files = {"txt": "He got Lasix for edema\n", "con": 'c="lasix" 1:2 1:2||t="treatment"\n'}
    with pytest.raises(InputError) as caught:
        read_note("i2b2", tmp_path, **(files | {suffix: line}))
    assert str(caught.value).splitlines()[0].startswith(f"{tmp_path / 'note'}.{suffix}:1: ")
    assert expected in str(caught.value)
    assert "asix" not in str(caught.value)


def test_radgraph_reads_entities_relations_and_metadata(tmp_path: Path) -> None:
    report = {
        "text": "FINAL REPORT Lungs are clear .",
        "entities": {
            "1": {"tokens": "Lungs", "label": "ANAT-DP", "start_ix": 2, "end_ix": 2, "relations": []},
            "2": {"tokens": "clear", "label": "OBS-DP", "start_ix": 4, "end_ix": 4, "relations": [["located_at", "1"]]},
        },
        "data_source": "MIMIC-CXR",
        "data_split": "train",
    }
    document = read_note("radgraph", tmp_path, json=json.dumps({"p18/p1/s5.txt": report}))
    assert document.id == "p18/p1/s5.txt"
    assert list_mentions(document) == [("ANAT-DP", "Lungs"), ("OBS-DP", "clear")]
    assert document.relations == (Relation("R1", "located_at", "2", "1"),)
    assert document.metadata["data_split"] == "train"
    assert not count_differences(document, FORMATS.load("radgraph")().round_trip(document))
    doubly = {"text": report["text"], "labeler_1": {"entities": report["entities"]}, "labeler_2": {"entities": {}}}
    assert list_mentions(read_note("radgraph", tmp_path, json=json.dumps({"x": doubly}))) == list_mentions(document)


def test_pubtator_reads_document_level_relations(tmp_path: Path) -> None:
    document = read_note(
        "pubtator",
        tmp_path,
        txt="12|t|Lithium toxicity.\n12|a|Lithium may harm.\n12\t0\t7\tLithium\tChemical\tD008094\n"
        "12\t8\t16\ttoxicity\tDisease\tD064420|MESH:D1\tpoisoning|harm\n12\t18\t25\tLithium\tChemical\t-1\n"
        "12\tCID\tD008094\tD064420\n",
    )
    assert list_mentions(document) == [("Chemical", "Lithium"), ("Disease", "toxicity"), ("Chemical", "Lithium")]
    entries = [(n.target, n.database, n.reference, n.name) for n in document.normalizations]
    assert entries == [
        ("T1", "PubTator", "D008094", None),
        ("T2", "PubTator", "D064420", "poisoning"),
        ("T2", "MESH", "D1", "harm"),
    ]
    assert document.entity_relations == (EntityRelation("R1", "CID", "D008094", "D064420"),)
    assert [s.type for s in document.sections] == ["title", "abstract"]
    assert not count_differences(document, FORMATS.load("pubtator")().round_trip(document))


@pytest.mark.parametrize(
    "content",
    [
        "EU B-ORG\nrejects O\nGerman B-MISC\ncall I-MISC\nLtd B-MISC\n",  # IOB2
        "EU I-ORG\nrejects O\nGerman I-MISC\ncall I-MISC\nLtd B-MISC\n",  # IOB1
        "EU S-ORG\nrejects O\nGerman B-MISC\ncall E-MISC\nLtd S-MISC\n",  # BIOES
        "EU\tNNP\tU-ORG\nrejects\tVB\tO\nGerman\tJJ\tB-MISC\ncall\tNN\tL-MISC\nLtd\tNN\tU-MISC\n",  # BILOU
        "EU NNP x B-ORG\nrejects VB x O\nGerman JJ x B-MISC\ncall NN x I-MISC\nLtd NN x B-MISC\n",  # four
        "EU\t0\t2\tB-ORG\nrejects\t3\t10\tO\nGerman\t11\t17\tB-MISC\ncall\t18\t22\tI-MISC\nLtd\t23\t26\tB-MISC\n",
    ],
)
def test_conll_reads_every_tag_scheme_and_number_of_columns(tmp_path: Path, content: str) -> None:
    document = read_note("conll", tmp_path, conll=content)
    assert document.text == "EU rejects German call Ltd"
    assert list_mentions(document) == [("ORG", "EU"), ("MISC", "German call"), ("MISC", "Ltd")]


def test_conll_reads_documents_sentences_and_offsets(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(
        "-DOCSTART- -X- O O\n\nNo O\nfever B-Problem\n\nStable O\n\n# newdoc id = b\nrash\t2\t6\tB-ADE\n,\t6\t7\tO\n"
    )
    first, second = FORMATS.load("conll")().read_all(tmp_path)
    assert (first.id, first.text) == ("a-1", "No fever\nStable")
    assert (second.id, second.text) == ("b", "  rash,")
    assert second.concepts[0].spans == (Span(2, 6),)


def test_hugging_face_dataset_with_class_labels_is_read(tmp_path: Path) -> None:
    import datasets

    names = ["O", "B-Drug", "I-Drug"]
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=names)),
        }
    )
    rows = {"tokens": [["takes", "St.", "John's", "wort"], ["none"]], "ner_tags": [[0, 1, 2, 2], [0]]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "train")
    first, second = FORMATS.load("hf_dataset")().read_all(tmp_path / "train")
    assert list_mentions(first) == [("Drug", "St. John's wort")]
    assert (second.id, second.text, second.concepts) == ("1", "none", ())


def test_bioc_offsets_count_across_passages(tmp_path: Path) -> None:
    content = """<?xml version="1.0"?><!DOCTYPE collection [<!ENTITY big "boom">]>
<collection><source/><date/><key/><document><id>7</id>
<passage><infon key="type">title</infon><offset>0</offset><text>Caf\u00e9 rash</text></passage>
<passage><infon key="type">abstract</infon><offset>10</offset><text>due to d\u00efgoxin</text>
<annotation id="3"><infon key="type">Drug</infon><infon key="MESH">D004077</infon><infon key="given">yes</infon>
<location offset="17" length="7"/><text>d\u00efgoxin</text></annotation>
<annotation id="4"><infon key="type">ADE</infon><location offset="5" length="4"/><text>rash</text></annotation>
</passage>
<relation id="R9"><infon key="type">causes</infon><node refid="3" role="agent"/><node refid="4" role="effect"/>
</relation>
</document></collection>"""
    document = read_note("bioc_xml", tmp_path, xml=content)
    assert document.text == "Caf\u00e9 rash\ndue to d\u00efgoxin"
    assert list_mentions(document) == [("Drug", "d\u00efgoxin"), ("ADE", "rash")]
    assert document.normalizations == (Normalization("N1", "3", "MESH", "D004077"),)
    assert document.attributes == (Attribute("A1", "given", "3", "yes"),)
    assert document.relations == (Relation("R1", "causes", "3", "4"),)
    for name in ("bioc_xml", "bioc_json"):
        assert not count_differences(document, FORMATS.load(name)().round_trip(document))


def test_jsonl_preserves_everything_and_rejects_unknown_fields(tmp_path: Path) -> None:
    document = Document(
        "p1/n 1",
        "a\u0085b\u2028c\r\n\U0001f600",
        (Concept("T1", "X", (Span(0, 1), Span(2, 3))),),
        metadata={"patient": "7"},
    )
    format_ = FORMATS.load("jsonl")()
    format_.write([document], tmp_path)
    assert format_.read_all(tmp_path) == (document,)
    (tmp_path / "documents.jsonl").write_text('{"version": 2, "document": {"id": "a", "text": "b"}}\n')
    with pytest.raises(InputError, match=r"documents.jsonl:1: version: Input should be 1"):
        format_.read_all(tmp_path)
    (tmp_path / "documents.jsonl").write_text('{"version": 1, "document": {"id": "a", "text": "b", "spans": []}}\n')
    with pytest.raises(InputError, match=r"document.spans: Unexpected"):
        format_.read_all(tmp_path)


def test_known_faults_of_other_converters_do_not_occur() -> None:
    text = "Had severe rash, from amoxicillin-clavulanate."
    ade, reason = Concept("T1", "ADE", (Span(4, 15),)), Concept("T2", "Reason", (Span(11, 15),))
    drug = Concept("T3", "Drug", (Span(22, 45),))
    conll = Conll()
    rows = [line.split("\t") for line in conll.render(Document("d", text, (ade, drug))).splitlines() if "\t" in line]
    tags = {row[0]: row[3] for row in rows}
    assert (tags["severe"], tags["rash"]) == ("B-ADE", "I-ADE")  # not B- B-
    assert tags[","] == "O"  # punctuation after a concept has no label, and the concept keeps its label
    assert (tags["amoxicillin"], tags["clavulanate"], tags["."]) == ("B-Drug", "I-Drug", "O")
    lost = count_differences(Document("d", text, (ade, reason)), conll.round_trip(Document("d", text, (ade, reason))))
    assert lost["concepts"] == 1  # the loss of an overlapped concept is counted


def test_json_problems_name_the_line_of_their_document(tmp_path: Path) -> None:
    wrong = {"id": "T1", "infons": {"type": "A"}, "text": "x", "locations": [{"offset": 90, "length": 1}]}
    empty: dict[str, object] = {"infons": {}, "relations": []}
    passages = [{"offset": 0, "text": "no {[fever", "annotations": found, **empty} for found in ([], [wrong])]
    rows = [json.dumps({"id": f"d{i}", "passages": [passage], **empty}) for i, passage in enumerate(passages)]
    content = '{"source": "", "date": "", "key": "", "infons": {}, "documents": [\n' + ",\n".join(rows) + "\n]}\n"
    (tmp_path / "notes.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"notes\.json:3: documents\.1: T1: "):
        FORMATS.load("bioc_json")().read_all(tmp_path)
    entities: list[dict[str, object]] = [
        {"1": {"tokens": "no", "label": "A", "start_ix": i, "end_ix": i, "relations": []}} for i in (0, 7)
    ]
    reports = [json.dumps({"text": "no fever {", "entities": entity}) for entity in entities]
    content = f'{{\n"one": {reports[0]},\n\n"two": {reports[1]}\n}}\n'
    (tmp_path / "notes.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"notes\.json:4: two: 1: tokens 7 to 7 are not in the text"):
        FORMATS.load("radgraph")().read_all(tmp_path)


BIORED = (
    "1|t|Aspirin and gout\n1|a|Aspirin worsens gout.\n1\t0\t7\tAspirin\tChemical\tD001241\n"
    "1\t12\t16\tgout\tDisease\tD006073\n1\tPositive_Correlation\tD001241\tD006073\tNovel\n"
    "1\tAssociation\tD001241\tD006073\tNo\n"
)


def test_pubtator_reads_the_novelty_of_biored(tmp_path: Path) -> None:
    document = read_note("pubtator", tmp_path, txt=BIORED)
    assert document.entity_relations == (
        EntityRelation("R1", "Positive_Correlation", "D001241", "D006073"),
        EntityRelation("R2", "Association", "D001241", "D006073"),
    )
    assert document.attributes == (Attribute("A1", "novelty", "R1", "Novel"), Attribute("A2", "novelty", "R2", "No"))
    for name in ("pubtator", "jsonl"):
        assert not count_differences(document, FORMATS.load(name)().round_trip(document))
    lost = count_differences(document, Brat().round_trip(document))
    assert (lost["document-level relations"], lost["attributes"]) == (2, 2)


@pytest.mark.parametrize(
    ("cell", "entries"),
    [
        ("p|SUB|V|600|E", [("PubTator", "p|SUB|V|600|E")]),
        ("p|DEL|439_443|", [("PubTator", "p|DEL|439_443|")]),
        ("tmVar:p|SUB|V|600|E;HGVS:p.V600E", [("PubTator", "tmVar:p|SUB|V|600|E;HGVS:p.V600E")]),
        ("D001|MESH:D002|", [("PubTator", "D001"), ("MESH", "D002")]),
        ("-1|", []),
    ],
)
def test_pubtator_keeps_the_identifiers_of_variants_whole(
    cell: str, entries: list[tuple[str, str]], tmp_path: Path
) -> None:
    document = read_note("pubtator", tmp_path, txt=f"1|t|V600E\n1|a|\n1\t0\t5\tV600E\tVariant\t{cell}\n")
    assert [(n.database, n.reference) for n in document.normalizations] == entries
    assert not count_differences(document, FORMATS.load("pubtator")().round_trip(document))


def test_pubtator_reads_a_title_without_an_abstract(tmp_path: Path) -> None:
    document = read_note("pubtator", tmp_path, txt="1|t|Aspirin\n1\t0\t7\tAspirin\tDrug\n")
    assert (document.text, list_mentions(document)) == ("Aspirin", [("Drug", "Aspirin")])


def test_i2b2_writes_a_quotation_mark_in_a_type_as_an_apostrophe() -> None:
    document = Document("a", "Aspirin", (Concept("T1", 'a "drug"', (Span(0, 7),)),))
    assert FORMATS.load("i2b2")().round_trip(document).concepts == (Concept("T1", "a 'drug'", (Span(0, 7),)),)
