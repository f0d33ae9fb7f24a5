"""Parsing and building of XML documents by lxml, with errors that name a line."""

from __future__ import annotations

import re
from typing import Any

from lxml import etree

from clinie_core.errors import fail

__all__ = ["parse_xml", "render_xml", "replace_illegal_characters"]

NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def parse_xml(content: str, where: str) -> Any:
    """Parse a document and return its root; declared entities are not expanded, as they can be an attack.

    Raises:
        InputError: If it is not well-formed.
    """
    parser = etree.XMLParser(encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False)
    try:
        return etree.fromstring(content.encode(), parser)
    except etree.XMLSyntaxError as error:
        remedy = "export the file again, or remove the invalid part"
        fail(f"{where}:{error.lineno or 1}", "not well-formed XML", remedy=remedy)


def render_xml(root: Any) -> str:
    """Return a document with declaration; an indented copy would change texts."""
    return str(etree.tostring(root, xml_declaration=True, encoding="UTF-8").decode()) + "\n"


def replace_illegal_characters(text: str) -> str:
    """Replace each character that XML does not allow by U+FFFD."""
    return NOT_XML.sub("\ufffd", text)
