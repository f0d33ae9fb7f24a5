"""XML files of the 2012 and 2014 i2b2 shared tasks, and of the annotation tool MAE.

Source: Sun et al. 2013, JAMIA 20(5), on temporal relations; Stubbs and Uzuner 2015, Journal of Biomedical
Informatics 58, on de-identification. A file has the text in ``<TEXT>`` and the annotations in ``<TAGS>``. A tag
with ``start`` and ``end``, or with ``spans``, is a concept. Its type is the attribute ``TYPE`` or ``type``, such as
``DOCTOR`` of the tag ``NAME``, else the tag's name. A tag with ``fromID`` and ``toID`` is a relation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from lxml import etree

from clinie_core.data.corpora.corpus_format import StandoffFormat
from clinie_core.data.corpora.offsets import convert_utf16_offsets, has_astral_characters
from clinie_core.data.corpora.reading import AnnotationErrors
from clinie_core.data.corpora.xml_files import parse_xml, render_xml, replace_illegal_characters
from clinie_core.data.document import Attribute, Concept, Document, Relation
from clinie_core.errors import fail

__all__ = ["I2b2Xml"]

XML = ".xml"
TYPE_KEYS = ("TYPE", "type")
PLACE_KEYS = frozenset({"id", "start", "end", "spans", "text", *TYPE_KEYS})
RELATION_KEYS = frozenset({"id", "fromID", "fromText", "toID", "toText", *TYPE_KEYS})
RANGES = re.compile(r"[0-9]{1,12}~[0-9]{1,12}(?:,[0-9]{1,12}~[0-9]{1,12})*")
ATTRIBUTE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
TAG_OF_TYPE = {
    **dict.fromkeys(("PROBLEM", "TEST", "TREATMENT", "CLINICAL_DEPT", "EVIDENTIAL", "OCCURRENCE"), "EVENT"),
    **dict.fromkeys(("DATE", "TIME", "DURATION", "FREQUENCY"), "TIMEX3"),
    **dict.fromkeys(("PATIENT", "DOCTOR", "USERNAME"), "NAME"),
    **dict.fromkeys(("PHONE", "FAX", "EMAIL", "URL", "IPADDR"), "CONTACT"),
    **dict.fromkeys(("HOSPITAL", "ORGANIZATION", "STREET", "CITY", "STATE", "COUNTRY", "ZIP"), "LOCATION"),
}
"""Tag of each type of the shared tasks; others are written as the tag ``CONCEPT``."""


class I2b2Xml(StandoffFormat):
    """One XML file per document, with the text and its tags."""

    example: ClassVar[str] = 'NAME.xml with <TEXT>...</TEXT> and <TAGS><EVENT id="E0" start="0" end="4" .../></TAGS>'
    suffixes: ClassVar[tuple[str, ...]] = (XML,)

    def parse(self, name: str, where: Mapping[str, str], files: Mapping[str, str]) -> Document:
        """See :meth:`StandoffFormat.parse`."""
        root = parse_xml(files[XML], where[XML])
        text = root.findtext("TEXT")
        if text is None:
            fail(f"{where[XML]}:1", "no text", allowed="<TEXT> and <TAGS>")
        reader = _TagReader(text, where[XML], self.collect_errors())
        for tag in (tag for tags in root.iterchildren("TAGS") for tag in tags.iterchildren(etree.Element)):
            reader.read(tag)
        reader.errors.raise_if_any()
        return Document(name, text, tuple(reader.concepts), tuple(reader.relations), tuple(reader.attributes))

    def render(self, document: Document) -> dict[str, str]:
        """See :meth:`StandoffFormat.render`; offsets count code points."""
        root = etree.Element("root")
        etree.SubElement(root, "TEXT").text = replace_illegal_characters(document.text)
        tags = etree.SubElement(root, "TAGS")
        copies = {c.id: replace_illegal_characters(document.mention(c)) for c in document.concepts}
        for concept in document.concepts:
            place = {"start": str(concept.start), "end": str(concept.end)}
            if len(concept.spans) > 1:
                place = {"spans": ",".join(f"{s.start}~{s.end}" for s in concept.spans)}
            fields = {"id": concept.id, **place, "text": copies[concept.id], "TYPE": concept.type}
            fields |= _select_attributes(document, concept.id, PLACE_KEYS)
            etree.SubElement(tags, TAG_OF_TYPE.get(concept.type, "CONCEPT"), _clean(fields))
        for r in document.relations:
            ends = {"fromID": r.head, "fromText": copies[r.head], "toID": r.tail, "toText": copies[r.tail]}
            fields = {"id": r.id, **ends, "type": r.type} | _select_attributes(document, r.id, RELATION_KEYS)
            etree.SubElement(tags, "TLINK", _clean(fields))
        return {XML: render_xml(root)}


def _select_attributes(document: Document, target: str, reserved: frozenset[str]) -> dict[str, str]:
    """Return the attributes of an annotation whose types can be names of XML attributes; a flag is ``true``."""
    return {
        a.type: a.value or "true"
        for a in document.attributes
        if a.target == target and a.type not in reserved and ATTRIBUTE_NAME.fullmatch(a.type)
    }


def _clean(fields: dict[str, str]) -> dict[str, str]:
    return {key: replace_illegal_characters(value) for key, value in fields.items()}


class _TagReader:
    """Reader of the tags of one document."""

    def __init__(self, text: str, where: str, errors: AnnotationErrors) -> None:
        self._text = text
        self._where = where
        self._astral = has_astral_characters(text)
        self._convert = convert_utf16_offsets(text)
        self.errors = errors
        self.concepts: list[Concept] = []
        self.relations: list[Relation] = []
        self.attributes: list[Attribute] = []

    def read(self, tag: Any) -> None:
        """Read a tag, or the tags of several annotators within it."""
        where = f"{self._where}:{tag.sourceline}"
        inner = list(tag.iterchildren(etree.Element))
        if tag.get("fromID") is not None or tag.get("toID") is not None:
            id_ = tag.get("id") or f"R{len(self.relations) + 1}"
            head, tail = tag.get("fromID") or "nothing", tag.get("toID") or "nothing"
            self.relations.append(Relation(id_, _read_type(tag), head, tail))
            self._read_attributes(tag, id_, RELATION_KEYS)
        elif tag.get("start") is not None or tag.get("spans") is not None:
            self._read_concept(tag, where)
        elif inner:
            for part in inner:
                self.read(part)
        else:
            remedy = "remove the tags of whole documents, such as those of risk factors"
            self.errors.add(where, f"a tag {tag.tag} without offsets", allowed="start and end, or spans", remedy=remedy)

    def _read_concept(self, tag: Any, where: str) -> None:
        id_ = tag.get("id") or f"T{len(self.concepts) + 1}"
        start, end, ranges, copy = (tag.get(key) for key in ("start", "end", "spans", "text"))
        if ranges is None:
            ranges = f"{start}~{end}"
        if not RANGES.fullmatch(ranges):
            self.errors.add(where, f"{id_}: offsets do not parse", allowed='start="0" end="4", or spans="0~4,6~9"')
            return
        pairs = [(int(pair.partition("~")[0]), int(pair.partition("~")[2])) for pair in ranges.split(",")]
        if self._astral and copy is not None and not self._matches(pairs, copy):
            converted = [self._convert(*pair) for pair in pairs]
            pairs = converted if self._matches(converted, copy) else pairs
        fitted = [self.errors.fit_span(where, id_, first, last, len(self._text)) for first, last in pairs]
        spans = tuple(span for span in fitted if span is not None)
        found = " ".join(self._text[s.start : s.end] for s in spans)
        if len(spans) < len(pairs):
            return
        equal = copy is None or self._matches(pairs, copy)
        if not equal and not self.errors.check_mention(where, id_, copy or "", found):
            return
        self.concepts.append(Concept(id_, _read_type(tag), spans))
        self._read_attributes(tag, id_, PLACE_KEYS)

    def _matches(self, pairs: list[tuple[int, int]], copy: str) -> bool:
        """Return whether the text of several ranges equals a copy except for white space."""
        found = "".join(self._text[start:end] for start, end in pairs)
        return "".join(found.split()) == "".join(copy.split())

    def _read_attributes(self, tag: Any, target: str, reserved: frozenset[str]) -> None:
        for key, value in tag.attrib.items():
            if key not in reserved and value:
                self.attributes.append(Attribute(f"A{len(self.attributes) + 1}", key, target, value))


def _read_type(tag: Any) -> str:
    return next((str(tag.get(key)) for key in TYPE_KEYS if tag.get(key)), str(tag.tag))
