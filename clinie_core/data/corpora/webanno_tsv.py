r"""WebAnno TSV 3, the export of WebAnno and INCEpTION.

Source: https://inception-project.github.io/documentation, appendix on formats. A line is a token with its offsets in
UTF-16 units, and a column for each feature of each layer. ``VALUE[1]`` is one annotation on all tokens with this
number, ``|`` separates annotations of one token, ``_`` is no annotation and ``*`` an annotation without a value.

An annotation of a span layer becomes a concept. Its type is the feature ``value``, ``label`` or ``type``, else the
first one, else the name of the layer. The feature ``identifier`` becomes a normalization, and further ones
attributes. Layers of tokens, such as part of speech, are not read. Chains and slots are not read, with a warning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from clinie_core.data.corpora.corpus_format import StandoffFormat
from clinie_core.data.corpora.offsets import convert_utf16_offsets, has_astral_characters
from clinie_core.data.corpora.reading import AnnotationErrors
from clinie_core.data.corpora.webanno_layers import IDENTIFIER, TOKEN_LAYER, choose_type_feature, parse_identifier
from clinie_core.data.corpora.webanno_writer import FORMAT_LINE, render_tsv, unescape
from clinie_core.data.document import Attribute, Concept, Document, Normalization, Relation
from clinie_core.errors import fail

__all__ = ["WebAnnoTsv"]

TSV = ".tsv"
MAX_GAP = 1_000_000
HEADER = re.compile(r"#(T_SP|T_RL|T_CH)=([^|]*)\|?(.*)")
UNIT = re.compile(r"([0-9]{1,9}-[0-9]{1,9}(?:\.[0-9]{1,9})?)\t([0-9]{1,12})-([0-9]{1,12})")
VALUE = re.compile(r"((?:[^\\\[]|\\.)*)(?:\[([0-9]{1,9})\])?", re.DOTALL)
REFERENCE = re.compile(r"([0-9]{1,9}-[0-9]{1,9}(?:\.[0-9]{1,9})?)(?:\[([0-9]{1,9})_([0-9]{1,9})\])?")
SEPARATOR = re.compile(r"(?<!\\)\|")
BASE_PREFIX, SLOT_PREFIX = "BT_", "ROLE_"
NONE, NULL = "_", "*"

Key = tuple[str, str, int]
"""Identity of an annotation: its layer, and its number or else its unit and place among those of the unit."""


@dataclass(frozen=True)
class _Layer:
    """A layer and its columns.

    Args:
        kind: ``T_SP`` for spans, ``T_RL`` for relations, ``T_CH`` for chains.
        name: Full name of the layer.
        features: Names of its columns.
        column: Index of its first column.
    """

    kind: str
    name: str
    features: tuple[str, ...]
    column: int

    @property
    def short_name(self) -> str:
        """Last part of the name."""
        return self.name.rpartition(".")[2] or "annotation"

    @property
    def type_feature(self) -> str | None:
        """The feature that contains the type, if any."""
        return choose_type_feature(self.values, first=True)

    @property
    def values(self) -> dict[str, int]:
        """Names and indices of the features with values; a slot has two columns without a value."""
        slots = {at for at, name in enumerate(self.features) if name.startswith(SLOT_PREFIX)}
        skipped = slots | {at + 1 for at in slots}
        return {
            name: at for at, name in enumerate(self.features) if at not in skipped and not name.startswith(BASE_PREFIX)
        }


@dataclass(frozen=True)
class _Unit:
    """A token or a part of one, with its offsets as in the file."""

    id: str
    line: int
    start: int
    end: int
    text: str = field(repr=False)
    cells: tuple[str, ...] = field(repr=False)


class WebAnnoTsv(StandoffFormat):
    """One TSV file per document."""

    example: ClassVar[str] = "NAME.tsv that begins with #FORMAT=WebAnno TSV 3.3, with a token per line"
    suffixes: ClassVar[tuple[str, ...]] = (TSV,)

    def parse(self, name: str, where: Mapping[str, str], files: Mapping[str, str]) -> Document:
        """See :meth:`StandoffFormat.parse`."""
        return _Parser(where[TSV], self.collect_errors()).parse(name, files[TSV])

    def render(self, document: Document) -> dict[str, str]:
        """See :meth:`StandoffFormat.render`; a concept without its white space at the ends, as its whole extent."""
        return {TSV: render_tsv(document)}


class _Parser:
    """Parser of one file."""

    def __init__(self, where: str, errors: AnnotationErrors) -> None:
        self._where = where
        self._errors = errors
        self._layers: list[_Layer] = []
        self._sentences: list[tuple[list[str], list[_Unit]]] = []
        self._values: dict[Key, dict[str, str | None]] = {}
        self._units: dict[Key, list[_Unit]] = {}
        self._first_at: dict[tuple[str, str], Key] = {}

    def parse(self, name: str, content: str) -> Document:
        """Parse all lines, then build the text and the annotations."""
        lines = [line.removesuffix("\r") for line in content.split("\n")]
        if not lines[0].startswith("#FORMAT=WebAnno TSV 3"):
            fail(f"{self._where}:1", "not a WebAnno TSV 3 file", allowed=FORMAT_LINE, remedy="export as WebAnno TSV 3")
        for number, line in enumerate(lines[1:], start=2):
            self._parse_line(number, line)
        self._errors.raise_if_any()
        text, offsets = self._build_text()
        for layer in self._layers:
            if layer.kind == "T_SP" and not TOKEN_LAYER.search(layer.name):
                self._collect_annotations(layer)
        concepts, ids = self._build_concepts(text, offsets)
        relations, attributes = self._build_relations(ids)
        normalizations: list[Normalization] = []
        for key, id_ in ids.items():
            features = dict(self._values[key])
            identifier = features.pop(IDENTIFIER, None)
            if identifier:
                normalizations.append(parse_identifier(f"N{len(normalizations) + 1}", id_, identifier))
            layer = next(layer for layer in self._layers if layer.name == key[0])
            features.pop(layer.type_feature or "", None)
            attributes += [(feature, id_, value) for feature, value in features.items() if value is not None]
        self._errors.raise_if_any()
        numbered = (
            Attribute(f"A{n}", name, target, None if value == name else value)
            for n, (name, target, value) in enumerate(attributes, start=1)
        )
        return Document(name, text, tuple(concepts), tuple(relations), tuple(numbered), tuple(normalizations))

    def _parse_line(self, number: int, line: str) -> None:
        header = HEADER.fullmatch(line)
        if header is not None and not self._sentences:
            features = tuple(header[3].split("|"))
            column = sum(len(layer.features) for layer in self._layers)
            self._layers.append(_Layer(header[1], header[2], features, column))
            if header[1] == "T_CH" or any(feature.startswith(SLOT_PREFIX) for feature in features):
                self._errors.warn(f"{self._where}:{number}", f"chains or slots of {header[2]} are not read")
            elif TOKEN_LAYER.search(header[3]) and not TOKEN_LAYER.search(header[2]):
                self._errors.warn(f"{self._where}:{number}", f"relations of {header[2]} between tokens are not read")
        elif line.startswith("#Text="):
            if not self._sentences or self._sentences[-1][1]:
                self._sentences.append(([], []))
            self._sentences[-1][0].append(line.removeprefix("#Text="))
        elif line and not line.startswith("#"):
            self._parse_unit(number, line)
        elif not line and self._sentences and (self._sentences[-1][0] or self._sentences[-1][1]):
            self._sentences.append(([], []))

    def _parse_unit(self, number: int, line: str) -> None:
        cells = line.split("\t")
        match = UNIT.fullmatch("\t".join(cells[:2]))
        columns = sum(len(layer.features) for layer in self._layers)
        if cells[-1] == "" and len(cells) > 3:  # each line ends with a tab
            cells.pop()
        if match is None or len(cells) != 3 + columns:
            found = "not a token with its columns" if match is None else f"{len(cells)} columns"
            self._errors.add(
                f"{self._where}:{number}", found, allowed=f"{3 + columns} columns: 1-1, 0-5, token, values"
            )
            return
        if not self._sentences:
            self._sentences.append(([], []))
        unit = _Unit(match[1], number, int(match[2]), int(match[3]), unescape(cells[2]), tuple(cells[3:]))
        self._sentences[-1][1].append(unit)

    def _build_text(self) -> tuple[str, Mapping[int, int]]:
        """Return the text, and the offset in code points of each offset in the file.

        Raises:
            InputError: If a token is not in the text at its offsets, in UTF-16 units or in code points.
        """
        text, offsets, misplaced = self._locate_units(utf_16=True)
        if misplaced is not None and has_astral_characters(text):
            text, offsets, still_misplaced = self._locate_units(utf_16=False)
            misplaced = misplaced if still_misplaced else None
        if misplaced is not None:
            found = "the token differs from the text at its offsets"
            remedy = "check that offsets count UTF-16 units"
            fail(f"{self._where}:{misplaced.line}", found, allowed="the same text", remedy=remedy)
        return text, offsets

    def _locate_units(self, *, utf_16: bool) -> tuple[str, dict[int, int], _Unit | None]:
        """Return the text, the offsets in code points, and the first token that is not at its offsets."""
        text, misplaced = self._place_sentences(utf_16=utf_16)
        convert = convert_utf16_offsets(text) if utf_16 else lambda start, end: (start, end)
        offsets: dict[int, int] = {}
        for unit in self._list_units():
            start, end = convert(unit.start, unit.end)
            offsets |= {unit.start: start, unit.end: end}
            if misplaced is None and (start > end or text[start:end] != unit.text):
                misplaced = unit
        return text, offsets, misplaced

    def _place_sentences(self, *, utf_16: bool) -> tuple[str, _Unit | None]:
        """Return the text of all sentences at their offsets, and the first token that cannot be placed."""
        parts: list[str] = []
        at = 0
        for rows, units in self._sentences:
            tokens = [unit for unit in units if "." not in unit.id]
            text = unescape("\n".join(rows)) if rows or not tokens else _join_tokens(tokens)
            prefix = text[: max(0, text.find(tokens[0].text))] if tokens else ""
            begin = tokens[0].start - _measure(prefix, utf_16=utf_16) if tokens else at + bool(parts)
            if not rows and not tokens:
                continue
            gap = begin - at
            if not 0 <= gap <= MAX_GAP:
                return "".join(parts), tokens[0]
            parts += ["\n" * min(gap, 1) + " " * (gap - 1), text]
            at = begin + _measure(text, utf_16=utf_16)
        return "".join(parts), None

    def _list_units(self) -> list[_Unit]:
        return [unit for _, units in self._sentences for unit in units]

    def _collect_annotations(self, layer: _Layer) -> None:
        """Collect the values and units of the annotations of a span layer."""
        for unit in self._list_units():
            for at, feature in enumerate(layer.features):
                cell = unit.cells[layer.column + at]
                for place, (value, number) in enumerate(_split_cell(cell)):
                    key = (layer.name, "", number) if number else (layer.name, unit.id, place)
                    features = self._values.setdefault(key, {})
                    if feature and feature in layer.values:
                        features[feature] = value
                    units = self._units.setdefault(key, [])
                    if not units or units[-1] is not unit:
                        units.append(unit)
                    self._first_at.setdefault((layer.name, unit.id), key)

    def _build_concepts(self, text: str, offsets: Mapping[int, int]) -> tuple[list[Concept], dict[Key, str]]:
        layers = {layer.name: layer for layer in self._layers if layer.kind == "T_SP"}
        concepts: list[Concept] = []
        ids: dict[Key, str] = {}
        for key, units in self._units.items():
            layer = layers[key[0]]
            id_ = f"T{len(ids) + 1}"
            start, end = min(offsets[u.start] for u in units), max(offsets[u.end] for u in units)
            span = self._errors.fit_span(f"{self._where}:{units[0].line}", id_, start, end, len(text))
            if span is not None:
                ids[key] = id_
                type_ = self._values[key].get(layer.type_feature or "") or layer.short_name
                concepts.append(Concept(id_, type_, (span,)))
        return concepts, ids

    def _build_relations(self, ids: Mapping[Key, str]) -> tuple[list[Relation], list[tuple[str, str, str | None]]]:
        """Return the relations and their further features; a relation is in the line of its tail."""
        relations: list[Relation] = []
        attributes: list[tuple[str, str, str | None]] = []
        for layer in self._layers:
            base = next((f.removeprefix(BASE_PREFIX) for f in layer.features if f.startswith(BASE_PREFIX)), None)
            if layer.kind != "T_RL" or base is None or TOKEN_LAYER.search(base):
                continue
            for unit in self._list_units():
                cells = unit.cells[layer.column : layer.column + len(layer.features)]
                ends = SEPARATOR.split(cells[-1]) if cells[-1] != NONE else []
                for place, reference in enumerate(ends):
                    head, tail = self._find_ends(base, reference, unit)
                    if head not in ids or tail not in ids:
                        found = f"a relation of {layer.short_name} refers to an annotation that does not exist"
                        allowed = f"a token with an annotation of {base}"
                        self._errors.add(f"{self._where}:{unit.line}", found, allowed=allowed)
                        continue
                    parsed = [_split_cell(cell) for cell in cells[:-1]]
                    values = {f: v[place][0] for f, v in zip(layer.features, parsed, strict=False) if place < len(v)}
                    id_ = f"R{len(relations) + 1}"
                    type_ = values.pop(layer.type_feature or "", None) or layer.short_name
                    relations.append(Relation(id_, type_, ids[head], ids[tail]))
                    attributes += [(feature, id_, value) for feature, value in values.items() if value is not None]
        return relations, attributes

    def _find_ends(self, layer: str, reference: str, unit: _Unit) -> tuple[Key, Key]:
        """Return the annotations of a reference ``1-3[2_1]``: token, number of the head, number of the tail."""
        match = REFERENCE.fullmatch(reference)
        missing = (layer, "", 0)
        if match is None:
            return missing, missing
        head, tail = int(match[2] or 0), int(match[3] or 0)
        return (
            (layer, "", head) if head else self._first_at.get((layer, match[1]), missing),
            (layer, "", tail) if tail else self._first_at.get((layer, unit.id), missing),
        )


def _split_cell(cell: str) -> list[tuple[str | None, int]]:
    """Return the values of a cell with their numbers; 0 is no number, and None no value."""
    if cell == NONE:
        return []
    found = []
    for part in SEPARATOR.split(cell):
        match = VALUE.fullmatch(part)
        value, number = (match[1], int(match[2] or 0)) if match else (part, 0)
        found.append((None if value == NULL or not value else unescape(value), number))
    return found


def _measure(text: str, *, utf_16: bool) -> int:
    """Return the length of a text in UTF-16 units or code points."""
    return len(text) + sum(character > "\uffff" for character in text) if utf_16 else len(text)


def _join_tokens(tokens: list[_Unit]) -> str:
    """Return the text of a sentence without a ``#Text`` line: its tokens, with blanks in the gaps."""
    parts, at = [], tokens[0].start
    for token in tokens:
        parts += [" " * min(max(token.start - at, 0), MAX_GAP), token.text]
        at = token.end
    return "".join(parts)
