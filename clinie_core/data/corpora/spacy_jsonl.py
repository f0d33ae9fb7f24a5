"""JSON Lines of Prodigy and spaCy: a text with spans, and optionally relations between them.

Source: https://prodi.gy/docs/api-interfaces (``spans_manual`` and ``relations``). Offsets count code points. Only
accepted examples are annotations: one with the answer ``reject`` or ``ignore`` is a problem. An array of
pairs of a text and its entities, the training data of spaCy 2, is read too.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clinie_core.data.corpora.json_lines import JsonLineFormat, collect_metadata
from clinie_core.data.corpora.offsets import resolve_mentions
from clinie_core.data.document import Concept, Document, Normalization, Relation
from clinie_core.errors import ErrorList, fail

__all__ = ["SpacyJsonl", "parse_link"]

ACCEPT = "accept"
KNOWLEDGE_BASE = "kb"
EXAMPLE_FIELDS = frozenset({"tokens", "_input_hash", "_task_hash"})
"""Fields of an annotated example; Prodigy omits ``spans`` of an accepted text without spans."""


class _Span(BaseModel):
    model_config = ConfigDict(strict=True)

    start: int
    end: int
    label: str = Field(min_length=1)
    text: str | None = None
    kb_id: str | None = None


class _Relation(BaseModel):
    model_config = ConfigDict(strict=True)

    head_span: _Span
    child_span: _Span
    label: str = Field(min_length=1)


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    id: int | str | None = None
    text: str
    spans: list[_Span] | None = None
    relations: list[_Relation] = []
    meta: dict[str, Any] = {}
    answer: str | None = None

    @model_validator(mode="before")
    @classmethod
    def convert_pair(cls, content: Any) -> Any:
        """Convert spaCy's pair of a text and its entities, ``["text", {"entities": [[0, 4, "TYPE"]]}]``."""
        if not isinstance(content, list) or len(content) != 2 or not isinstance(content[1], dict):
            return content
        rows = content[1].get("entities")
        if not isinstance(rows, list) or any(not isinstance(row, list) or len(row) != 3 for row in rows):
            return content
        spans = [{"start": start, "end": end, "label": label} for start, end, label in rows]
        return {"text": content[0], "spans": spans}


class SpacyJsonl(JsonLineFormat):
    """JSON Lines files with spans."""

    example: ClassVar[str] = 'NAME.jsonl, each line {"text", "spans": [{"start", "end", "label"}], "meta", "answer"}'
    model: ClassVar[type[BaseModel]] = _Line

    def build(self, row: Any, where: str, name: str) -> Document:
        """See :meth:`JsonLineFormat.build`."""
        errors = self.collect_errors()
        line: _Line = row
        if line.answer not in (None, ACCEPT):
            fail(where, "an example that was not accepted", allowed=f"answer: {ACCEPT}", remedy="remove the line")
        if line.spans is None and line.answer is None and not EXAMPLE_FIELDS.intersection(line.model_extra or ()):
            fail(where, "no spans", allowed='"spans": [{"start", "end", "label"}]')
        rows = {f"T{n}": span for n, span in enumerate(line.spans or [], start=1)}
        mentions = [(id_, span.start, span.end, span.text) for id_, span in rows.items()]
        spans = resolve_mentions(line.text, where, mentions, errors)
        concepts = [Concept(id_, rows[id_].label, (span,)) for id_, span in spans.items()]
        relations = _find_relations(line, where, errors)
        errors.raise_if_any()
        links = ((id_, span.kb_id) for id_, span in rows.items() if span.kb_id)
        metadata = collect_metadata(line.meta)
        id_ = line.id if line.id is not None else name
        return Document(
            str(id_),
            line.text,
            tuple(concepts),
            tuple(relations),
            normalizations=tuple(parse_link(n, *link) for n, link in enumerate(links, start=1)),
            metadata=metadata,
        )

    def dump(self, document: Document) -> dict[str, Any]:
        """See :meth:`JsonLineFormat.dump`; a discontinuous concept is written as its whole extent."""
        links = {n.target: f"{n.database}:{n.reference}" for n in reversed(document.normalizations)}
        spans = {
            c.id: {"start": c.start, "end": c.end, "label": c.type} | ({"kb_id": links[c.id]} if c.id in links else {})
            for c in document.concepts
        }
        return {
            "id": document.id,
            "text": document.text,
            "meta": dict(document.metadata),
            "spans": list(spans.values()),
            "relations": [
                {"head_span": spans[r.head], "child_span": spans[r.tail], "label": r.type} for r in document.relations
            ],
            "answer": ACCEPT,
        }


def _find_relations(line: _Line, where: str, errors: ErrorList) -> list[Relation]:
    """Return the relations, whose ends are found by offsets and label; add a problem for each missing end."""
    pairs: dict[tuple[int, int, str], str] = {}
    for number, span in enumerate(line.spans or [], start=1):
        pairs.setdefault((span.start, span.end, span.label), f"T{number}")
    relations = []
    for number, relation in enumerate(line.relations, start=1):
        ends = [pairs.get((s.start, s.end, s.label)) for s in (relation.head_span, relation.child_span)]
        if ends[0] is None or ends[1] is None:
            found = f"relation {number} refers to a span that does not exist"
            errors.add(where, found, allowed="offsets and label of one of the spans")
        else:
            relations.append(Relation(f"R{number}", relation.label, ends[0], ends[1]))
    return relations


def parse_link(number: int, target: str, entry: str) -> Normalization:
    """Return the normalization of an entry of a knowledge base, such as ``RxNorm:11289`` or ``Q42``."""
    database, _, reference = entry.rpartition(":")
    return Normalization(f"N{number}", target, database or KNOWLEDGE_BASE, reference)
