"""The CoNLL column format: one token per line with its tag last, and a blank line between sentences.

Source: the shared tasks of CoNLL-2000 and CoNLL-2003 (Tjong Kim Sang and De Meulder 2003). Columns are
separated by tabs or, without tabs, by blanks. If there are four columns and the middle two are numbers,
these are the token's offsets, and the text is reconstructed accordingly. If the first column numbers the
tokens of each sentence, the token is in the second. A document begins at ``-DOCSTART-`` or
``# newdoc id = ID``; a file without either is one document. Other lines that begin with ``#`` are comments,
unless they have the columns and a tag of the other lines.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import ClassVar

from clinie_core.data.corpora.line_format import DocumentLines, LineFormat
from clinie_core.data.corpora.tokens import Token, build_document, is_tag, tag_sentences
from clinie_core.data.document import Document
from clinie_core.errors import ErrorList

__all__ = ["Conll"]

NEW_DOCUMENT = re.compile(r"#\s*newdoc(?:\s+id\s*=\s*(.+))?")
DOCUMENT_START = "-DOCSTART-"
NUMBER = re.compile(r"[0-9]{1,12}")
Row = tuple[int, list[str]]
"""Index of a line in its document, and its columns."""


class Conll(LineFormat):
    """Files of tab-separated or blank-separated columns."""

    example: ClassVar[str] = "NAME.conll with lines 'TOKEN TAG', 'TOKEN ... TAG' or 'TOKEN START END TAG'"
    suffix: ClassVar[str] = ".conll"
    other_suffixes: ClassVar[tuple[str, ...]] = (".tsv", ".txt", ".bio", ".iob", ".iob2")

    def split_documents(self, where: str, name: str, lines: Iterator[str]) -> Iterator[DocumentLines]:
        """See :meth:`LineFormat.split_documents`."""
        current: list[str] = []
        begin, id_, count, named = 1, name, 0, False
        for number, line in enumerate(lines, start=1):
            match = NEW_DOCUMENT.fullmatch(line)
            if match or line.startswith(DOCUMENT_START):
                if named or any(_split_rows(current)):
                    yield DocumentLines(where, begin, current, id_)
                count += 1
                named = match is not None and match[1] is not None
                begin, current, id_ = number + 1, [], match[1].strip() if match and named else f"{name}-{count}"
            else:
                current.append(line)
        if count or any(_split_rows(current)):
            yield DocumentLines(where, begin, current, id_)

    def parse(self, piece: DocumentLines) -> Document:
        """See :meth:`LineFormat.parse`."""
        errors, faults = ErrorList(), self.collect_errors()
        sentences = _split_rows(piece.lines)
        rows = [columns for sentence in sentences for _, columns in sentence]
        if rows and max(map(len, rows)) > 4 and not any(is_tag(columns[-1].strip()) for columns in rows):
            errors.add(
                piece.locate(sentences[0][0][0]), "no tag in the last column", allowed="tags such as O and B-Type"
            )
            errors.raise_if_any()
        at = 1 if _has_token_numbers(sentences) else 0
        tokens = [[_parse_row(piece.locate(index), columns, at, errors) for index, columns in s] for s in sentences]
        errors.raise_if_any()
        found = [[token for token in sentence if token is not None] for sentence in tokens]
        document = build_document(piece.name, found, piece.locate(0), faults)
        faults.raise_if_any()
        return document

    def render(self, document: Document) -> str:
        """See :meth:`LineFormat.render`; writes four columns with IOB2 tags."""
        lines = [f"# newdoc id = {' '.join(document.id.split())}"]
        for sentence in tag_sentences(document):
            for span, tag in sentence:
                lines.append(f"{document.text[span.start : span.end]}\t{span.start}\t{span.end}\t{tag}")
            lines.append("")
        return "\n".join(lines) + "\n"


def _split_rows(lines: Sequence[str]) -> list[list[Row]]:
    """Return the rows of each sentence, without comments."""
    plain = [_split_columns(line) for line in lines if not line.startswith("#") and line.strip()]
    width = Counter(map(len, plain)).most_common(1)[0][0] if plain else 0
    tags = {columns[-1] for columns in plain}
    sentences: list[list[Row]] = [[]]
    for index, line in enumerate(lines):
        if not line.strip():
            sentences.append([])
            continue
        columns = _split_columns(line)
        # A token may begin with a number sign; its line has the same form as the other lines.
        as_others = len(columns) == width and (columns[-1] in tags or is_tag(columns[-1]))
        if as_others or not line.startswith("#"):
            sentences[-1].append((index, columns))
    return [sentence for sentence in sentences if sentence]


def _split_columns(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else line.split()


def _has_token_numbers(sentences: Sequence[Sequence[Row]]) -> bool:
    """Return whether the first of three or more columns numbers the tokens of each sentence from 0 or 1."""
    if not any(len(sentence) > 1 for sentence in sentences):
        return False
    return all(
        len(columns) > 2 and columns[0] == str(number) and not _has_offsets(columns)
        for sentence in sentences
        for number, (_, columns) in enumerate(sentence, start=0 if sentence[0][1][0] == "0" else 1)
    )


def _has_offsets(columns: Sequence[str]) -> bool:
    return len(columns) == 4 and all(NUMBER.fullmatch(column) for column in columns[1:3])


def _parse_row(where: str, columns: list[str], at: int, errors: ErrorList) -> Token | None:
    """Parse one row; ``at`` is the index of the column with the token."""
    token, tag = columns[at], columns[-1].strip()
    if len(columns) < at + 2 or token.split() != [token] or not tag:
        found = f"{len(columns)} columns, or a token with white space"
        errors.add(where, found, allowed="2 or more columns: TOKEN ... TAG")
        return None
    start = None
    if _has_offsets(columns):
        start = int(columns[1])
        if int(columns[2]) - start != len(token):
            errors.add(where, "the offsets do not match the length of the token", allowed="END - START = length")
    return Token(token, tag, start, where)
