"""The BioC JSON format, ``{"documents": [...]}``; see :mod:`clinie_core.data.corpora.bioc`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, ClassVar

from pydantic import ValidationError

from clinie_core.config import convert_validation_error
from clinie_core.data.corpora.bioc import BiocDocument, from_bioc, to_bioc
from clinie_core.data.corpora.corpus_format import StreamFormat
from clinie_core.data.corpora.json_stream import ObjectLocator, read_items
from clinie_core.data.document import Document
from clinie_core.errors import InputError, Problem

__all__ = ["BiocJson"]


class BiocJson(StreamFormat):
    """BioC collections as JSON files."""

    example: ClassVar[str] = 'NAME.json, {"documents": [{"id": ..., "passages": [...]}]}'
    suffix: ClassVar[str] = ".json"

    def read_stream(self, stream: BinaryIO, where: str, name: str) -> Iterator[tuple[str, Document] | Problem]:
        """See :meth:`StreamFormat.read_stream`."""
        lines = ObjectLocator(stream, where, depth=2)
        for number, content in enumerate(read_items(stream, where, "documents.item")):
            place = f"{where}: documents.{number}"
            try:
                document = from_bioc(BiocDocument.model_validate(content), place, self.collect_errors())
            except ValidationError as error:
                yield from self.skip(lines.locate(convert_validation_error(error, place, quote=False), number))
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
