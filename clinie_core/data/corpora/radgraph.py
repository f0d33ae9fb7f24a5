"""The RadGraph JSON format: radiology reports with entities given by token indices.

Source: Jain et al. 2021, arXiv 2106.14463, and the dataset's files. A file is one object that maps report
names to reports. White space separates tokens, and both ends of an entity are inclusive. If two annotators
labelled a report, it has ``labeler_1`` and ``labeler_2``; only the first is read, with a warning.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, BinaryIO, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from clinie_core.data.corpora.corpus_format import StreamFormat
from clinie_core.data.corpora.json_stream import ObjectLocator, read_pairs
from clinie_core.data.corpora.reading import AnnotationErrors, validate_content
from clinie_core.data.corpora.tokens import find_tokens
from clinie_core.data.document import Concept, Document, Relation, Span, find_overlapping_spans
from clinie_core.errors import InputError, Problem, fail
from clinie_core.shown_ids import show_id

__all__ = ["RadGraph"]

SECOND = "labeler_2"
METADATA = ("data_source", "data_split")


class _Entity(BaseModel):
    model_config = ConfigDict(strict=True)

    tokens: str
    label: str = Field(min_length=1)
    start_ix: int = Field(ge=0)
    end_ix: int = Field(ge=0)
    relations: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []


class _Labels(BaseModel):
    model_config = ConfigDict(strict=True)

    entities: dict[str, _Entity]


class _Report(BaseModel):
    model_config = ConfigDict(strict=True)

    text: str
    entities: dict[str, _Entity] | None = None
    labeler_1: _Labels | None = None
    data_source: str | None = None
    data_split: str | None = None


class RadGraph(StreamFormat):
    """JSON files with one object of reports."""

    example: ClassVar[str] = 'NAME.json, {"REPORT": {"text": ..., "entities": {"1": {"tokens", "label", ...}}}}'
    suffix: ClassVar[str] = ".json"

    def read_stream(self, stream: BinaryIO, where: str, name: str) -> Iterator[tuple[str, Document] | Problem]:
        """See :meth:`StreamFormat.read_stream`."""
        lines = ObjectLocator(stream, where, depth=1)
        for number, (id_, content) in enumerate(read_pairs(stream, where)):
            place = f"{where}: {show_id(id_)}"
            try:
                errors = self.collect_errors()
                if isinstance(content, dict) and SECOND in content:
                    errors.warn(where, f"{SECOND} is not read, where a report has two annotators")
                document = _build_document(id_, place, content, errors)
            except InputError as error:
                yield from self.skip(lines.locate(error.problems, number))
            else:
                yield from lines.locate(self.take_notices(), number)
                yield place, document

    def write_stream(self, documents: Iterable[Document], stream: BinaryIO) -> None:
        """See :meth:`StreamFormat.write_stream`; concepts are extended to whole tokens."""
        stream.write(b"{")
        for number, document in enumerate(documents):
            row = f"{json.dumps(document.id)}: {json.dumps(_build_report(document))}"
            stream.write(((",\n" if number else "\n") + row).encode())
        stream.write(b"\n}\n")


def _build_document(id_: str, where: str, content: object, errors: AnnotationErrors) -> Document:
    report = validate_content(_Report.model_validate, content, where, errors, ("entities",))
    entities = report.entities
    if entities is None and report.labeler_1 is not None:
        entities = report.labeler_1.entities
    if entities is None:
        fail(where, "no entities", allowed="entities, or labeler_1 with entities")
    spans = find_tokens(report.text, words=False)
    concepts: list[Concept] = []
    relations: list[Relation] = []
    for number, entity in entities.items():
        if not entity.start_ix <= entity.end_ix < len(spans):
            found = f"{number}: tokens {entity.start_ix} to {entity.end_ix} are not in the text of {len(spans)} tokens"
            errors.add(where, found, allowed="0 <= start_ix <= end_ix < tokens")
            continue
        span = Span(spans[entity.start_ix].start, spans[entity.end_ix].end)
        if not errors.check_mention(where, number, entity.tokens, report.text[span.start : span.end]):
            continue
        concepts.append(Concept(number, entity.label, (span,)))
        for type_, tail in entity.relations:
            relations.append(Relation(f"R{len(relations) + 1}", type_, number, tail))
    errors.raise_if_any()
    metadata = {key: getattr(report, key) for key in METADATA if getattr(report, key) is not None}
    return Document(id_, report.text, tuple(concepts), tuple(relations), metadata=metadata)


def _build_report(document: Document) -> dict[str, Any]:
    spans = find_tokens(document.text, words=False)
    touched = {c.id: find_overlapping_spans(spans, c.start, c.end) for c in document.concepts}
    numbers = {id_: str(n) for n, id_ in enumerate((c.id for c in document.concepts if touched[c.id]), start=1)}
    entities = {}
    for concept in document.concepts:
        tokens = touched[concept.id]
        if tokens is not None:
            text = document.text[spans[tokens[0]].start : spans[tokens[1]].end]
            entities[numbers[concept.id]] = {
                "tokens": " ".join(text.split()),
                "label": concept.type,
                "start_ix": tokens[0],
                "end_ix": tokens[1],
                "relations": [
                    [r.type, numbers[r.tail]] for r in document.relations if r.head == concept.id and r.tail in numbers
                ],
            }
    metadata = {key: document.metadata[key] for key in METADATA if key in document.metadata}
    return {"text": document.text, "entities": entities, **metadata}
