"""The BioC JSON format, ``{"documents": [...]}``; see :mod:`clinie_core.data.corpora.bioc`.

A file may also contain a list of collections, as the service of PMC delivers it, ``{"PubTator3": [...]}``, a
list of documents, or a document or collection per line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, ClassVar

from clinie_core.data.corpora.bioc import ANNOTATION_KEYS, BiocDocument, from_bioc, to_bioc
from clinie_core.data.corpora.corpus_format import StreamFormat
from clinie_core.data.corpora.json_stream import ObjectLocator, find_key, read_items
from clinie_core.data.corpora.reading import validate_content
from clinie_core.data.document import Document
from clinie_core.errors import InputError, Problem, fail

__all__ = ["BiocJson"]

LAYOUTS = {
    ("", "documents"): ("documents.item", 2),
    ("item", "documents"): ("item.documents.item", 3),
    ("", "PubTator3"): ("PubTator3.item", 2),
    ("", "passages"): ("", 0),
    ("item", "passages"): ("item", 1),
}
"""For the path of an object and its key: the path of the documents, and the number of brackets around each."""


class BiocJson(StreamFormat):
    """BioC collections as JSON files."""

    example: ClassVar[str] = 'NAME.json, {"documents": [{"id": ..., "passages": [...]}]}'
    suffix: ClassVar[str] = ".json"
    other_suffixes: ClassVar[tuple[str, ...]] = (".jsonl",)

    def read_stream(self, stream: BinaryIO, where: str, name: str) -> Iterator[tuple[str, Document] | Problem]:
        """See :meth:`StreamFormat.read_stream`."""
        key = find_key(stream, where, LAYOUTS)
        if key is None:
            fail(f"{where}:1", "not a BioC collection", allowed="documents, or passages", remedy="check the format")
        path, depth = LAYOUTS[key]
        lines = ObjectLocator(stream, where, depth)
        for number, content in enumerate(read_items(stream, where, path)):
            place = f"{where}: documents.{number}"
            try:
                faults = self.collect_errors()
                source = validate_content(BiocDocument.model_validate, content, place, faults, ANNOTATION_KEYS)
                document = from_bioc(source, place, faults)
            except InputError as error:
                yield from self.skip(lines.locate(error.problems, number))
            else:
                yield from lines.locate(self.take_notices(), number)
                yield place, document

    def write_stream(self, documents: Iterable[Document], stream: BinaryIO) -> None:
        """See :meth:`StreamFormat.write_stream`."""
        stream.write(b'{"source": "clinie", "date": "", "key": "", "infons": {}, "documents": [')
        for number, document in enumerate(documents):
            stream.write((",\n" if number else "\n").encode() + to_bioc(document).model_dump_json().encode())
        stream.write(b"\n]}\n")
