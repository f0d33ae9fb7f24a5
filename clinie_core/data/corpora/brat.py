"""The brat standoff format: a text ``NAME.txt`` with annotations in ``NAME.ann``.

Source: https://brat.nlplab.org/standoff.html. Offsets count code points of the text as stored in the file.
An event becomes its trigger's concept and one relation from it to each argument; references to the event
become references to that concept. 2018 n2c2 track 2 and 2022 n2c2 track 2 (SHAC) use this format.
CADEC's ``TT`` lines become normalizations of the concepts at their offsets.
``annotation.conf``, in the folder or its parent folder, declares the types.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Mapping
from pathlib import Path
from typing import ClassVar

from clinie_core.data.corpora.checking import normalize_whitespace
from clinie_core.data.corpora.corpus_format import StandoffFormat, read_text
from clinie_core.data.corpora.reading import AnnotationErrors
from clinie_core.data.document import (
    Attribute,
    Concept,
    Document,
    EntityRelation,
    Equivalence,
    Normalization,
    Note,
    Relation,
    Span,
)

__all__ = ["Brat", "read_declared_types"]

OFFSETS = re.compile(r"[0-9]{1,12} [0-9]{1,12}(?:;[0-9]{1,12} [0-9]{1,12})*")
PLAIN_CONCEPT = re.compile(r"(T[0-9]+)\t([^\s]+) ([0-9]{1,12}) ([0-9]{1,12})\t(.+)")
NOTE = re.compile(r"#[^\s]*\t[^\s]+ +[A-Z#][^\s]*[0-9] *(?:\t.*)?")
CODE = re.compile(r"TT[0-9]+\s")
CODE_LINE = re.compile(
    r"(TT[0-9]+)\s+([^\s|]+)(?:[ \t]*\|([^|\t]*)\|[^\t|]*?)?[ \t]+"
    r"([0-9]{1,12} [0-9]{1,12}(?:;[0-9]{1,12} [0-9]{1,12})*)(?:\s+(.*))?"
)
ROLE_NUMBER = re.compile(r"[0-9]+$")
CONFIGURATION = "annotation.conf"


class Brat(StandoffFormat):
    """Folders of ``.txt`` and ``.ann`` files; a text without ``.ann`` has no annotations."""

    example: ClassVar[str] = "NAME.txt with NAME.ann beside it"
    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".ann")

    def parse(self, name: str, where: Mapping[str, str], files: Mapping[str, str]) -> Document:
        """See :meth:`StandoffFormat.parse`."""
        return _AnnotationParser(where[".ann"], files[".txt"], self.collect_errors()).parse(name, files.get(".ann", ""))

    def render(self, document: Document) -> dict[str, str]:
        """See :meth:`StandoffFormat.render`.

        If an id does not follow brat's rules, all are renumbered. White space within a type becomes ``_``.
        """
        ids = _assign_brat_ids(document)
        lines = []
        for concept in document.concepts:
            offsets = ";".join(f"{s.start} {s.end}" for s in concept.spans)
            mention = normalize_whitespace(document.mention(concept))
            lines.append(f"{ids[concept.id]}\t{_join_words(concept.type)} {offsets}\t{mention}")
        lines += [
            f"{ids[r.id]}\t{_join_words(r.type)} Arg1:{ids[r.head]} Arg2:{ids[r.tail]}" for r in document.relations
        ]
        linked = {r.id for r in document.entity_relations}  # brat cannot represent them
        for attribute in document.attributes:
            if attribute.target in linked:
                continue
            value = f" {normalize_whitespace(attribute.value)}" if attribute.value else ""
            lines.append(f"{ids[attribute.id]}\t{_join_words(attribute.type)} {ids[attribute.target]}{value}")
        for n in document.normalizations:
            name = f"\t{normalize_whitespace(n.name)}" if n.name else ""
            lines.append(f"{ids[n.id]}\tReference {ids[n.target]} {n.database}:{n.reference}{name}")
        lines += ["*\t" + " ".join((_join_words(e.type), *(ids[m] for m in e.members))) for e in document.equivalences]
        lines += [
            f"{ids[n.id]}\t{_join_words(n.type)} {ids[n.target]}\t{normalize_whitespace(n.text)}"
            for n in document.notes
        ]
        return {".txt": document.text, ".ann": "".join(f"{line}\n" for line in lines)}


def _join_words(type_: str) -> str:
    return "_".join(type_.split())


LETTERS = {Concept: "T", Relation: "R", Attribute: "A", Normalization: "N", Note: "#", EntityRelation: ""}


def _assign_brat_ids(document: Document) -> dict[str, str]:
    """Return the brat id of each annotation: its own id if all ids are valid in brat, else a new number."""
    fit = all(re.fullmatch(f"{LETTERS[type(a)]}[0-9]+", a.id) for a in document.annotations)
    counts: Counter[str] = Counter()
    ids = {}
    for annotation in document.annotations:
        letter = LETTERS[type(annotation)]
        counts[letter] += 1
        ids[annotation.id] = annotation.id if fit else f"{letter}{counts[letter]}"
    return ids


class _AnnotationParser:
    """Parser of one ``.ann`` file."""

    def __init__(self, where: str, text: str, errors: AnnotationErrors) -> None:
        self._where = where
        self._text = text
        self._line = 0
        self._errors = errors
        self._lines: dict[str, int] = {}
        self._concepts: dict[str, Concept] = {}
        self._events: dict[str, str] = {}  # event id to its trigger's id
        self._relations: list[Relation] = []
        self._attributes: list[Attribute] = []
        self._normalizations: list[Normalization] = []
        self._equivalences: list[tuple[int, Equivalence]] = []
        self._notes: list[Note] = []
        self._codes: list[tuple[str, str, str | None, tuple[Span, ...]]] = []
        self._parsers = {
            "T": self._parse_concept,
            "R": self._parse_relation,
            "E": self._parse_event,
            "A": self._parse_attribute,
            "M": self._parse_attribute,
            "N": self._parse_normalization,
            "#": self._parse_note,
        }

    def parse(self, name: str, content: str) -> Document:
        """Parse all lines, then resolve references.

        Raises:
            InputError: With all problems of the file.
        """
        for number, raw in enumerate(content.split("\n"), start=1):
            line = raw.rstrip("\r")
            self._line = number
            if not self._parse_simple_concept(line) and line and not line.isspace():
                self._parse_line(line)
        self._resolve_codes()
        self._check_references()
        self._errors.raise_if_any()
        resolved = self._resolve
        return Document(
            name,
            self._text,
            tuple(self._concepts.values()),  # in the order of the file, on which official scores depend
            tuple(Relation(r.id, r.type, resolved(r.head), resolved(r.tail)) for r in self._relations),
            tuple(Attribute(a.id, a.type, resolved(a.target), a.value) for a in self._attributes),
            tuple(self._normalizations),
            tuple(Equivalence(e.type, tuple(map(resolved, e.members))) for _, e in self._equivalences),
            tuple(Note(n.id, n.type, resolved(n.target), n.text) for n in self._notes),
        )

    def _parse_simple_concept(self, line: str) -> bool:
        """Parse a valid continuous concept by a single match; this fast path covers three of four lines."""
        match = PLAIN_CONCEPT.fullmatch(line)
        if match is None or match[1] in self._lines:
            return False
        id_, type_, first, last, mention = match.groups()
        start, end = int(first), int(last)
        if start >= end or self._text[start:end] != mention:
            return False
        self._lines[id_] = self._line
        self._concepts[id_] = Concept(id_, type_, (Span(start, end),))
        return True

    def _parse_line(self, line: str) -> None:
        id_, tab, rest = line.partition("\t")
        parts = rest.split() if id_ == "*" else []
        if len(parts) > 1:
            self._equivalences.append((self._line, Equivalence(parts[0], tuple(parts[1:]))))
        elif id_.startswith("#") and not NOTE.fullmatch(line):
            pass  # a comment of a person or tool that does not concern an annotation
        elif CODE.match(line):
            self._parse_code(line)
        elif id_ in self._lines:
            found = f"duplicate id {id_}, first on line {self._lines[id_]}"
            self._add_problem(found, "", "give each annotation its own id")
        elif id_[:1] in self._parsers and tab and rest:
            self._lines[id_] = self._line
            self._parsers[id_[:1]](id_, rest)
        else:
            self._add_problem("not a brat annotation", "T, R, E, A, M, N, * or # and a tab")

    def _add_problem(self, found: str, allowed: str = "", remedy: str = "", line: int | None = None) -> None:
        self._errors.add(f"{self._where}:{line or self._line}", found, allowed=allowed, remedy=remedy)

    def _parse_concept(self, id_: str, rest: str) -> None:
        head, _, mention = rest.partition("\t")
        type_, _, offsets = head.partition(" ")
        offsets = offsets.strip()
        if not OFFSETS.fullmatch(offsets) or not type_:
            self._add_problem(f"{id_}: offsets do not parse", "'Type START END', further spans after ';'")
            return
        spans = self._parse_offsets(id_, offsets, mention)
        if spans:
            self._concepts[id_] = Concept(id_, type_, spans)

    def _parse_offsets(self, id_: str, offsets: str, mention: str) -> tuple[Span, ...]:
        """Return the spans of an annotation; empty after adding a problem."""
        where = f"{self._where}:{self._line}"
        pairs = [map(int, pair.split()) for pair in offsets.split(";")]
        fitted = [self._errors.fit_span(where, id_, start, end, len(self._text)) for start, end in pairs]
        spans = tuple(span for span in fitted if span is not None)
        if len(spans) < len(fitted):
            return ()
        text_at_offsets = " ".join(self._text[s.start : s.end] for s in spans)
        if mention and not self._errors.check_mention(where, id_, mention, text_at_offsets):
            return ()
        return spans

    def _parse_relation(self, id_: str, rest: str) -> None:
        parts = rest.split()
        arguments = [part.partition(":")[2] for part in parts[1:]]
        if len(arguments) != 2 or not all(arguments):
            self._add_problem(f"{id_}: a relation needs two arguments", "'Type Arg1:T1 Arg2:T2'")
            return
        self._relations.append(Relation(id_, parts[0], arguments[0], arguments[1]))

    def _parse_event(self, id_: str, rest: str) -> None:
        parts = [part.partition(":") for part in rest.split()]
        if not parts or not all(target for _, _, target in parts):
            self._add_problem(f"{id_}: an event needs a trigger", "'Type:T1 Role:T2 ...'")
            return
        trigger = parts[0][2]
        self._events[id_] = trigger
        for number, (role, _, target) in enumerate(parts[1:], start=1):
            argument = f"{id_}.{number}"
            self._lines[argument] = self._line
            self._relations.append(Relation(argument, ROLE_NUMBER.sub("", role) or role, trigger, target))

    def _parse_attribute(self, id_: str, rest: str) -> None:
        parts = rest.split(maxsplit=2)
        if len(parts) < 2:
            self._add_problem(f"{id_}: an attribute needs a target", "'Type T1' or 'Type T1 Value'")
            return
        self._attributes.append(Attribute(id_, parts[0], parts[1], parts[2].strip() if len(parts) == 3 else None))

    def _parse_normalization(self, id_: str, rest: str) -> None:
        head, _, name = rest.partition("\t")
        parts = head.split(maxsplit=2)
        database, colon, reference = parts[2].strip().partition(":") if len(parts) == 3 else ("", "", "")
        if not colon:
            self._add_problem(f"{id_}: a normalization needs a target and an entry", "'Reference T1 Database:Entry'")
            return
        self._normalizations.append(Normalization(id_, parts[1], database, reference, name.strip() or None))

    def _parse_note(self, id_: str, rest: str) -> None:
        head, _, text = rest.partition("\t")
        type_, target = head.split()
        self._notes.append(Note(id_, type_, target, text.strip()))

    def _parse_code(self, line: str) -> None:
        """Parse a terminology entry in CADEC's notation, ``TT1 CODE 0 7 mention`` or ``TT1 CODE | NAME | 0 7 mention``.

        An entry whose offsets are those of a concept normalizes it; another entry is a concept itself.
        """
        match = CODE_LINE.fullmatch(line)
        if match is None:
            self._add_problem(f"{line.split(maxsplit=1)[0]}: a code does not parse", "'TT1 CODE START END'")
            return
        id_, code, name, offsets, mention = match.groups()
        if id_ in self._lines:
            found = f"duplicate id {id_}, first on line {self._lines[id_]}"
            self._add_problem(found, "", "give each annotation its own id")
            return
        self._lines[id_] = self._line
        spans = self._parse_offsets(id_, offsets, mention or "")
        if spans:
            self._codes.append((id_, code, name and name.strip(), spans))

    def _resolve_codes(self) -> None:
        concepts = {c.spans: c.id for c in self._concepts.values()}
        for id_, code, name, spans in self._codes:
            target = concepts.get(spans)
            if target is None:
                self._concepts[id_] = Concept(id_, code, spans)
            elif code.strip("0123456789+/") == "":  # otherwise CONCEPT_LESS
                database = "MedDRA" if name is None else "SNOMED"
                self._normalizations.append(Normalization(id_, target, database, code, name))

    def _resolve(self, id_: str) -> str:
        return self._events.get(id_, id_)

    def _check_references(self) -> None:
        """Add a problem for each reference to a missing id; ids whose lines did not parse have their own problem."""
        concepts = self._concepts.keys()
        relations = {r.id for r in self._relations}
        attributes = {a.id for a in self._attributes}
        noun = "a T or E of this file"
        for event, trigger in self._events.items():
            self._check_reference(event, trigger, concepts, noun)
        for relation in self._relations:
            for target in (relation.head, relation.tail):
                if target not in concepts:
                    self._check_reference(relation.id, target, concepts, noun)
        for attribute in self._attributes:
            self._check_reference(attribute.id, attribute.target, concepts | relations, noun)
        for normalization in self._normalizations:
            self._check_reference(normalization.id, normalization.target, concepts, noun)
        for note in self._notes:
            self._check_reference(note.id, note.target, concepts | relations | attributes, "an annotation of this file")
        for line, equivalence in self._equivalences:
            for member in equivalence.members:
                self._check_reference("*", member, concepts, noun, line)

    def _check_reference(
        self, id_: str, target: str, known: Container[str], allowed: str, line: int | None = None
    ) -> None:
        if self._resolve(target) not in known and target not in self._lines:
            self._add_problem(f"{id_} refers to {target}, which does not exist", allowed, "", line or self._lines[id_])


def read_declared_types(folder: Path) -> dict[str, frozenset[str]] | None:
    """Read the types that a corpus declares in ``annotation.conf``.

    Args:
        folder: Folder of documents; ``annotation.conf`` is in it or in its parent folder.

    Returns:
        Types by section (``entities``, ``relations``, ``events``, ``attributes``); None without such a file.
    """
    file = next((f / CONFIGURATION for f in (folder, folder.parent) if (f / CONFIGURATION).is_file()), None)
    if file is None:
        return None
    sections: dict[str, set[str]] = {}
    section = ""
    for line in read_text(file).splitlines():
        content = line.split("#", 1)[0].strip()
        if content.startswith("[") and content.endswith("]"):
            section = content[1:-1].strip()
        elif content and not content.startswith(("<", "-")):
            sections.setdefault(section, set()).add(content.split()[0].lstrip("!"))
    return {name: frozenset(types) for name, types in sections.items()}
