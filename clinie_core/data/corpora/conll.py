"""The CoNLL column format: one token per line with its tag last, and a blank line between sentences.

Source: the shared tasks of CoNLL-2000 and CoNLL-2003 (Tjong Kim Sang and De Meulder 2003). Columns are
separated by tabs or, without tabs, by blanks. If there are four columns and the middle two are numbers,
these are the token's offsets, and the text is reconstructed accordingly. A document begins at
``-DOCSTART-`` or ``# newdoc id = ID``; a file without either is one document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from clinie_core.data.corpora.corpus_format import DocumentLines, LineFormat
from clinie_core.data.corpora.tokens import Token, build_document, tag_sentences
from clinie_core.data.document import Document
from clinie_core.errors import ErrorList

__all__ = ["Conll"]

NEW_DOCUMENT = re.compile(r"# newdoc id = (.+)")
NUMBER = re.compile(r"[0-9]{1,12}")


class Conll(LineFormat):
    """Files of tab-separated or blank-separated columns."""

    example: ClassVar[str] = "NAME.conll with lines 'TOKEN TAG', 'TOKEN ... TAG' or 'TOKEN START END TAG'"
    suffix: ClassVar[str] = ".conll"

    def split_documents(self, where: str, name: str, lines: Iterator[str]) -> Iterator[DocumentLines]:
        """See :meth:`LineFormat.split_documents`."""
        current: list[str] = []
        begin, id_, count = 1, name, 0
        for number, line in enumerate(lines, start=1):
            match = NEW_DOCUMENT.fullmatch(line)
            if match or line.startswith("-DOCSTART-"):
                if any(map(str.strip, current)):
                    yield DocumentLines(where, begin, current, id_)
                count += 1
                begin, current, id_ = number + 1, [], match[1].strip() if match else f"{name}-{count}"
            else:
                current.append(line)
        if count or any(map(str.strip, current)):
            yield DocumentLines(where, begin, current, id_)

    def parse(self, piece: DocumentLines) -> Document:
        """See :meth:`LineFormat.parse`."""
        errors = ErrorList()
        sentences: list[list[Token]] = [[]]
        for index, line in enumerate(piece.lines):
            if not line.strip():
                sentences.append([])
                continue
            where = piece.locate(index)
            columns = line.split("\t") if "\t" in line else line.split()
            token, tag = columns[0], columns[-1].strip()
            if not 2 <= len(columns) <= 4 or not token or token.split() != [token] or not tag:
                errors.add(
                    where,
                    f"{len(columns)} columns, or a token with white space",
                    allowed="2 to 4 columns: TOKEN ... TAG",
                )
                continue
            start = None
            if len(columns) == 4 and NUMBER.fullmatch(columns[1]) and NUMBER.fullmatch(columns[2]):
                start = int(columns[1])
                if int(columns[2]) - start != len(token):
                    errors.add(
                        where, "the offsets do not match the length of the token", allowed="END - START = length"
                    )
            sentences[-1].append(Token(token, tag, start, where))
        errors.raise_if_any()
        return build_document(piece.name, (s for s in sentences if s), piece.locate(0))

    def render(self, document: Document) -> str:
        """See :meth:`LineFormat.render`; writes four columns with IOB2 tags."""
        lines = [f"# newdoc id = {' '.join(document.id.split())}"]
        for sentence in tag_sentences(document):
            for span, tag in sentence:
                lines.append(f"{document.text[span.start : span.end]}\t{span.start}\t{span.end}\t{tag}")
            lines.append("")
        return "\n".join(lines) + "\n"
