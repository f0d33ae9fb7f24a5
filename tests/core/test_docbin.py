"""spaCy's DocBin, written by spaCy itself and by clinie."""

from __future__ import annotations

import random
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import srsly
from spacy.tokens import Doc
from spacy.tokens import Span as Range

from clinie_core.data.corpora.checking import check_document
from clinie_core.data.corpora.docbin import DocBin
from clinie_core.data.corpora.document_comparison import count_differences
from clinie_core.data.corpora.reading import ReadingOptions
from clinie_core.data.document import Attribute, Concept, Document, Normalization, Span
from clinie_core.errors import InputError, Problem
from tests.corpora import list_mentions

TEXT = "\U0001f600 Give aspirin  for mild\nchest pain."
ENTITIES = [(7, 14, "Drug", "RxNorm:1191"), (20, 35, "Problem", "")]


@pytest.fixture(scope="module")
def nlp() -> Any:
    return spacy.blank("en")


def annotate(nlp: Any, text: str = TEXT) -> Any:
    doc = nlp(text)
    doc.ents = [doc.char_span(start, end, label=label, kb_id=kb) for start, end, label, kb in ENTITIES]
    return doc


def save(folder: Path, *docs: Any, name: str = "train.spacy") -> Path:
    spacy.tokens.DocBin(store_user_data=True, docs=docs).to_disk(folder / name)
    return folder


def read(folder: Path) -> tuple[list[Document], list[Problem]]:
    items = list(DocBin().read(folder))
    return [i for i in items if isinstance(i, Document)], [i for i in items if isinstance(i, Problem)]


def test_entities_span_groups_and_user_data_are_read(tmp_path: Path, nlp: Any) -> None:
    doc, plain = annotate(nlp), annotate(nlp)
    doc.spans["sc"] = [*doc.ents, doc.char_span(25, 35, label="Finding", span_id="f1")]
    doc.spans["body"] = [doc.char_span(25, 30), doc.char_span(25, 30)]
    doc.user_data |= {"id": "n1", "patient": "p1", ("._.", "age", None, None): 61, ("._.", "x", 0, 5): "of a span"}
    plain.user_data[("._.", "doc_id", None, None)] = 7
    (first, second, third), problems = read(save(tmp_path, doc, plain, nlp("No pain.")))
    assert not problems
    assert (first.id, second.id, third.id) == ("n1", "7", "train-3")
    assert first.text == TEXT
    assert list_mentions(first) == [
        ("Drug", "aspirin"),
        ("Problem", "mild\nchest pain"),
        ("body", "chest"),
        ("body", "chest"),
        ("Finding", "chest pain"),
    ]
    assert first.normalizations == (Normalization("N1", "T1", "RxNorm", "1191"),)
    assert first.attributes == (Attribute("A1", "ent_id", "T5", "f1"),)
    assert first.metadata == {"patient": "p1", "age": "61"}
    assert not third.concepts


def test_what_is_not_read_is_named(tmp_path: Path, nlp: Any) -> None:
    doc = Doc(nlp.vocab, words=["No", "pain", "."])
    doc.cats = {"NEGATIVE": 1.0}
    (document,), notices = read(save(tmp_path, doc, doc))[0][:1], read(tmp_path)[1]
    assert document.text == "No pain . "
    assert [str(notice) for notice in notices] == [
        f"{tmp_path}/train.spacy: categories of documents are not read",
        f"{tmp_path}/train.spacy: the white space of texts is unknown; tokens are separated by blanks",
    ]


def test_written_files_are_training_data_of_spacy(tmp_path: Path) -> None:
    text = "pain  in\tboth  legs\r\n \U0001f600pain "
    spans = [(0, 4), (0, 8), (5, 8), (4, 6), (9, 19), (15, 19), (22, 28), (19, 23), (23, 28), (11, 13), (23, 27)]
    concepts = tuple(Concept(f"T{n}", f"X{n}", (Span(*pair),)) for n, pair in enumerate(spans))
    links = (Normalization("N1", "T4", "MeSH", "D010146"),)
    notes = [
        Document("ward/a", text, concepts, attributes=(Attribute("A", "ent_id", "T0", "e"),), normalizations=links),
        Document("empty", ""),
        Document("blank", " \n ", metadata={"patient": "p"}),
    ]
    DocBin().write(notes, tmp_path)
    assert not any(count_differences(a, b) for a, b in zip(notes, DocBin().read_all(tmp_path), strict=True))
    docs = list(spacy.tokens.DocBin().from_disk(tmp_path / "documents.spacy").get_docs(spacy.blank("en").vocab))
    assert [doc.text for doc in docs] == [note.text for note in notes]
    assert [(entity.text, entity.label_) for entity in docs[0].ents] == [
        ("pain  in", "X1"),
        ("both  legs", "X4"),
        ("pain", "X10"),
    ]
    assert len(docs[0].spans["sc"]) == len(spans)


def test_relations_and_gaps_are_reported_as_lost() -> None:
    document = Document(
        "a",
        "left leg and arm",
        (Concept("T1", "Part", (Span(0, 4), Span(13, 16))),),
        attributes=(Attribute("A", "negated", "T1"),),
    )
    assert count_differences(document, DocBin().round_trip(document)).keys() >= {"concepts", "attributes"}


def change(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content | fields


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a list": (lambda content: [content], "not a DocBin"),
    "a field is missing": (lambda content: {k: v for k, v in content.items() if k != "tokens"}, "not a DocBin"),
    "strings are numbers": (change(strings=[1]), "a field of the DocBin has the wrong type"),
    "strings are missing": (change(strings=["aspirin"]), "strings of the attribute ORTH are missing"),
    "lengths are too large": (
        change(lengths=np.asarray([4000], dtype="int32").tobytes()),
        "the numbers of tokens in the DocBin differ",
    ),
    "lengths are negative": (
        change(lengths=np.asarray([-1, 2], dtype="int32").tobytes()),
        "the numbers of tokens in the DocBin differ",
    ),
    "flags are missing": (change(flags=[]), "a field of the DocBin does not have a value per document"),
    "other attributes": (lambda content: content | {"attrs": [a + 1000 for a in content["attrs"]]}, "a field of the"),
}


@pytest.mark.parametrize(("edit", "expected"), FAULTS.values(), ids=FAULTS)
def test_inconsistent_content_is_reported(tmp_path: Path, nlp: Any, edit: Any, expected: str) -> None:
    content = spacy.tokens.DocBin(docs=[annotate(nlp)]).to_bytes()
    changed = srsly.msgpack_dumps(edit(srsly.msgpack_loads(zlib.decompress(content))))
    (tmp_path / "a.spacy").write_bytes(zlib.compress(changed))
    (problem,) = read(tmp_path)[1]
    assert str(problem).startswith(f"{tmp_path}/a.spacy: {expected}")


def test_faulty_spans_name_their_document_and_can_be_left_out(tmp_path: Path, nlp: Any) -> None:
    doc, label = annotate(nlp), nlp.vocab.strings["Drug"]
    good = srsly.msgpack_loads(zlib.decompress(spacy.tokens.DocBin(docs=[doc, doc]).to_bytes()))
    row = Range(doc, 0, 1, label=label)
    doc.spans["sc"] = [row]
    packed = srsly.msgpack_loads(doc.spans.to_bytes())
    ((group, keys),) = packed.items()
    members = srsly.msgpack_loads(group)
    members["spans"] = [members["spans"][0][:-4] + (9999).to_bytes(4, "big")]
    good["span_groups"][1] = srsly.msgpack_dumps({srsly.msgpack_dumps(members): keys})
    (tmp_path / "a.spacy").write_bytes(zlib.compress(srsly.msgpack_dumps(good)))
    assert str(read(tmp_path)[1][0]).startswith(f"{tmp_path}/a.spacy: document 2: T1: offsets 0:9999 lie outside")
    items = list(DocBin(ReadingOptions(on_error="skip")).read(tmp_path))
    assert [len(item.concepts) for item in items if isinstance(item, Document)] == [2, 2]
    assert [item.severity for item in items if isinstance(item, Problem)] == ["skipped"]


def test_damaged_content_is_reported_or_valid(tmp_path: Path, nlp: Any) -> None:
    doc = annotate(nlp)
    doc.spans["sc"] = list(doc.ents)
    content = zlib.decompress(spacy.tokens.DocBin(store_user_data=True, docs=[doc, doc]).to_bytes())
    draw = random.Random(4)
    read_documents = 0
    for _ in range(200):
        at = draw.randrange(len(content))
        byte = bytes([draw.choice([0, 1, 127, 128, 255, draw.randrange(256)])])
        (tmp_path / "a.spacy").write_bytes(zlib.compress(content[:at] + byte + content[at + 1 :]))
        documents, problems = read(tmp_path)
        assert all(str(tmp_path) in problem.where and "\n" not in str(problem) for problem in problems)
        assert not any(check_document(document, "") for document in documents)
        read_documents += len(documents)
    assert 0 < read_documents < 400


def test_a_file_that_expands_without_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.spacy").write_bytes(zlib.compress(bytes(2**27)))
    (problem,) = read(tmp_path)[1]
    assert problem.found == "unpacks to more than 67,108,864 bytes"


def test_the_missing_library_is_one_line(tmp_path: Path, nlp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, annotate(nlp))
    save(tmp_path, annotate(nlp), name="test.spacy")
    monkeypatch.setitem(sys.modules, "spacy.tokens", None)
    expected = Problem("corpus.format", "docbin needs the library spaCy", remedy="pip install 'clinie[spacy]'")
    assert list(DocBin().read(tmp_path)) == [expected]
    assert list(DocBin(ReadingOptions(on_error="skip")).read(tmp_path)) == [expected]
    with pytest.raises(InputError, match=r"pip install 'clinie\[spacy\]'"):
        DocBin().write([], tmp_path / "new")
