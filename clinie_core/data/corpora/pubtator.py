"""The PubTator format: title and abstract, mentions with identifiers, relations between identifiers.

Source: BioCreative V CDR (Li et al. 2016, Database 2016:baw068) and PubTator 3. Offsets refer to the title
and the abstract joined by one character. A relation links two identifiers at the level of the document. BioRED
(Luo et al. 2022, Briefings in Bioinformatics 23(5)) adds a column with the relation's novelty.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import ClassVar

from clinie_core.data.corpora.line_format import DocumentLines, LineFormat
from clinie_core.data.corpora.reading import AnnotationErrors
from clinie_core.data.document import Attribute, Concept, Document, EntityRelation, Normalization, Section, Span
from clinie_core.errors import ErrorList

__all__ = ["PubTator"]

TEXT_LINE = re.compile(r"([^|\t]+)\|([ta])\|(.*)")
MISSING_ENTRIES = ("", "-", "-1")
UNNAMED_DATABASE = "PubTator"
"""Database name of identifiers without a named terminology."""
NOVELTY = "novelty"
"""Attribute of a relation with a fifth column, as in BioRED: whether the relation is new knowledge."""
VARIANT = re.compile(r"(?:^|[|:])(?:SUB|DEL|INS|DUP|INDEL|FS|Allele|Allel|DNAAllele|ProteinAllele)\|")
"""A part of the identifiers of variants by tmVar, such as ``p|SUB|V|600|E``."""
MAX_DIGITS = 12


class PubTator(LineFormat):
    """Files of PubTator records, separated by blank lines."""

    example: ClassVar[str] = "NAME.txt of records 'id|t|title', 'id|a|abstract' and tab-separated mentions"
    suffix: ClassVar[str] = ".txt"
    other_suffixes: ClassVar[tuple[str, ...]] = (".pubtator",)

    def split_documents(self, where: str, name: str, lines: Iterator[str]) -> Iterator[DocumentLines]:
        """See :meth:`LineFormat.split_documents`; blank lines separate documents."""
        record: list[str] = []
        number = 0
        for number, line in enumerate(lines, start=1):
            if line.strip():
                record.append(line)
            elif record:
                yield DocumentLines(where, number - len(record), record)
                record = []
        if record:
            yield DocumentLines(where, number + 1 - len(record), record)

    def parse(self, piece: DocumentLines) -> Document:
        """See :meth:`LineFormat.parse`."""
        errors = ErrorList()
        texts: dict[str, str] = {}
        id_ = ""
        titled = len(piece.lines) > 1 and TEXT_LINE.fullmatch(piece.lines[1]) is None and "\t" in piece.lines[1]
        count = 1 if titled else 2  # a record of a title and annotations has no abstract
        for index, line in enumerate(piece.lines[:count]):
            match = TEXT_LINE.fullmatch(line)
            if match is None or match[2] != "ta"[index] or (index and match[1] != id_):
                errors.add(piece.locate(index), "not a record's text", allowed=f"'id|{'ta'[index]}|text'")
                continue
            id_, texts[match[2]] = match[1], match[3]
        errors.raise_if_any()
        faults = self.collect_errors()
        title, abstract = texts["t"], texts.get("a")
        text = title if abstract is None else f"{title}\n{abstract}"
        record = _RecordParser(piece, id_, text, faults)
        for index, line in enumerate(piece.lines[count:], start=count):
            record.parse_line(index, line)
        faults.raise_if_any()
        parts = [("title", 0, len(title)), ("abstract", len(title) + 1, len(text))]
        sections = tuple(Section(type_, Span(start, end)) for type_, start, end in parts if start < end)
        return Document(
            id_,
            text,
            concepts=tuple(record.concepts),
            attributes=tuple(record.attributes),
            normalizations=tuple(record.normalizations),
            entity_relations=tuple(record.relations),
            sections=sections,
        )

    def render(self, document: Document) -> str:
        """See :meth:`LineFormat.render`; line ends in title and abstract become blanks, which preserves offsets."""
        title, _, abstract = re.sub(r"[\r\t\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", " ", document.text).partition("\n")
        id_ = re.sub(r"[|\s]", "_", document.id)
        lines = [f"{id_}|t|{title}", f"{id_}|a|{abstract}".replace("\n", " ")]
        references: defaultdict[str, list[Normalization]] = defaultdict(list)
        for normalization in document.normalizations:
            references[normalization.target].append(normalization)
        for concept in document.concepts:
            span = Span(concept.start, concept.end)
            mention = " ".join(document.text[span.start : span.end].split())
            entries = references[concept.id]
            cells = [id_, str(span.start), str(span.end), mention, concept.type]
            cells.append("|".join(_format_entry(n) for n in entries) or "-1")
            names = [n.name for n in entries]
            if len(names) > 1 and all(names):
                cells.append("|".join(str(name) for name in names))
            lines.append("\t".join(cells))
        novelty = {a.target: a.value for a in document.attributes if a.type == NOVELTY and a.value}
        for r in document.entity_relations:
            row = [id_, r.type, r.head, r.tail, *filter(None, [novelty.get(r.id)])]
            lines.append("\t".join(row))
        return "\n".join(lines) + "\n\n"


def _split_references(cell: str) -> list[str]:
    """Return the identifiers of a mention; those of variants contain the separator of identifiers."""
    parts = [cell] if VARIANT.search(cell) else cell.split("|")
    return [part for part in parts if part not in MISSING_ENTRIES]


def _format_entry(normalization: Normalization) -> str:
    if normalization.database == UNNAMED_DATABASE:
        return normalization.reference
    return f"{normalization.database}:{normalization.reference}"


class _RecordParser:
    """Parser of the annotation lines of one record."""

    def __init__(self, piece: DocumentLines, id_: str, text: str, errors: AnnotationErrors) -> None:
        self._piece = piece
        self._id = id_
        self._text = text
        self._errors = errors
        self.concepts: list[Concept] = []
        self.normalizations: list[Normalization] = []
        self.relations: list[EntityRelation] = []
        self.attributes: list[Attribute] = []

    def parse_line(self, index: int, line: str) -> None:
        """Parse one line that follows title and abstract."""
        cells = [cell.strip() for cell in line.split("\t")]
        where = self._piece.locate(index)
        if cells[0] != self._id:
            self._errors.add(
                where,
                "not a line of this record",
                allowed="its id and a tab",
                remedy="put a blank line between records",
            )
        elif len(cells) in (4, 5) and not cells[1].isdecimal() and all(cells):
            self._parse_relation(cells)
        elif len(cells) in (5, 6, 7) and cells[1].isdecimal() and cells[2].isdecimal() and cells[4]:
            self._parse_mention(where, cells)
        else:
            self._errors.add(
                where, "neither a mention nor a relation", allowed="id, start, end, mention, type, identifier"
            )

    def _parse_relation(self, cells: list[str]) -> None:
        id_ = f"R{len(self.relations) + 1}"
        self.relations.append(EntityRelation(id_, *cells[1:4]))
        if len(cells) == 5:
            self.attributes.append(Attribute(f"A{len(self.attributes) + 1}", NOVELTY, id_, cells[4]))

    def _parse_mention(self, where: str, cells: list[str]) -> None:
        id_ = f"T{len(self.concepts) + 1}"
        if max(len(cells[1]), len(cells[2])) > MAX_DIGITS:
            self._errors.add(where, f"{id_}: offsets of more than {MAX_DIGITS} digits", allowed="offsets of characters")
            return
        span = self._errors.fit_span(where, id_, int(cells[1]), int(cells[2]), len(self._text))
        if span is None or not self._errors.check_mention(where, id_, cells[3], self._text[span.start : span.end]):
            return
        self.concepts.append(Concept(id_, cells[4], (span,)))
        references = _split_references(cells[5]) if len(cells) > 5 else []
        names = cells[6].split("|") if len(cells) == 7 else []
        for at, reference in enumerate(references):
            database, _, entry = ("", "", reference) if VARIANT.search(reference) else reference.rpartition(":")
            name = names[at] if len(names) == len(references) else None
            number = f"N{len(self.normalizations) + 1}"
            self.normalizations.append(Normalization(number, id_, database or UNNAMED_DATABASE, entry, name))
