"""UIMA CAS XMI in the layout of INCEpTION's export."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.cas_xmi import CasXmi
from clinie_core.data.corpora.detection import detect_format
from clinie_core.data.corpora.discovery import discover_files
from clinie_core.data.corpora.document_comparison import count_differences
from clinie_core.data.corpora.reading import ReadingOptions
from clinie_core.data.document import Attribute, Concept, Document, Normalization, Relation, Span
from clinie_core.errors import InputError, Problem
from tests.corpora import list_mentions

TOKEN = "de.tudarmstadt.ukp.dkpro.core.api.segmentation.type.Token"
ENTITY = "de.tudarmstadt.ukp.dkpro.core.api.ner.type.NamedEntity"
CHAIN_LINK = "de.tudarmstadt.ukp.dkpro.core.api.coref.type.CoreferenceLink"
SPAN = "uima.tcas.Annotation"
TYPES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    TOKEN: (SPAN, {"pos": "uima.cas.TOP"}),
    "de.tudarmstadt.ukp.dkpro.core.api.segmentation.type.Sentence": (SPAN, {}),
    "de.tudarmstadt.ukp.dkpro.core.api.syntax.type.dependency.Dependency": (
        SPAN,
        {"Governor": TOKEN, "Dependent": TOKEN, "DependencyType": "uima.cas.String"},
    ),
    CHAIN_LINK: (SPAN, {"next": CHAIN_LINK, "referenceType": "uima.cas.String"}),
    ENTITY: (SPAN, {"value": "uima.cas.String", "identifier": "uima.cas.String"}),
    "webanno.custom.Finding": (
        SPAN,
        {
            "certainty": "webanno.custom.Certainty",
            "label": "webanno.custom.Certainty",
            "negated": "uima.cas.Boolean",
            "count": "uima.cas.Integer",
            "codes": "uima.cas.StringArray",
            "from": "uima.cas.String",
            "causes": "uima.cas.FSArray",
        },
    ),
    "webanno.custom.Certainty": ("uima.cas.String", {}),
    "webanno.custom.Cause": ("uima.cas.TOP", {"role": "uima.cas.String", "target": ENTITY}),
    "webanno.custom.Treats": (
        SPAN,
        {
            "Governor": ENTITY,
            "Dependent": "webanno.custom.Finding",
            "label": "uima.cas.String",
            "sure": "uima.cas.Boolean",
        },
    ),
    "webanno.custom.Order": ("uima.tcas.Annotation", {"source": ENTITY, "target": ENTITY}),
    "webanno.custom.Visit": ("uima.cas.AnnotationBase", {"ward": "uima.cas.String"}),
}
TEXT = "\U0001f600 aspirin for\nmild pain\U0001f600"
XMI = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<xmi:XMI xmlns:xmi="http://www.omg.org/XMI"'
    ' xmlns:cas="http:///uima/cas.ecore" xmlns:tcas="http:///uima/tcas.ecore"'
    ' xmlns:custom="http:///webanno/custom.ecore"'
    ' xmlns:type2="http:///de/tudarmstadt/ukp/dkpro/core/api/segmentation/type.ecore"'
    ' xmlns:type3="http:///de/tudarmstadt/ukp/dkpro/core/api/ner/type.ecore"'
    ' xmlns:dependency="http:///de/tudarmstadt/ukp/dkpro/core/api/syntax/type/dependency.ecore" xmi:version="2.0">\n'
    '<cas:NULL xmi:id="0"/>\n'
    '<tcas:DocumentAnnotation xmi:id="2" sofa="1" begin="0" end="26" language="en"/>\n'
    '<type2:Token xmi:id="3" sofa="1" begin="3" end="10"/>\n'
    '<dependency:Dependency xmi:id="4" sofa="1" begin="3" end="10" Governor="3" Dependent="3" DependencyType="x"/>\n'
    '<type3:NamedEntity xmi:id="10" sofa="1" begin="3" end="10" value="Drug" identifier="MeSH:D001241"/>\n'
    '<type3:NamedEntity xmi:id="11" sofa="1" begin="15" end="19"/>\n'
    '<custom:Finding xmi:id="12" sofa="1" begin="15" end="24" label="Symptom" certainty="high" negated="false"'
    ' count="2" from="note" causes="20">\n<codes>R52</codes><codes>R 53</codes></custom:Finding>\n'
    '<custom:Treats xmi:id="13" sofa="1" begin="15" end="24" Governor="10" Dependent="12" sure="true"/>\n'
    '<custom:Order xmi:id="14" sofa="1" begin="3" end="10" source="11" target="10"/>\n'
    '<custom:Cause xmi:id="20" role="severity" target="11"/>\n'
    '<custom:Visit xmi:id="21" sofa="1" ward="7b"/>\n'
    '<cas:Sofa xmi:id="1" sofaNum="1" sofaID="_InitialView" mimeType="text" sofaString="{text}"/>\n'
    '<cas:View sofa="1" members="2 3 4 10 11 12 13 14 20 21"/>\n</xmi:XMI>\n'
).replace("{text}", TEXT.replace("\n", "&#10;"))


def make_type_system(types: Mapping[str, tuple[str, Mapping[str, str]]] = TYPES) -> str:
    described = []
    for name, (parent, features) in types.items():
        rows = "".join(
            f"<featureDescription><name>{feature}</name><description/><rangeTypeName>{range_}</rangeTypeName>"
            "</featureDescription>\n"
            for feature, range_ in features.items()
        )
        described.append(
            f"<typeDescription><name>{name}</name><description/><supertypeName>{parent}</supertypeName>"
            f"<features>{rows}</features></typeDescription>\n"
        )
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<typeSystemDescription xmlns="http://uima.apache.org/resourceSpecifier">'
    return f"{head}<types>\n{''.join(described)}</types></typeSystemDescription>"


def write(folder: Path, xmi: str = XMI, types: str | None = None, name: str = "note.xmi") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(xmi, encoding="utf-8", newline="")
    (folder / "TypeSystem.xml").write_text(make_type_system() if types is None else types, encoding="utf-8")
    return folder


def read(folder: Path, on_error: Any = "stop") -> tuple[Document, list[Problem]]:
    items = list(CasXmi(ReadingOptions(on_error=on_error)).read(folder))
    (document,) = [item for item in items if isinstance(item, Document)]
    return document, [item for item in items if isinstance(item, Problem)]


def list_features(document: Document, target: str) -> list[tuple[str, str | None]]:
    return [(a.type, a.value) for a in document.attributes if a.target == target]


def test_layers_features_and_relations_are_read(tmp_path: Path) -> None:
    document, notices = read(write(tmp_path))
    assert not notices
    assert document.id == "note"
    assert document.text == TEXT
    assert list_mentions(document) == [("Drug", "aspirin"), ("NamedEntity", "mild"), ("Symptom", "mild pain")]
    assert [(r.type, r.head, r.tail) for r in document.relations] == [
        ("Treats", "T1", "T3"),
        ("Order", "T2", "T1"),
        ("severity", "T3", "T2"),
    ]
    assert document.normalizations == (Normalization("N1", "T1", "MeSH", "D001241"),)
    expected = [("certainty", "high"), ("negated", "false"), ("count", "2"), ("codes", "R52"), ("codes", "R 53")]
    assert list_features(document, "T3") == [*expected, ("from", "note")]
    assert list_features(document, "R1") == [("sure", "true")]
    assert document.metadata == {"Visit.ward": "7b"}


def test_written_documents_keep_offsets_features_and_line_ends(tmp_path: Path) -> None:
    document = Document(
        "ward/a b",
        "\U0001f600 \U0001f600aspirin\r\n\tfor <pain> & \U0001f600",
        (Concept("x", "Drug", (Span(3, 10),)), Concept("y", "Pain & so", (Span(18, 22),))),
        (Relation("r", "treats", "x", "y"),),
        (Attribute("a", "negated", "y"), Attribute("b", "type", "x", "home"), Attribute("c", "sure", "r", "no")),
        (Normalization("n", "x", "http://kb/entity", "Q18216"),),
        metadata={"patient": "p1"},
    )
    CasXmi().write([document, Document("b", "")], tmp_path)
    assert sorted(f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*") if f.is_file()) == [
        "TypeSystem.xml",
        "b.xmi",
        "ward/a b.xmi",
    ]
    empty, found = sorted(CasXmi().read_all(tmp_path), key=lambda d: len(d.text))
    assert empty.text == ""
    assert not count_differences(document, found)
    assert list_mentions(found) == [("Drug", "aspirin"), ("Pain & so", "pain")]


def test_what_cannot_be_written_is_reported_as_lost() -> None:
    document = Document(
        "a",
        "cold \x02 pain",
        (Concept("x", "Pain", (Span(0, 4), Span(7, 11))),),
        attributes=tuple(Attribute(name, name, "x") for name in ("not a name", "value", "class", "fits")),
    )
    lost = count_differences(document, CasXmi().round_trip(document))
    assert lost["attributes"] == 4  # three have no feature, and the concept of the other is wider
    assert lost["text"] == 1


def test_the_type_is_a_standard_feature_or_the_only_one_or_the_layer(tmp_path: Path) -> None:
    kinds = {"one": ["ClassType"], "two": ["doctor", "ward"], "standard": ["ward", "Label", "label"], "none": []}
    types = {name: (SPAN, dict.fromkeys(features, "uima.cas.String")) for name, features in kinds.items()}
    rows = "".join(
        f'<n:{name} xmi:id="{at}" sofa="1" begin="0" end="1" {" ".join(f"{f}={f!r}" for f in features)}/>'
        for at, (name, features) in enumerate(kinds.items(), start=2)
    )
    write(
        tmp_path,
        '<xmi:XMI xmlns:xmi="http://www.omg.org/XMI" xmlns:cas="http:///uima/cas.ecore"'
        f' xmlns:n="http:///uima/noNamespace.ecore">{rows}<cas:Sofa xmi:id="1" sofaNum="1" sofaID="_InitialView"'
        ' sofaString="pain"/><cas:View sofa="1" members="2 3 4 5"/></xmi:XMI>',
        make_type_system(types),
        "note.xml",
    )
    assert detect_format(tmp_path) == "cas_xmi"
    document, _ = read(tmp_path)
    assert [concept.type for concept in document.concepts] == ["ClassType", "two", "label", "none"]
    assert list_features(document, "T2") == [("doctor", None), ("ward", None)]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_both_versions_of_xml_are_read(tmp_path: Path, version: str) -> None:
    write(tmp_path, XMI.replace('<?xml version="1.0"', f'<?xml version="{version}"'))
    assert len(read(tmp_path)[0].concepts) == 3


def test_chains_tokens_and_views_that_are_not_read_are_named(tmp_path: Path) -> None:
    more = (
        '<coref:CoreferenceLink xmlns:coref="http:///de/tudarmstadt/ukp/dkpro/core/api/coref/type.ecore" xmi:id="30"'
        ' sofa="1" begin="3" end="10"/>\n<cas:Sofa xmi:id="31" sofaNum="2" sofaID="other" sofaString="x"/>\n<cas:Sofa'
    )
    changed = XMI.replace("<cas:Sofa", more, 1).replace('20 21"', '20 21 30"').replace('source="11"', 'source="3"')
    document, notices = read(write(tmp_path, changed))
    assert len(document.relations) == 2
    assert [problem.found for problem in notices] == [
        "1 further views are not read",
        f"chains of {CHAIN_LINK} are not read",
        "relations of webanno.custom.Order between tokens are not read",
    ]
    assert {problem.severity for problem in notices} == {"warning"}


def test_a_name_that_two_files_have_is_a_problem(tmp_path: Path) -> None:
    write(tmp_path, name="note.xml")
    write(tmp_path)
    (problem,) = [item for item in CasXmi().read(tmp_path) if isinstance(item, Problem)]
    assert problem.found == "another file is note too"


FAULTS: Sequence[tuple[str, str, str]] = [
    ('begin="3" end="10" value', 'begin="3" end="99" value', "xmi:7: T1: offsets 2:97 lie outside the text"),
    ('begin="3" end="10" value', 'begin="1" end="10" value', "xmi:7: T1: the offsets 1:10 divide a character"),
    ('begin="3" end="10" value', 'begin="x" end="10" value', f"xmi:7: an annotation of {ENTITY} without offsets"),
    ('Governor="10"', 'Governor="99"', "xmi:11: webanno.custom.Treats: Governor refers to 99, which does not exist"),
    ('Governor="10"', "", "xmi:11: a relation of Treats refers to an annotation that does not exist"),
    ('causes="20"', 'causes="20 77"', "xmi:9: webanno.custom.Finding: causes refers to 77"),
    ('ward="7b"', 'bed="7b"', "xmi:14: webanno.custom.Visit has no feature bed"),
    ("<custom:Visit", "<custom:Stay", "xmi:14: the type webanno.custom.Stay is not in the type system"),
    ('xmi:id="21"', 'xmi:id="20"', "xmi:14: an id that occurs twice"),
]


@pytest.mark.parametrize(("old", "new", "expected"), FAULTS)
def test_a_fault_names_its_line_and_can_be_left_out(tmp_path: Path, old: str, new: str, expected: str) -> None:
    write(tmp_path, XMI.replace(old, new))
    problems = [item for item in CasXmi().read(tmp_path) if isinstance(item, Problem)]
    assert str(problems[0]).startswith(f"{tmp_path / 'note'}.{expected}")
    document, notices = read(tmp_path, "skip")
    assert {problem.severity for problem in notices} == {"skipped"}
    assert len(document.concepts) >= 2


@pytest.mark.parametrize(
    ("xmi", "types", "expected"),
    [
        (XMI.replace("sofaString", "sofaURI"), None, "note.xmi: no text"),
        (XMI.replace("</xmi:XMI>", ""), None, "note.xmi:18: not well-formed XML"),
        ("<a/>", None, "note.xmi:1: not a UIMA CAS in XMI"),
        (XMI.replace('count="2"', 'count="two"'), None, "note.xmi: not a CAS that can be read (ValueError)"),
        (XMI, "<a/>", "TypeSystem.xml:1: not a UIMA type system"),
        (XMI, make_type_system().replace(f"<supertypeName>{SPAN}", "<supertypeName>no.Type"), "TypeSystem.xml: not a"),
        (XMI, make_type_system().replace(">ward<", ">x=print(1)<"), "TypeSystem.xml:36: the name of a feature"),
    ],
    ids=["no text", "cut", "other xml", "value", "other types", "unknown parent", "code as a name"],
)
def test_files_that_cannot_be_read_are_reported_once(
    tmp_path: Path, xmi: str, types: str | None, expected: str
) -> None:
    write(tmp_path, xmi, types)
    problems = list(CasXmi().read(tmp_path))
    assert all(isinstance(problem, Problem) for problem in problems)
    assert str(problems[0]).startswith(f"{tmp_path}/{expected}")
    if types is not None:
        write(tmp_path, xmi, types, "other.xmi")
        assert list(CasXmi().read(tmp_path)) == problems


@pytest.mark.parametrize("where", ["note.xmi", "TypeSystem.xml"])
def test_entities_are_refused(tmp_path: Path, where: str) -> None:
    secret = tmp_path.parent / "secret.txt"
    secret.write_text("secret")
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    declared = f'<!DOCTYPE x [<!ENTITY e0 "0123456789">{levels}<!ENTITY f SYSTEM "{secret.as_uri()}">]>'
    write(tmp_path)
    file = tmp_path / where
    head, rest = file.read_text(encoding="utf-8").split("?>\n", 1)
    file.write_text(f"{head}?>\n{declared}{rest}".replace("&#10;", "&e11;").replace("7b", "&f;"), encoding="utf-8")
    (problem,) = CasXmi().read(tmp_path)
    assert str(problem).startswith(f"{file}:2: a document type declaration")


def test_the_nearest_type_system_counts(tmp_path: Path) -> None:
    write(tmp_path, name="train/ward/a.xmi")
    write(tmp_path / "dev", name="b.xmi")
    found = discover_files(CasXmi(), tmp_path)
    assert not found.problems
    assert {split: [group.name for group in files.groups] for split, files in found.splits.items()} == {
        "train": ["ward/a"],
        "dev": ["b"],
    }
    assert [group.files["TypeSystem.xml"] for group in found.splits["train"].groups] == [tmp_path / "TypeSystem.xml"]
    (document,) = CasXmi().read_all(tmp_path / "train")
    assert document.id == "ward/a"
    (tmp_path / "TypeSystem.xml").unlink()
    with pytest.raises(InputError, match=r"a\.xmi: the type system is missing; TypeSystem\.xml in the folder"):
        CasXmi().read_all(tmp_path / "train")


def test_a_type_system_may_have_a_longer_name(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "TypeSystem.xml").rename(tmp_path / "project_typesystem.xml")
    assert len(read(tmp_path)[0].concepts) == 3
    (tmp_path / "TypeSystem.xml").write_text(make_type_system())
    found = discover_files(CasXmi(), tmp_path)
    assert [str(problem) for problem in found.problems] == [
        f"{tmp_path}/project_typesystem.xml: a type system without documents; add the XMI files or remove it"
    ]


def make_zip(file: Path, **members: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_xm", ".xm"), content)
    return file


def test_a_zip_file_per_document_is_read(tmp_path: Path) -> None:
    for name in ("note1.txt", "note2.txt"):
        make_zip(tmp_path / name / "admin.zip", admin_xmi=XMI, TypeSystem_xml=make_type_system())
    assert detect_format(tmp_path) == "cas_xmi"
    documents = CasXmi().read_all(tmp_path)
    assert [document.id for document in documents] == ["note1.txt/admin", "note2.txt/admin"]
    assert len(documents[0].concepts) == 3


def test_faulty_zip_files_are_reported(tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip", a_xmi=XMI)
    make_zip(tmp_path / "b.zip", b_xmi=XMI.replace("ward=", "bed="), TypeSystem_xml=make_type_system())
    (tmp_path / "c.zip").write_bytes(b"PK\x03\x04 damaged")
    make_zip(tmp_path / "d.zip", d_xmi="0" * 2**27, TypeSystem_xml=make_type_system())
    assert [str(problem).partition(";")[0] for problem in CasXmi().read(tmp_path)] == [
        f"{tmp_path}/a.zip: 1 files, 1 of them .xmi and 0 TypeSystem.xml",
        f"{tmp_path}/b.zip/b.xmi:14: webanno.custom.Visit has no feature bed",
        f"{tmp_path}/c.zip: not a zip file",
        f"{tmp_path}/d.zip: unpacks to more than 67,108,864 bytes or 1,000,000 files",
    ]


def test_the_missing_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    write(tmp_path, name="other.xmi")
    monkeypatch.setitem(sys.modules, "cassis", None)
    (problem,) = FORMATS.load("cas_xmi")().read(tmp_path)
    assert str(problem) == "corpus.format: cas_xmi needs the library dkpro-cassis; pip install 'clinie[cas]'"
