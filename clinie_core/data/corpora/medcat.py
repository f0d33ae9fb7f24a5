"""The JSON export of MedCATtrainer: projects with documents, and concepts linked to a terminology.

Source: https://github.com/CogStack/MedCATtrainer and MedCAT's training code. An annotation's ``cui`` becomes a
normalization, and its ``type`` or first ``type_ids`` the concept's type, else ``concept``. As in MedCAT, annotations
that are deleted, killed or irrelevant, or that no annotator has validated, are decisions against a concept and are
not read. Values of meta-annotations become attributes.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from clinie_core.data.corpora.json_items import JsonItemFormat
from clinie_core.data.corpora.json_lines import collect_metadata, select_metadata
from clinie_core.data.corpora.offsets import Mention, resolve_mentions
from clinie_core.data.document import Attribute, Concept, Document, Normalization, Relation

__all__ = ["MedCat"]

UNTYPED, CUI, UNNAMED_RELATION = "concept", "CUI", "relation"


class _MetaAnnotation(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str = ""
    value: str
    validated: bool | None = None


class _Annotation(BaseModel):
    model_config = ConfigDict(strict=True)

    id: int | str | None = None
    cui: str | None = None
    value: str | None = None
    start: int
    end: int
    type: str | None = None
    type_ids: list[str] | None = None
    validated: bool | None = None
    deleted: bool | None = None
    killed: bool | None = None
    irrelevant: bool | None = None
    meta_anns: dict[str, _MetaAnnotation] | list[_MetaAnnotation] | None = None

    @property
    def accepted(self) -> bool:
        """Decision of the annotators: true if the annotation is a concept of the document."""
        return not (self.deleted or self.killed or self.irrelevant or self.validated is False)


class _Relation(BaseModel):
    model_config = ConfigDict(strict=True)

    id: int | str | None = None
    start_entity: int | str
    end_entity: int | str
    relation: str | None = None
    validated: bool | None = None


class _Document(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    id: int | str | None = None
    name: str | None = None
    text: str
    annotations: list[_Annotation]
    relations: list[_Relation] | None = None


class MedCat(JsonItemFormat):
    """JSON files with projects of documents."""

    example: ClassVar[str] = 'NAME.json, {"projects": [{"documents": [{"name", "text", "annotations": [...]}]}]}'
    path: ClassVar[str] = "projects.item.documents.item"
    title: ClassVar[str] = "document"
    model: ClassVar[type[BaseModel]] = _Document
    annotation_keys: ClassVar[tuple[str, ...]] = ("annotations", "relations")
    brackets: ClassVar[tuple[str, str]] = (
        '{"projects": [{"name": "clinie", "id": 1, "cuis": "", "documents": [',
        "]}]}",
    )

    def build(self, item: _Document, where: str, name: str) -> Document:
        """See :meth:`JsonItemFormat.build`."""
        errors = self.collect_errors()
        rows: dict[str, _Annotation] = {}
        omitted: set[str] = set()
        for number, annotation in enumerate(item.annotations, start=1):
            id_ = str(annotation.id) if annotation.id is not None else f"T{number}"
            if id_ in rows or id_ in omitted:
                errors.add(where, f"duplicate id {id_}", remedy="give each annotation its own id")
            elif annotation.accepted:
                rows[id_] = annotation
            else:
                omitted.add(id_)
        mentions: list[Mention] = [(id_, a.start, a.end, a.value) for id_, a in rows.items()]
        spans = resolve_mentions(item.text, where, mentions, errors)
        errors.raise_if_any()
        meta = [(id_, part) for id_ in spans for part in _list_meta_annotations(rows[id_])]
        linked = [(id_, rows[id_].cui or "") for id_ in spans if rows[id_].cui]
        relations = [
            (str(r.start_entity), str(r.end_entity), r.relation or UNNAMED_RELATION)
            for r in item.relations or []
            if r.validated is not False and omitted.isdisjoint({str(r.start_entity), str(r.end_entity)})
        ]
        names = [str(n) for n in (item.name, item.id) if n is not None]
        return Document(
            names[0] if names else name,
            item.text,
            tuple(Concept(id_, _find_type(rows[id_]), (span,)) for id_, span in spans.items()),
            tuple(Relation(f"R{n}", type_, head, tail) for n, (head, tail, type_) in enumerate(relations, start=1)),
            tuple(Attribute(f"A{n}", part.name, id_, part.value) for n, (id_, part) in enumerate(meta, start=1)),
            tuple(_parse_link(n, id_, cui) for n, (id_, cui) in enumerate(linked, start=1)),
            metadata=collect_metadata({k: v for k, v in (item.model_extra or {}).items() if k != "last_modified"}),
        )

    def dump(self, document: Document, number: int) -> dict[str, Any]:
        """See :meth:`JsonItemFormat.dump`; a concept has one link, and one value per attribute type."""
        ids = {c.id: at for at, c in enumerate(document.concepts, start=1)}
        links = {
            n.target: n.reference if n.database == CUI else f"{n.database}:{n.reference}"
            for n in reversed(document.normalizations)
        }
        meta: dict[str, dict[str, Any]] = {id_: {} for id_ in ids}
        for a in document.attributes:
            if a.target in meta:
                meta[a.target][a.type] = {"name": a.type, "value": a.value or "True", "acc": 1.0, "validated": True}
        judgement = {"validated": True, "correct": True, "deleted": False, "killed": False, "irrelevant": False}
        annotations = [
            {
                "id": ids[c.id],
                "cui": links.get(c.id, ""),
                "value": document.text[c.start : c.end],
                "start": c.start,
                "end": c.end,
                "type": c.type,
                **judgement,
                "meta_anns": meta[c.id],
            }
            for c in document.concepts
        ]
        relations = [
            {"id": at, "start_entity": ids[r.head], "end_entity": ids[r.tail], "relation": r.type, "validated": True}
            for at, r in enumerate(document.relations, start=1)
        ]
        fields = {"id": number, "name": document.id, "text": document.text}
        reserved = (*_Document.model_fields, "last_modified")
        return {**select_metadata(document, reserved), **fields, "annotations": annotations, "relations": relations}


def _list_meta_annotations(annotation: _Annotation) -> list[_MetaAnnotation]:
    found = annotation.meta_anns or []
    if isinstance(found, list):
        return found
    return [part.model_copy(update={"name": part.name or name}) for name, part in found.items()]


def _find_type(annotation: _Annotation) -> str:
    return annotation.type or next(iter(annotation.type_ids or ()), UNTYPED)


def _parse_link(number: int, target: str, cui: str) -> Normalization:
    database, _, reference = cui.rpartition(":")
    return Normalization(f"N{number}", target, database or CUI, reference)
