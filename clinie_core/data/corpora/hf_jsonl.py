"""JSON Lines of tokens and tags, as token classification datasets on the Hugging Face hub are distributed.

Tags are strings of any BIO scheme, or numbers whose names are in the field ``names`` of the first line; this line
can be ``{"names": ["O", "B-Drug", ...]}`` without tokens. Tokens are joined by blanks. A numeric id counts the
lines of a file, hence the document's id is the file's name and this number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from clinie_core.config import convert_validation_error
from clinie_core.data.corpora.json_lines import JsonLineFormat, collect_metadata, select_metadata
from clinie_core.data.corpora.line_format import DocumentLines
from clinie_core.data.corpora.tokens import Token, build_document, tag_sentences
from clinie_core.data.document import Document
from clinie_core.errors import InputError, fail

__all__ = ["HfJsonl"]

TAG_FIELDS = ("ner_tags", "tags", "labels")


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    document_id: str | None = None
    id: int | str | None = None
    tokens: list[str] | None = None
    ner_tags: list[Any] | None = None
    tags: list[Any] | None = None
    labels: list[Any] | None = None
    names: list[str] | None = None


class HfJsonl(JsonLineFormat):
    """JSON Lines files with one list of tokens and one of tags per line."""

    example: ClassVar[str] = 'NAME.jsonl, each line {"tokens": [...], "ner_tags": [...]}; numbers need "names"'
    model: ClassVar[type[BaseModel]] = _Line

    def split_documents(self, where: str, name: str, lines: Iterator[str]) -> Iterator[DocumentLines]:
        """See :meth:`LineFormat.split_documents`; the second line of each piece is the file's first line."""
        first = ""
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if not first:
                first = line
                if _is_header(line):
                    continue
            yield DocumentLines(where, number, [line, first], f"{name}-{number}")

    def parse(self, piece: DocumentLines) -> Document:
        """See :meth:`LineFormat.parse`."""
        where = piece.locate(0)
        try:
            line, first = (_Line.model_validate_json(text) for text in piece.lines)
        except ValidationError as error:
            raise InputError(convert_validation_error(error, where, quote=False)) from None
        line.names = line.names if line.names is not None else first.names
        return self.build(line, where, piece.name)

    def build(self, row: Any, where: str, name: str) -> Document:
        """See :meth:`JsonLineFormat.build`."""
        line: _Line = row
        tags = next((values for values in (getattr(line, key) for key in TAG_FIELDS) if values is not None), None)
        if line.tokens is None or tags is None:
            fail(where, "no tokens or no tags", allowed=f"tokens and one of {', '.join(TAG_FIELDS)}")
        if len(tags) != len(line.tokens):
            fail(where, f"{len(line.tokens)} tokens and {len(tags)} tags", allowed="one tag per token")
        if any(token.split() != [token] for token in line.tokens):
            fail(where, "a token is empty or contains white space", allowed="tokens without white space")
        words = [_name_tag(tag, line.names, where) for tag in tags]
        id_ = line.document_id if line.document_id is not None else _make_id(line.id, name)
        sentence = [Token(token, word) for token, word in zip(line.tokens, words, strict=True)]
        document = build_document(id_, [sentence], where, self.collect_errors())
        metadata = {**collect_metadata(line.model_extra), **document.metadata}
        return Document(id_, document.text, document.concepts, metadata=metadata)

    def dump(self, document: Document) -> dict[str, Any]:
        """See :meth:`JsonLineFormat.dump`; sentence boundaries are lost."""
        flat = [(document.text[s.start : s.end], tag) for sentence in tag_sentences(document) for s, tag in sentence]
        return {
            **select_metadata(document, _Line.model_fields.keys()),
            "document_id": document.id,
            "tokens": [text for text, _ in flat],
            TAG_FIELDS[0]: [tag for _, tag in flat],
        }


def _is_header(line: str) -> bool:
    """Return whether a line has the names of tags and no tokens."""
    if '"names"' not in line:
        return False
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and "names" in row and "tokens" not in row


def _make_id(number: int | str | None, name: str) -> str:
    """Return the id of a document without ``document_id``; ``name`` ends with the number of the line."""
    if number is None:
        return name
    if isinstance(number, int) or number.isdecimal():
        return f"{name.rpartition('-')[0]}-{number}"
    return number


def _name_tag(tag: object, names: list[str] | None, where: str) -> str:
    """Return the name of a tag.

    Raises:
        InputError: If it is neither a string nor the number of a name.
    """
    if isinstance(tag, str):
        return tag
    if type(tag) is not int:
        fail(where, "a tag is neither a string nor a number", allowed='such as "B-Drug", "I-Drug" and "O"')
    if names is None:
        remedy = 'write a first line {"names": ["O", "B-Drug", ...]} with the names in the order of their numbers'
        fail(where, "tags are numbers without names", allowed="strings, or numbers with names", remedy=remedy)
    if not 0 <= tag < len(names):
        fail(where, f"tag {tag} has no name", allowed=f"0 to {len(names) - 1}")
    return names[tag]
