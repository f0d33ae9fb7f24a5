"""The brat standoff format: ``NAME.txt`` with ``NAME.ann`` beside it.

Source: https://brat.nlplab.org/standoff.html. Read are T (also discontinuous), R, E, A, M; lines of
other kinds (N, *, #, AC) carry nothing that clinie uses. An event becomes its trigger's concept and
one relation to each argument. Offsets count code points of the text as it is in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from clinie_core.corpora.reader import Reader, read_text
from clinie_core.document import Attribute, Concept, Document, Relation, Span
from clinie_core.errors import Problem

__all__ = ["BratReader", "write_brat"]

UNUSED_KINDS = ("N", "*", "#")
ROLE_NUMBER = re.compile(r"\d+$")


class BratReader(Reader):
    """Reads a folder of ``.txt`` and ``.ann`` files."""

    example: ClassVar[str] = "NAME.txt with NAME.ann beside it"

    def read(self, folder: Path) -> Iterator[Document | Problem]:
        """See :meth:`Reader.read`. A text without annotations is a document without concepts."""
        texts = {file.stem: file for file in sorted(folder.glob("*.txt"))}
        for orphan in sorted(folder.glob("*.ann")):
            if orphan.stem not in texts:
                yield Problem(
                    str(orphan),
                    f"no {orphan.stem}.txt beside it",
                    "",
                    "add the text or remove the annotations",
                )
        for name, file in texts.items():
            text = read_text(file)
            if isinstance(text, Problem):
                yield text
                continue
            standoff = file.with_suffix(".ann")
            content = read_text(standoff) if standoff.exists() else ""
            if isinstance(content, Problem):
                yield content
                continue
            parsed = _Annotations(str(standoff), text)
            parsed.read(content)
            yield from parsed.problems
            if not parsed.problems:
                yield parsed.document(name)


class _Annotations:
    """Parses one ``.ann`` file against its text."""

    def __init__(self, where: str, text: str) -> None:
        self._where = where
        self._text = text
        self._line = 0
        self.problems: list[Problem] = []
        self._concepts: dict[str, Concept] = {}
        self._links: list[tuple[int, str, str, str, str]] = []  # line, id, type, head, tail
        self._attributes: list[tuple[int, Attribute]] = []
        self._events: dict[str, str] = {}  # event id to its trigger's id
        self._ids: dict[str, int] = {}

    def read(self, content: str) -> None:
        """Parse all lines, then resolve what they refer to."""
        for number, raw in enumerate(content.split("\n"), start=1):
            self._line = number
            line = raw.rstrip("\r")
            if not line.strip() or line.startswith(UNUSED_KINDS):
                continue
            id_, _, rest = line.partition("\t")
            if id_ in self._ids:
                self._wrong(
                    f"duplicate id {id_}, first on line {self._ids[id_]}", "", "give each annotation its own id"
                )
                continue
            self._ids[id_] = number
            parse = {
                "T": self._concept,
                "R": self._relation,
                "E": self._event,
                "A": self._attribute,
                "M": self._attribute,
            }
            if id_[:1] in parse and rest:
                parse[id_[:1]](id_, rest)
            else:
                self._wrong("not a brat annotation", "T, R, E, A, M, N, * or # and a tab")
        self._resolve()

    def _wrong(self, found: str, allowed: str = "", remedy: str = "", line: int | None = None) -> None:
        self.problems.append(Problem(f"{self._where}:{line or self._line}", found, allowed, remedy))

    def _concept(self, id_: str, rest: str) -> None:
        head, _, mention = rest.partition("\t")
        type_, _, offsets = head.partition(" ")
        pairs = re.findall(r"(\d+) (\d+)", offsets)
        if not pairs or ";".join(" ".join(pair) for pair in pairs) != offsets.strip():
            self._wrong(f"{id_}: offsets do not parse", "'Type START END', further spans after ';'")
            return
        spans = []
        for start, end in ((int(a), int(b)) for a, b in pairs):
            if not 0 <= start < end <= len(self._text):
                self._wrong(
                    f"{id_}: offsets {start}:{end} lie outside the text of {len(self._text)} characters",
                    "0 <= start < end <= length",
                    "check that offsets count characters, not bytes",
                )
                return
            spans.append(Span(start, end))
        there = " ".join(self._text[s.start : s.end] for s in spans)
        if mention and _squeezed(mention) != _squeezed(there):
            self._wrong(
                f"{id_}: the mention differs from the text at {offsets.strip()}"
                f" ({len(mention.strip())} and {len(there)} characters)",
                "the same text",
                "check line ends and offsets",
            )
            return
        self._concepts[id_] = Concept(id_, type_, tuple(spans))

    def _relation(self, id_: str, rest: str) -> None:
        parts = rest.split()
        arguments = [part.partition(":")[2] for part in parts[1:]]
        if len(arguments) != 2 or not all(arguments):
            self._wrong(f"{id_}: a relation needs two arguments", "'Type Arg1:T1 Arg2:T2'")
            return
        self._links.append((self._line, id_, parts[0], arguments[0], arguments[1]))

    def _event(self, id_: str, rest: str) -> None:
        parts = [part.partition(":") for part in rest.split()]
        if not parts or not all(target for _, _, target in parts):
            self._wrong(f"{id_}: an event needs a trigger", "'Type:T1 Role:T2 ...'")
            return
        trigger = parts[0][2]
        self._events[id_] = trigger
        for number, (role, _, target) in enumerate(parts[1:], start=1):
            self._links.append((self._line, f"{id_}.{number}", ROLE_NUMBER.sub("", role), trigger, target))

    def _attribute(self, id_: str, rest: str) -> None:
        parts = rest.split(maxsplit=2)
        if len(parts) < 2:
            self._wrong(f"{id_}: an attribute needs a target", "'Type T1' or 'Type T1 Value'")
            return
        value = parts[2].strip() if len(parts) == 3 else None
        self._attributes.append((self._line, Attribute(id_, parts[0], parts[1], value)))

    def _resolved(self, id_: str) -> str:
        return self._events.get(id_, id_)

    def _known(self, line: int, id_: str, target: str, also: Sequence[str] = ()) -> bool:
        if self._resolved(target) in self._concepts or target in also:
            return True
        if target not in self._ids:  # a concept that failed to parse has its own line already
            self._wrong(f"{id_} refers to {target}, which is not there", "a T or E of this file", "", line)
        return False

    def document(self, name: str) -> Document:
        """The document; call it when there are no problems."""
        concepts = tuple(sorted(self._concepts.values(), key=lambda c: (c.start, c.end, c.id)))
        relations = tuple(Relation(i, t, self._resolved(h), self._resolved(e)) for _, i, t, h, e in self._links)
        attributes = tuple(Attribute(a.id, a.type, self._resolved(a.target), a.value) for _, a in self._attributes)
        return Document(name, self._text, concepts, relations, attributes)

    def _resolve(self) -> None:
        """Check that relations, events and attributes refer to what is there."""
        links = [id_ for _, id_, _, _, _ in self._links]
        for line, id_, _, head, tail in self._links:
            for target in (head, tail):
                self._known(line, id_, target)
        for line, attribute in self._attributes:
            self._known(line, attribute.id, attribute.target, links)


def _squeezed(text: str) -> str:
    """White space as one blank: brat writes a line break within a mention as a blank."""
    return " ".join(text.split())


def write_brat(document: Document, folder: Path) -> None:
    """Write a document as ``ID.txt`` and ``ID.ann``; folders are made."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for concept in document.concepts:
        offsets = ";".join(f"{s.start} {s.end}" for s in concept.spans)
        mention = " ".join(_squeezed(document.text[s.start : s.end]) for s in concept.spans)
        lines.append(f"{concept.id}\t{concept.type} {offsets}\t{mention}")
    lines += [f"{r.id}\t{r.type} Arg1:{r.head} Arg2:{r.tail}" for r in document.relations]
    lines += [f"{a.id}\t{a.type} {a.target}" + (f" {a.value}" if a.value else "") for a in document.attributes]
    for suffix, content in ((".txt", document.text), (".ann", "".join(f"{line}\n" for line in lines))):
        with (folder / f"{document.id}{suffix}").open("w", encoding="utf-8", newline="") as stream:
            stream.write(content)
