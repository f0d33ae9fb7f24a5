"""The BioC formats as PMC, PubTator 3 and published corpora deliver them, and files that are not BioC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.document_comparison import count_differences
from clinie_core.data.corpora.reading import ReadingOptions
from clinie_core.data.document import Attribute, Document, EntityRelation, Normalization, Span
from clinie_core.errors import Problem
from tests.corpora import list_mentions

ANNOTATION = {"id": "1", "infons": {"type": "Drug"}, "text": "Aspirin", "locations": [{"offset": 0, "length": 7}]}
PASSAGE = {"offset": 0, "infons": {"type": "title"}, "text": "Aspirin", "annotations": [ANNOTATION]}


def make(**changes: Any) -> dict[str, Any]:
    return {"id": "1", "infons": {}, "passages": [PASSAGE]} | changes


def read(folder: Path, content: object, name: str = "a.json") -> tuple[list[Document], list[Problem]]:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text, encoding="utf-8")
    format_ = FORMATS.load("bioc_xml" if name.endswith(".xml") else "bioc_json")()
    items = list(format_.read(folder / name))
    return [i for i in items if isinstance(i, Document)], [i for i in items if isinstance(i, Problem)]


A, B = make(), make(id="2")


@pytest.mark.parametrize(
    "content",
    [
        {"source": "x", "infons": {"documents": 1}, "documents": [A, B]},
        [{"source": "PMC", "documents": [A]}, {"source": "PMC", "documents": [B]}],
        {"PubTator3": [A, B]},
        [A, B],
        f"{json.dumps(A)}\n{json.dumps(B)}\n",
        f"{json.dumps({'documents': [A]})}\n\n{json.dumps({'documents': [B]})}",
    ],
    ids=["collection", "list of collections", "PubTator3", "list", "lines", "lines of collections"],
)
def test_documents_are_found_in_every_layout(content: object, tmp_path: Path) -> None:
    documents, problems = read(tmp_path, content)
    assert not problems
    assert [(d.id, d.text, list_mentions(d)) for d in documents] == [
        (id_, "Aspirin", [("Drug", "Aspirin")]) for id_ in "12"
    ]


def test_files_of_lines_may_be_named_jsonl(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(A)}\n{json.dumps(B)}\n")
    assert [d.id for d in FORMATS.load("bioc_json")().read_all(tmp_path)] == ["1", "2"]


BAD = json.dumps({"id": "2", "passages": [{"offset": -1}]})


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (f'[{{"documents": [{json.dumps(A)}]}},\n{{"documents": [{BAD}]}}]', 2),
        (f"{json.dumps(A)}\n{BAD}", 2),
        (json.dumps(A) + "\n\n{", 3),
    ],
)
def test_a_problem_names_its_line(content: str, line: int, tmp_path: Path) -> None:
    documents, (problem,) = read(tmp_path, content)
    assert [d.id for d in documents] == ["1"]
    assert problem.where.startswith(f"{tmp_path}/a.json:{line}")


@pytest.mark.parametrize("content", ["[]", "{}", '{"text": "x", "entities": []}', '[{"text": "x"}]'])
def test_a_file_without_a_collection_is_an_error(content: str, tmp_path: Path) -> None:
    documents, (problem,) = read(tmp_path, content)
    assert not documents
    assert problem.found == "not a BioC collection"
    assert read(tmp_path, {"documents": []}) == ([], [])


def test_numbers_null_and_objects_become_text(tmp_path: Path) -> None:
    annotation = ANNOTATION | {
        "id": 7,
        "infons": {"type": "Drug", "identifier": 241, "valid": True, "score": 0.5, "name": None, "parts": ["a", 1]},
        "locations": [{"offset": "0", "length": 7.0}],
    }
    passage = PASSAGE | {"offset": 0.0, "infons": {"type": "title", "year": 2020, "x": None}, "sentences": None}
    passage |= {"annotations": [annotation], "relations": None}
    content = make(id=123, infons={"pmid": 123, "x": None}, passages=[passage], annotations=None, relations=None)
    (document,), problems = read(tmp_path, {"documents": [content]})
    assert not problems
    assert (document.id, document.text, list_mentions(document)) == ("123", "Aspirin", [("Drug", "Aspirin")])
    assert dict(document.metadata) == {"pmid": "123", "x": ""}
    assert document.normalizations == (Normalization("N1", "7", "identifier", "241"),)
    assert [(a.type, a.value) for a in document.attributes] == [
        ("valid", "true"),
        ("score", "0.5"),
        ("name", None),
        ("parts", '["a", 1]'),
    ]


@pytest.mark.parametrize("text", ["", None])
def test_text_that_is_only_in_the_sentences_is_read(text: str | None, tmp_path: Path) -> None:
    second = ANNOTATION | {"id": "2", "locations": [{"offset": 24, "length": 7}]}
    sentences = [
        {"offset": 5, "text": "Aspirin helps."},
        {"offset": 20, "text": "The Aspirin", "annotations": [second]},
    ]
    first = ANNOTATION | {"locations": [{"offset": 5, "length": 7}]}
    passages = [
        {"offset": 0, "text": "Drug"},
        {"offset": 5, "text": text, "infons": {"type": "abstract"}, "sentences": sentences, "annotations": [first]},
    ]
    (document,), problems = read(tmp_path, {"documents": [make(passages=passages)]})
    assert not problems
    assert document.text == "Drug\nAspirin helps.\nThe Aspirin"
    assert [(c.start, document.mention(c)) for c in document.concepts] == [(5, "Aspirin"), (24, "Aspirin")]
    assert [(s.type, s.span) for s in document.sections] == [("passage", Span(0, 4)), ("abstract", Span(5, 31))]


def test_text_that_is_only_in_the_sentences_of_xml_is_read(tmp_path: Path) -> None:
    annotation = (
        '<annotation id="1"><infon key="type">Drug</infon><location offset="15" length="7"/><text>aspirin</text>'
        "</annotation>"
    )
    content = (
        "<collection><document><id>1</id><passage><offset>0</offset><text/>"
        "<sentence><offset>0</offset><text>It helps.</text></sentence>"
        f"<sentence><offset>10</offset><text>Take aspirin.</text>{annotation}</sentence>"
        "</passage></document></collection>"
    )
    (document,), problems = read(tmp_path, content, "a.xml")
    assert not problems
    assert document.text == "It helps.\nTake aspirin."
    assert list_mentions(document) == [("Drug", "aspirin")]


@pytest.mark.parametrize(
    ("infons", "nodes", "attributes"),
    [
        ({"entity1": "D1", "entity2": "D2", "type": "Association", "novel": "No"}, None, [("novelty", "No")]),
        ({"Chemical": "D1", "Disease": "D2", "relation": "Association"}, [], []),
        (
            {"role1": {"identifier": "D1"}, "role2": {"identifier": "D2"}, "type": "Association", "score": 1},
            [{"refid": "0", "role": "0,1"}, {"refid": 9, "role": None}],
            [("score", "1")],
        ),
    ],
    ids=["BioRED", "BC5CDR", "PubTator3"],
)
def test_relations_between_entries_are_read(
    infons: dict[str, Any], nodes: list[dict[str, Any]] | None, attributes: list[tuple[str, str]], tmp_path: Path
) -> None:
    relation = {"id": "R0", "infons": infons, "nodes": nodes}
    (document,), problems = read(tmp_path, {"documents": [make(relations=[relation])]})
    assert not problems
    assert document.entity_relations == (EntityRelation("R1", "Association", "D1", "D2"),)
    assert document.attributes == tuple(Attribute(f"A{n}", t, "R1", v) for n, (t, v) in enumerate(attributes, start=1))
    for name in ("bioc_json", "bioc_xml", "jsonl"):
        assert not count_differences(document, FORMATS.load(name)().round_trip(document))


def test_ids_that_restart_in_each_passage_or_equal_a_created_id_are_read(tmp_path: Path) -> None:
    other = PASSAGE | {"offset": 8, "annotations": [ANNOTATION | {"locations": [{"offset": 8, "length": 7}]}]}
    (document,), problems = read(tmp_path, {"documents": [make(passages=[PASSAGE, other])]})
    assert not problems
    assert [(c.id, c.start) for c in document.concepts] == [("T1", 0), ("T2", 8)]
    named = ANNOTATION | {"id": "A1", "infons": {"type": "Drug", "severity": "low"}}
    (document,), problems = read(tmp_path, {"documents": [make(passages=[PASSAGE | {"annotations": [named]}])]})
    assert not problems
    assert [(a.id, a.target) for a in document.attributes] == [("A2", "A1")]


@pytest.mark.parametrize("locations", [[], None, [{"offset": 0, "length": 0}], [{"offset": 5, "length": 7}]])
def test_an_annotation_without_text_at_its_location_is_an_error(locations: object, tmp_path: Path) -> None:
    content = make(passages=[PASSAGE | {"annotations": [ANNOTATION | {"locations": locations}]}])
    documents, (problem,) = read(tmp_path, {"documents": [content]})
    assert not documents
    assert problem.found.startswith("1: ")


@pytest.mark.parametrize(
    ("content", "root", "kind"),
    [
        ('<document id="d1"><sentence id="s0" text="Aspirin"/></document>', "document", "DDI XML"),
        ("<ClinicalNarrative><TEXT/></ClinicalNarrative>", "ClinicalNarrative", "i2b2 2012"),
        ("<deIdi2b2><TEXT/></deIdi2b2>", "deIdi2b2", "i2b2 2014"),
        ('<x:XMI xmlns:x="http://www.omg.org/XMI"/>', "XMI", "UIMA CAS"),
        ("<other><document><id>1</id></document></other>", "other", ""),
    ],
)
def test_xml_of_another_format_is_an_error_that_names_it(content: str, root: str, kind: str, tmp_path: Path) -> None:
    documents, (problem,) = read(tmp_path, f'<?xml version="1.0"?>\n{content}', "a.xml")
    assert not documents
    assert problem.where == f"{tmp_path}/a.xml:2"
    assert f"not a BioC collection: the root element is <{root}>" in problem.found
    assert kind in problem.found


def make_xml(location: str) -> str:
    annotations = "".join(
        f'<annotation id="{id_}"><infon key="type">Drug</infon>{place}<text>Aspirin</text></annotation>'
        for id_, place in (("1", location), ("2", '<location offset=" 0" length="7"/>'))
    )
    passage = f"<passage><offset> 0 </offset><text>Aspirin</text>{annotations}</passage>"
    return f"<collection><document><id>1</id>{passage}</document></collection>"


@pytest.mark.parametrize("location", ['<location offset="x" length="7"/>', '<location offset="0"/>', ""])
def test_an_annotation_of_xml_without_offsets_is_skipped_on_request(location: str, tmp_path: Path) -> None:
    documents, (problem,) = read(tmp_path, make_xml(location), "a.xml")
    assert not documents
    assert problem.where == f"{tmp_path}/a.xml:1"
    document, notice = sorted(
        FORMATS.load("bioc_xml")(ReadingOptions(on_error="skip")).read(tmp_path), key=lambda i: isinstance(i, Problem)
    )
    assert isinstance(notice, Problem)
    assert notice.severity == "skipped"
    assert isinstance(document, Document)
    assert [c.id for c in document.concepts] == ["2"]
