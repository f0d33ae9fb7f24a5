"""doccano's JSONL export of sequence labeling and relation extraction projects.

Source: https://doccano.github.io/doccano and the project's export tests. A line has ``label`` (or ``labels`` or
``entities``) as lists ``[start, end, label]``, or ``entities`` as objects with ``relations``.

Exports have no copies of the mentions. Offsets count UTF-16 units in projects of recent versions, and code points
in others. If a text has characters that the two units count differently, the unit is read from the line's field
``offset_unit``, or inferred: it is the only one in which no concept begins or ends within a word or in white space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from clinie_core.data.corpora.json_lines import JsonLineFormat, collect_metadata, select_metadata
from clinie_core.data.corpora.offsets import Mention, convert_utf16_offsets, has_astral_characters, resolve_mentions
from clinie_core.data.corpora.reading import AnnotationErrors
from clinie_core.data.document import Concept, Document, Relation
from clinie_core.errors import fail

__all__ = ["Doccano"]

CODE_POINTS, UTF_16 = "code points", "utf-16"


class _Entity(BaseModel):
    model_config = ConfigDict(strict=True)

    id: int | str | None = None
    label: str = Field(min_length=1)
    start_offset: int
    end_offset: int


class _Relation(BaseModel):
    model_config = ConfigDict(strict=True)

    id: int | str | None = None
    from_id: int | str
    to_id: int | str
    type: str = Field(min_length=1)


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    id: int | str | None = None
    doc_id: int | str | None = None
    text: str | None = None
    data: str | None = None
    label: list[Any] | None = None
    labels: list[Any] | None = None
    entities: list[Any] | None = None
    relations: list[_Relation] = []
    offset_unit: Literal["code points", "utf-16"] | None = None


LABEL_FIELDS = ("entities", "label", "labels")
TRIPLE: TypeAdapter[tuple[int, int, str]] = TypeAdapter(tuple[int, int, str], config=ConfigDict(strict=True))


class Doccano(JsonLineFormat):
    """JSON Lines files with offsets and labels."""

    example: ClassVar[str] = 'NAME.jsonl, each line {"id", "text", "label": [[START, END, TYPE]]} or with "entities"'
    model: ClassVar[type[BaseModel]] = _Line

    def build(self, row: Any, where: str, name: str) -> Document:
        """See :meth:`JsonLineFormat.build`."""
        errors = self.collect_errors()
        line: _Line = row
        text = line.text if line.text is not None else line.data
        found = [values for values in (getattr(line, key) for key in LABEL_FIELDS) if values is not None]
        if text is None:
            fail(where, "no text", allowed='"text": "..."')
        if not found:
            fail(where, "no label", allowed=", ".join(LABEL_FIELDS), remedy="export as JSONL")
        types: dict[str, str] = {}
        mentions: list[Mention] = []
        for value in (value for values in found for value in values):
            entity = _parse_entity(value)
            if entity is None:
                allowed = "[START, END, TYPE], or an object with label, start_offset and end_offset"
                errors.add(where, f"label {len(mentions) + 1} has no offsets or no type", allowed=allowed)
                continue
            id_ = str(entity.id) if entity.id is not None else f"T{len(types) + 1}"
            if id_ in types:
                errors.add(where, f"duplicate id {id_}", remedy="give each entity its own id")
                continue
            types[id_] = entity.label
            mentions.append((id_, entity.start_offset, entity.end_offset, None))
        mentions = _convert_offsets(text, mentions, line.offset_unit, where, errors)
        spans = resolve_mentions(text, where, mentions, errors)
        relations = [
            Relation(f"R{n}", r.type, str(r.from_id), str(r.to_id)) for n, r in enumerate(line.relations, start=1)
        ]
        errors.raise_if_any()
        numbers = [number for number in (line.id, line.doc_id) if number is not None]
        return Document(
            str(numbers[0]) if numbers else name,
            text,
            tuple(Concept(key, types[key], (span,)) for key, span in spans.items()),
            tuple(relations),
            metadata=collect_metadata(line.model_extra),
        )

    def dump(self, document: Document) -> dict[str, Any]:
        """See :meth:`JsonLineFormat.dump`; a discontinuous concept is written as its whole extent."""
        numbers = {c.id: number for number, c in enumerate(document.concepts)}
        unit = {"offset_unit": CODE_POINTS} if has_astral_characters(document.text) else {}
        return {
            **select_metadata(document, _Line.model_fields.keys()),
            "id": document.id,
            "text": document.text,
            **unit,
            "entities": [
                {"id": numbers[c.id], "label": c.type, "start_offset": c.start, "end_offset": c.end}
                for c in document.concepts
            ],
            "relations": [
                {"id": n, "from_id": numbers[r.head], "to_id": numbers[r.tail], "type": r.type}
                for n, r in enumerate(document.relations)
            ],
        }


def _parse_entity(value: object) -> _Entity | None:
    """Parse a label with its offsets; return None for a label of the whole text and for an invalid one."""
    try:
        if isinstance(value, list):
            start, end, label = TRIPLE.validate_python(tuple(value))
            return _Entity(label=label, start_offset=start, end_offset=end)
        return _Entity.model_validate(value)
    except ValidationError:
        return None


def _convert_offsets(
    text: str, mentions: list[Mention], unit: str | None, where: str, errors: AnnotationErrors
) -> list[Mention]:
    """Return the mentions with offsets in code points; add a problem if the unit cannot be inferred."""
    if not has_astral_characters(text) or unit == CODE_POINTS:
        return mentions
    convert = convert_utf16_offsets(text)
    converted: list[Mention] = [(id_, *convert(start, end), None) for id_, start, end, _ in mentions]
    if unit == UTF_16 or converted == mentions:
        return converted
    plausible = [candidate for candidate in (mentions, converted) if _fit_words(text, candidate)]
    if len(plausible) != 1:
        found = "the offsets can count code points or UTF-16 units, which differ in this text"
        remedy = f'add "offset_unit": "{CODE_POINTS}" or "{UTF_16}" to the line'
        errors.add(where, found, allowed="offsets at the boundaries of words", remedy=remedy)
        return []
    return plausible[0]


def _fit_words(text: str, mentions: Sequence[Mention]) -> bool:
    """Return whether no concept begins or ends within a word, in white space or outside the text."""
    return all(
        0 <= start < end <= len(text)
        and not (text[start].isspace() or text[end - 1].isspace())
        and not (start > 0 and text[start - 1].isalnum() and text[start].isalnum())
        and not (end < len(text) and text[end - 1].isalnum() and text[end].isalnum())
        for _, start, end, _ in mentions
    )
