"""Label Studio's JSON export and its minimal export JSON-MIN.

Source: https://labelstud.io/guide/export and https://labelstud.io/guide/task_format. Results of the type
``labels`` become concepts and those of the type ``relation`` relations. Choices, numbers and ratings of a region
become attributes, its text areas and comments notes, and results without a region metadata. Predictions are not
read. Offsets count code points, or UTF-16 units in exports of earlier versions; the copies of the mentions tell which.

A task with several annotations is read if one of them is marked as ground truth or all are equal.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from clinie_core.data.corpora.json_items import JsonItemFormat
from clinie_core.data.corpora.json_lines import collect_metadata, select_metadata
from clinie_core.data.corpora.offsets import Mention, resolve_mentions
from clinie_core.data.corpora.reading import AnnotationErrors
from clinie_core.data.document import Attribute, Concept, Document, Note, Relation
from clinie_core.errors import fail

__all__ = ["LabelStudio"]

TEXT, ID = "text", "document_id"
UNNAMED_RELATION, COMMENT = "relation", "comment"
VALUE_KEYS = {"choices": "choices", "taxonomy": "taxonomy", "number": "number", "rating": "rating"}
TASK_KEYS = frozenset(
    {
        *("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "file_upload", "inner_id"),
        *("drafts", "predictions", "meta", "project", "total_annotations", "cancelled_annotations", "updated_by"),
        *("total_predictions", "comment_count", "unresolved_comment_count", "last_comment_updated_at"),
    }
)


class _Result(BaseModel):
    model_config = ConfigDict(strict=True)

    id: str | None = None
    type: str = Field(min_length=1)
    from_name: str = ""
    to_name: str = ""
    value: dict[str, Any] = {}
    meta: dict[str, Any] = {}
    from_id: str = ""
    to_id: str = ""
    direction: str | None = None
    labels: list[str] | None = None


class _Annotation(BaseModel):
    model_config = ConfigDict(strict=True)

    result: list[_Result] = []
    was_cancelled: bool | None = False
    ground_truth: bool | None = False


class _Task(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    id: int | str | None = None
    data: dict[str, Any] | None = None
    annotations: list[_Annotation] | None = None
    completions: list[_Annotation] | None = None
    """The name of ``annotations`` before Label Studio 1.0."""


class LabelStudio(JsonItemFormat):
    """JSON files with one array of tasks."""

    example: ClassVar[str] = 'NAME.json, [{"data": {"text": ...}, "annotations": [{"result": [...]}]}], or JSON-MIN'
    path: ClassVar[str] = "item"
    title: ClassVar[str] = "task"
    model: ClassVar[type[BaseModel]] = _Task
    annotation_keys: ClassVar[tuple[str, ...]] = ("result",)
    brackets: ClassVar[tuple[str, str]] = ("[", "]")

    def build(self, item: _Task, where: str, name: str) -> Document:
        """See :meth:`JsonItemFormat.build`."""
        data = item.data if item.data is not None else (item.model_extra or {})
        results = _select_results(item, where) if item.data is not None else _expand_minimal_results(item, where)
        key = _find_text_key(data, {result.to_name for result in results if result.to_name}, where)
        reader = _ResultReader(data[key], where, self.collect_errors())
        reader.read(results)
        reader.errors.raise_if_any()
        id_ = data.get(ID) if isinstance(data.get(ID), str) else item.id
        ignored = {key, ID, *TASK_KEYS} if item.data is None else {key, ID}
        metadata = collect_metadata({k: v for k, v in data.items() if k not in ignored})
        return Document(
            str(id_) if id_ is not None else name,
            data[key],
            tuple(reader.concepts.values()),
            tuple(reader.relations),
            tuple(reader.attributes),
            notes=tuple(reader.notes),
            metadata=metadata | reader.metadata,
        )

    def dump(self, document: Document, number: int) -> dict[str, Any]:
        """See :meth:`JsonItemFormat.dump`; a flag is written as a choice with the name of its attribute."""
        regions = {
            c.id: {"start": c.start, "end": c.end, "text": document.text[c.start : c.end]} for c in document.concepts
        }
        results: list[dict[str, Any]] = [
            {
                "id": c.id,
                "from_name": "label",
                "to_name": TEXT,
                "type": "labels",
                "value": regions[c.id] | {"labels": [c.type]},
            }
            for c in document.concepts
        ]
        properties = [(a.target, a.type, "choices", "choices", a.value or a.type) for a in document.attributes]
        properties += [(n.target, n.type, "textarea", "text", n.text) for n in document.notes]
        results += [
            {"id": target, "from_name": name, "to_name": TEXT, "type": kind, "value": regions[target] | {key: [value]}}
            for target, name, kind, key, value in properties
            if target in regions
        ]
        results += [
            {"type": "relation", "from_id": r.head, "to_id": r.tail, "direction": "right", "labels": [r.type]}
            for r in document.relations
        ]
        data = {**select_metadata(document, {TEXT, ID}), TEXT: document.text, ID: document.id}
        return {"id": number, "data": data, "annotations": [{"id": number, "result": results}]}


def _select_results(task: _Task, where: str) -> list[_Result]:
    """Return the results of the annotation to read.

    Raises:
        InputError: If the task has none, or several that differ.
    """
    annotations = task.annotations if task.annotations is not None else task.completions
    if annotations is None:
        fail(where, "no annotations", allowed='"annotations": [...]', remedy="export as JSON or JSON-MIN")
    done = [a for a in annotations if not a.was_cancelled]
    if annotations and not done:
        fail(where, "all annotations of the task are cancelled", remedy="annotate the task, or remove it")
    chosen = [a for a in done if a.ground_truth] or done
    if any(_describe(a) != _describe(chosen[0]) for a in chosen[1:]):
        fail(where, f"{len(chosen)} annotations that differ", allowed="one", remedy="mark one as ground truth")
    return chosen[0].result if chosen else []


def _describe(annotation: _Annotation) -> list[str]:
    """Return what an annotation says, independent of the ids of its regions."""
    numbers: dict[str, int] = {}
    for result in annotation.result:
        numbers.setdefault(result.id or "", len(numbers))
    return sorted(
        json.dumps([r.type, r.value, r.labels, numbers.get(r.from_id), numbers.get(r.to_id)], sort_keys=True)
        for r in annotation.result
    )


def _expand_minimal_results(task: _Task, where: str) -> list[_Result]:
    """Return the results of a task in JSON-MIN, where each control is a field of the task."""
    fields = task.model_extra or {}
    controls = {
        key: value
        for key, value in fields.items()
        if isinstance(value, list) and value and all(isinstance(v, dict) and "start" in v for v in value)
    }
    if not controls and not TASK_KEYS.intersection(fields) - {"id"}:
        fail(where, "neither annotations nor labels", allowed="data and annotations, or the fields of JSON-MIN")
    return [
        _Result(
            id=f"{value['start']}:{value.get('end')}",  # joins the controls of a region, which has no id here
            type=next((kind for kind in ("labels", *VALUE_KEYS) if kind in value), "labels"),
            from_name=key,
            value=value,
        )
        for key, values in controls.items()
        for value in values
    ]


def _find_text_key(data: dict[str, Any], controls: set[str], where: str) -> str:
    """Return the field of a task that contains the annotated text."""
    texts = [key for key, value in data.items() if isinstance(value, str)]
    for key in (*sorted(controls), TEXT):
        if key in texts:
            return key
    candidates = [key for key in texts if key not in TASK_KEYS and key != ID]
    if len(candidates) != 1:
        fail(where, f"{len(candidates)} fields can be the text", allowed="a field named text, or one text field")
    return candidates[0]


class _ResultReader:
    """Reader of the results of one annotation."""

    def __init__(self, text: str, where: str, errors: AnnotationErrors) -> None:
        self._text = text
        self._where = where
        self._labels: dict[str, list[str]] = {}
        self.errors = errors
        self.concepts: dict[str, Concept] = {}
        self.relations: list[Relation] = []
        self.attributes: list[Attribute] = []
        self.notes: list[Note] = []
        self.metadata: dict[str, str] = {}

    def read(self, results: list[_Result]) -> None:
        """Read regions, then the results that refer to them."""
        mentions = [self._read_region(result) for result in results if result.type == "labels"]
        for id_, span in resolve_mentions(
            self._text, self._where, [m for m in mentions if m is not None], self.errors
        ).items():
            for number, label in enumerate(self._labels[id_], start=1):
                name = id_ if number == 1 else f"{id_}.{number}"
                self.concepts[name] = Concept(name, label, (span,))
        for result in results:
            for comment in _list_comments(result) if result.type == "labels" and result.id in self._labels else ():
                self.notes.append(Note(f"N{len(self.notes) + 1}", COMMENT, result.id or "", comment))
            if result.type == "relation":
                self._read_relation(result)
            elif result.type in VALUE_KEYS or result.type == "textarea":
                self._read_property(result)
            elif result.type != "labels":
                allowed = f"labels, relation, textarea, {', '.join(VALUE_KEYS)}"
                self.errors.add(self._where, f"a result of the unsupported type {result.type}", allowed=allowed)

    def _read_region(self, result: _Result) -> Mention | None:
        id_ = result.id or f"T{len(self._labels) + 1}"
        while id_ in self._labels:  # two controls can label the same region
            id_ += "+"
        value = result.value
        start, end, copy, labels = (value.get(key) for key in ("start", "end", "text", "labels"))
        if not isinstance(labels, list) or not labels or not all(isinstance(x, str) and x for x in labels):
            self.errors.add(self._where, f"{id_}: a region without a label", allowed='"labels": ["TYPE"]')
        elif type(start) is not int or type(end) is not int:
            self.errors.add(self._where, f"{id_}: start and end are not numbers", allowed="integers from 0")
        else:
            self._labels[id_] = labels
            # The text of a region writes a line feed as a backslash and an n.
            return id_, start, end, copy.replace("\\n", "\n") if isinstance(copy, str) else None
        return None

    def _read_relation(self, result: _Result) -> None:
        missing = next((id_ for id_ in (result.from_id, result.to_id) if id_ not in self._labels), None)
        if missing is not None:
            found = f"a relation refers to {missing or 'nothing'}, which is not a region with a label"
            self.errors.add(self._where, found, allowed="from_id and to_id of regions")
            return
        ends = [(result.from_id, result.to_id)]
        if result.direction in ("left", "bi"):
            ends = [*(ends if result.direction == "bi" else ()), (result.to_id, result.from_id)]
        for label in result.labels or [UNNAMED_RELATION]:
            for head, tail in ends:
                self.relations.append(Relation(f"R{len(self.relations) + 1}", label, head, tail))

    def _read_property(self, result: _Result) -> None:
        """Read a property of a region, or of the document if the result has no region."""
        found = result.value.get(VALUE_KEYS.get(result.type, "text"))
        values = found if isinstance(found, list) else [] if found is None else [found]
        parts = ["/".join(map(str, v)) if isinstance(v, list) else str(v) for v in values]
        name = result.from_name or result.type
        target = result.id or ""
        if target not in self._labels:
            if "start" in result.value:
                found = f"{name}: a property of a region without a label"
                self.errors.add(self._where, found, allowed="a labels result of the same id")
            self.metadata[name] = ", ".join(parts)
        elif result.type == "textarea":
            for part in parts:
                self.notes.append(Note(f"N{len(self.notes) + 1}", name, target, part))
        else:
            for part in parts:
                value = None if part == name else part
                self.attributes.append(Attribute(f"A{len(self.attributes) + 1}", name, target, value))


def _list_comments(result: _Result) -> list[str]:
    """Return the comments on a region, which are part of its result."""
    found = result.meta.get("text")
    values = found if isinstance(found, list) else [found]
    return [value for value in values if isinstance(value, str) and value]
