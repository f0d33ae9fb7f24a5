"""The BioC XML format, parsed by lxml; see :mod:`clinie_core.data.corpora.bioc`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, ClassVar

from lxml import etree

from clinie_core.data.corpora.bioc import ANNOTATION_KEYS, BiocDocument, from_bioc, to_bioc
from clinie_core.data.corpora.corpus_format import StreamFormat
from clinie_core.data.corpora.reading import AnnotationErrors, validate_content
from clinie_core.data.document import Document
from clinie_core.errors import InputError, Problem, fail

__all__ = ["BiocXml"]

NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
PLURAL_KEYS = {"passage": "passages", "sentence": "sentences", "annotation": "annotations", "relation": "relations"}
OTHER_FORMATS = (
    ("document", "id", "DDI XML, format ddi_xml"),
    ("ClinicalNarrative", "", "i2b2 2012 XML, format i2b2_xml"),
    ("deIdi2b2", "", "i2b2 2014 XML, format i2b2_xml"),
    ("XMI", "", "UIMA CAS XMI"),
    ("annotations", "", "Knowtator or eHOST XML"),
    ("data", "", "Anafora XML"),
    ("corpus", "", "a corpus of sentences with entities, such as AIMed"),
    ("PubmedArticleSet", "", "PubMed XML"),
    ("article", "", "JATS XML"),
    ("Label", "", "a drug label of TAC 2017"),
    ("TEI", "", "TEI XML"),
    ("set", "", "GENIA XML"),
)
"""Root element, one of its attributes, and the format that has them."""
NUMBER = re.compile(r"[0-9]{1,12}")


class BiocXml(StreamFormat):
    """BioC collections as XML files."""

    example: ClassVar[str] = "NAME.xml, <collection> of <document> with <passage> and <annotation>"
    suffix: ClassVar[str] = ".xml"

    def read_stream(self, stream: BinaryIO, where: str, name: str) -> Iterator[tuple[str, Document] | Problem]:
        """See :meth:`StreamFormat.read_stream`; declared entities are not expanded, as they can be an attack."""
        try:
            events = etree.iterparse(
                stream, events=("end",), tag="document", resolve_entities=False, no_network=True, load_dtd=False
            )
            for _, element in events:
                _check_root(element.getroottree().getroot(), where)
                place = f"{where}:{element.sourceline}"
                try:
                    faults = self.collect_errors()
                    content = _parse_element(element, where, faults)
                    source = validate_content(BiocDocument.model_validate, content, place, faults, ANNOTATION_KEYS)
                    yield place, from_bioc(source, place, faults)
                except InputError as error:
                    yield from self.skip(error.problems)
                element.clear()
                while element.getprevious() is not None:  # free the parsed elements, so that memory stays constant
                    del element.getparent()[0]
            _check_root(events.root, where)
        except etree.XMLSyntaxError as error:
            line = error.lineno or 1
            fail(f"{where}:{line}", "not well-formed XML", remedy="export the file again, or remove the invalid part")

    def write_stream(self, documents: Iterable[Document], stream: BinaryIO) -> None:
        """See :meth:`StreamFormat.write_stream`; a character that XML does not allow becomes U+FFFD."""
        with etree.xmlfile(stream, encoding="utf-8") as file:
            file.write_declaration()
            with file.element("collection"):
                for tag in ("source", "date", "key"):
                    file.write(etree.Element(tag))
                for document in documents:
                    file.write(_build_element("document", to_bioc(document).model_dump()))
                    file.write("\n")


def _check_root(root: Any, where: str) -> None:
    """Check that the root element is that of a BioC collection.

    Raises:
        InputError: If the file is in another format; the message names it if its root element is known.
    """
    if root.tag == "collection":
        return
    name = etree.QName(root).localname
    kind = next((kind for tag, key, kind in OTHER_FORMATS if tag == name and (not key or root.get(key))), "")
    found = f"not a BioC collection: the root element is <{name}>{f', as in {kind}' if kind else ''}"
    fail(f"{where}:{root.sourceline}", found, allowed="<collection>", remedy="check the format")


def _parse_element(element: Any, where: str, errors: AnnotationErrors) -> dict[str, Any]:
    """Convert an element to the fields of :class:`BiocDocument` or one of its parts, without faulty annotations."""
    content: dict[str, Any] = {key: element.get(key) for key in ("id",) if element.get(key) is not None}
    for child in element.iterchildren(etree.Element):
        tag, text = child.tag, child.text or ""
        if tag == "infon":
            content.setdefault("infons", {})[child.get("key") or ""] = text
        elif tag == "node":
            content.setdefault("nodes", []).append({"refid": child.get("refid"), "role": child.get("role") or ""})
        elif tag == "location":
            place = {key: _parse_number(child.get(key), child, where) for key in ("offset", "length")}
            content.setdefault("locations", []).append(place)
        elif tag in PLURAL_KEYS:
            try:
                part = _parse_element(child, where, errors)
            except InputError as error:
                if PLURAL_KEYS[tag] not in ANNOTATION_KEYS:
                    raise
                errors.extend(error.problems)
            else:
                content.setdefault(PLURAL_KEYS[tag], []).append(part)
        elif tag == "offset":
            content[tag] = _parse_number(text.strip(), child, where)
        elif tag in ("id", "text"):
            content[tag] = text
    return content


def _parse_number(text: str | None, element: Any, where: str) -> int:
    if text is None or not NUMBER.fullmatch(text.strip()):
        fail(f"{where}:{element.sourceline}", f"<{element.tag}> needs a number", allowed="digits")
    return int(text)


def _build_element(tag: str, content: dict[str, Any]) -> Any:
    """Build an element from the fields of a part; the inverse of :func:`_parse_element`."""
    element = etree.Element(tag)
    if tag in ("annotation", "relation"):
        element.set("id", _replace_illegal_characters(content["id"]))
    elif "id" in content:
        etree.SubElement(element, "id").text = _replace_illegal_characters(content["id"])
    for key, value in content.get("infons", {}).items():
        infon = etree.SubElement(element, "infon", key=_replace_illegal_characters(key))
        infon.text = _replace_illegal_characters(value)
    for node in content.get("nodes", ()):
        etree.SubElement(element, "node", {key: _replace_illegal_characters(value) for key, value in node.items()})
    if "offset" in content:
        etree.SubElement(element, "offset").text = str(content["offset"])
    for place in content.get("locations", ()):
        etree.SubElement(element, "location", {key: str(value) for key, value in place.items()})
    if content.get("text") is not None:
        etree.SubElement(element, "text").text = _replace_illegal_characters(content["text"])
    for child, name in PLURAL_KEYS.items():
        element.extend(_build_element(child, part) for part in content.get(name, ()))
    return element


def _replace_illegal_characters(text: str) -> str:
    return NOT_XML.sub("\ufffd", text)
