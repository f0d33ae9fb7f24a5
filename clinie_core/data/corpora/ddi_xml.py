"""The XML format of the DDI corpus: drug mentions and drug-drug interactions by sentence.

Source: Herrero-Zazo et al. 2013, Journal of Biomedical Informatics 46(5), and the corpus of SemEval-2013 task 9.
Offsets count characters of the sentence, and the end is the last character of the mention. The text of a document
consists of its sentences, separated by line feeds. A pair with an interaction becomes a relation, whose type is
``interaction`` if the file gives none.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, ClassVar

from lxml import etree

from clinie_core.data.corpora.corpus_format import StandoffFormat
from clinie_core.data.corpora.offsets import convert_utf16_offsets
from clinie_core.data.corpora.reading import AnnotationErrors
from clinie_core.data.corpora.xml_files import parse_xml, render_xml, replace_illegal_characters
from clinie_core.data.document import Concept, Document, Relation, Span
from clinie_core.errors import fail

__all__ = ["DdiXml"]

XML = ".xml"
RANGES = re.compile(r"[0-9]{1,12}-[0-9]{1,12}(?:;[0-9]{1,12}-[0-9]{1,12})*")
INTERACTION = "interaction"


class DdiXml(StandoffFormat):
    """One XML file per document, with sentences, entities and pairs."""

    example: ClassVar[str] = 'NAME.xml, <document> of <sentence text="..."> with <entity charOffset="0-3"> and <pair>'
    suffixes: ClassVar[tuple[str, ...]] = (XML,)

    def parse(self, name: str, where: Mapping[str, str], files: Mapping[str, str]) -> Document:
        """See :meth:`StandoffFormat.parse`."""
        root = parse_xml(files[XML], where[XML])
        sentences = list(root.iter("sentence"))
        if root.tag != "document" or (not sentences and len(root)):
            fail(f"{where[XML]}:1", "not a document of the DDI corpus", allowed="<document> of <sentence>")
        reader = _SentenceReader(where[XML], self.collect_errors())
        for sentence in sentences:
            reader.read(sentence)
        reader.errors.raise_if_any()
        text = "\n".join(reader.texts)
        return Document(name, text, tuple(reader.concepts), tuple(reader.relations))

    def render(self, document: Document) -> dict[str, str]:
        """See :meth:`StandoffFormat.render`; each line becomes a sentence, unless a concept crosses its end."""
        root = etree.Element("document", id=replace_illegal_characters(document.id))
        ids = {c.id: replace_illegal_characters(c.id) for c in document.concepts}
        sentences = _split_sentences(document)
        starts = [start for start, _ in sentences]
        inside: dict[int, list[Concept]] = defaultdict(list)
        pairs: dict[int, list[Relation]] = defaultdict(list)
        places = {c.id: bisect_right(starts, c.start) - 1 for c in document.concepts}
        for concept in document.concepts:
            inside[places[concept.id]].append(concept)
        for relation in document.relations:
            pairs[places[relation.head]].append(relation)
        for number, (start, end) in enumerate(sentences):
            text = replace_illegal_characters(document.text[start:end])
            sentence = etree.SubElement(root, "sentence", id=f"s{number}", text=text)
            for concept in inside[number]:
                ranges = ";".join(f"{s.start - start}-{s.end - start - 1}" for s in concept.spans)
                copy = replace_illegal_characters(document.mention(concept))
                type_ = replace_illegal_characters(concept.type)
                etree.SubElement(sentence, "entity", id=ids[concept.id], charOffset=ranges, type=type_, text=copy)
            for at, relation in enumerate(pairs[number]):
                ends = {"e1": ids[relation.head], "e2": ids[relation.tail], "ddi": "true"}
                type_ = replace_illegal_characters(relation.type)
                etree.SubElement(sentence, "pair", {"id": f"s{number}.p{at}", **ends, "type": type_})
        return {XML: render_xml(root)}


def _split_sentences(document: Document) -> list[tuple[int, int]]:
    """Return the ranges of the lines of a text; lines that a concept joins are one range."""
    cuts = [match.start() for match in re.finditer("\n", document.text)]
    crossed: set[int] = set()
    for concept in document.concepts:
        crossed.update(cuts[bisect_left(cuts, concept.start) : bisect_left(cuts, concept.end)])
    kept = [at for at in cuts if at not in crossed]
    return list(zip([0, *(at + 1 for at in kept)], [*kept, len(document.text)], strict=True))


class _SentenceReader:
    """Reader of the sentences of one document."""

    def __init__(self, where: str, errors: AnnotationErrors) -> None:
        self._where = where
        self._begin = 0
        self.errors = errors
        self.texts: list[str] = []
        self.concepts: list[Concept] = []
        self.relations: list[Relation] = []

    def read(self, sentence: Any) -> None:
        """Append the text of a sentence, its entities and its pairs."""
        text = sentence.get("text")
        if text is None:
            fail(f"{self._where}:{sentence.sourceline}", "a sentence without a text", allowed='text="..."')
        self._begin += len(self.texts[-1]) + 1 if self.texts else 0
        self.texts.append(text)
        for entity in sentence.iterchildren("entity"):
            self._read_entity(entity, text)
        for pair in sentence.iterchildren("pair"):
            if pair.get("ddi", "true").casefold() == "true":
                id_ = f"R{len(self.relations) + 1}"
                head, tail = pair.get("e1") or "nothing", pair.get("e2") or "nothing"
                self.relations.append(Relation(id_, pair.get("type") or INTERACTION, head, tail))

    def _read_entity(self, entity: Any, text: str) -> None:
        where = f"{self._where}:{entity.sourceline}"
        id_ = entity.get("id") or f"T{len(self.concepts) + 1}"
        type_, offsets, copy = entity.get("type"), entity.get("charOffset") or "", entity.get("text")
        if not type_ or not RANGES.fullmatch(offsets):
            found = "no type" if not type_ else "charOffset does not parse"
            self.errors.add(where, f"{id_}: {found}", allowed='type="drug" and charOffset="START-END;START-END"')
            return
        pairs = [tuple(map(int, pair.split("-"))) for pair in offsets.split(";")]
        spans = self._fit_spans(where, id_, [(pair[0], pair[1]) for pair in pairs], text, copy)
        if spans:
            self.concepts.append(Concept(id_, type_, tuple(spans)))

    def _fit_spans(
        self, where: str, id_: str, pairs: list[tuple[int, int]], text: str, copy: str | None
    ) -> list[Span] | None:
        """Return the spans of an entity in the document; offsets are taken in the unit in which the copy matches."""
        convert = convert_utf16_offsets(text)
        inclusive = [(start, end + 1) for start, end in pairs]
        readings = [inclusive, pairs, [convert(*pair) for pair in inclusive]]
        words = "".join((copy or "").split())
        chosen = next((r for r in readings if _join(text, r) == words and not _has_space_at_ends(text, r)), inclusive)
        spans = [self.errors.fit_span(where, id_, start, end, len(text)) for start, end in chosen]
        fitted = [span for span in spans if span is not None]
        if len(fitted) < len(spans):
            return None
        found = " ".join(text[s.start : s.end] for s in fitted)
        if copy is not None and _join(text, chosen) != words and not self.errors.check_mention(where, id_, copy, found):
            return None
        return [Span(self._begin + s.start, self._begin + s.end) for s in fitted]


def _join(text: str, pairs: list[tuple[int, int]]) -> str:
    """Return the text of several ranges without white space."""
    return "".join("".join(text[start:end].split()) for start, end in pairs)


def _has_space_at_ends(text: str, pairs: list[tuple[int, int]]) -> bool:
    return any(text[start:end] != text[start:end].strip() for start, end in pairs)
