"""The BioC data model, common to XML and JSON: passages with offsets, annotations, relations, infons.

Source: Comeau et al. 2013, Database 2013:bat064, and https://bioc.sourceforge.net. The text is assembled by
the passages' offsets. Infons other than the type become normalizations if their key names a terminology,
and attributes otherwise. A relation with nodes links annotations; a relation with infons only, as in
BC5CDR and BioRED, or with roles as in PubTator 3, links terminology entries. The services of PMC and PubTator
deliver numbers, null and objects where the format has strings, and texts that are only in the sentences.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from clinie_core.data.corpora.pubtator import NOVELTY
from clinie_core.data.corpora.reading import AnnotationErrors
from clinie_core.data.document import (
    Attribute,
    Concept,
    Document,
    EntityRelation,
    Normalization,
    Relation,
    Section,
    Span,
)
from clinie_core.errors import fail

__all__ = ["ANNOTATION_KEYS", "BiocDocument", "from_bioc", "to_bioc"]

TERMINOLOGIES = frozenset(
    {"MESH", "MeSH", "OMIM", "UMLS", "SNOMED", "RxNorm", "LOINC", "ICD10", "HPO", "MedDRA", "NCBI Gene", "identifier"}
)
IDENTIFIER_KEY = "identifier"
"""Infon of an entry whose terminology is optional and precedes a colon."""
MISSING_ENTRIES = ("", "-", "-1")
MAX_GAP = 1_000_000
MAX_DIGITS = 12


ANNOTATION_KEYS = ("annotations", "relations")
"""Fields of a document, passage or sentence whose items can be left out."""
ENTITY_KEYS = (("entity1", "entity2"), ("role1", "role2"), ("head", "tail"))
"""Infons of a relation that contain the two terminology entries that it links."""
NOVELTY_KEY = "novel"


def _convert_to_text(value: Any) -> Any:
    """Return a JSON value as text; an object with an identifier is represented by it."""
    if isinstance(value, dict) and isinstance(value.get(IDENTIFIER_KEY), str):
        return value[IDENTIFIER_KEY]
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _convert_to_number(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) <= MAX_DIGITS else value


def _replace_null(value: Any) -> Any:
    return [] if value is None else value


Text = Annotated[str, BeforeValidator(_convert_to_text)]
Number = Annotated[int, BeforeValidator(_convert_to_number)]
Infons = Annotated[dict[str, Text], BeforeValidator(lambda value: {} if value is None else value)]
OrNull = BeforeValidator(_replace_null)


class _BiocPart(BaseModel):
    model_config = ConfigDict(strict=True)

    infons: Infons = {}


class BiocLocation(BaseModel):
    """The position of an annotation in the document."""

    model_config = ConfigDict(strict=True)

    offset: Number
    length: Number


class BiocAnnotation(_BiocPart):
    """A typed mention."""

    id: Text = ""
    text: str | None = None
    locations: Annotated[list[BiocLocation], OrNull] = []


class BiocNode(BaseModel):
    """A member of a relation."""

    refid: Text
    role: Text = ""


class BiocRelation(_BiocPart):
    """A typed link."""

    id: Text = ""
    nodes: Annotated[list[BiocNode], OrNull] = []


class BiocSentence(_BiocPart):
    """A sentence of a passage that is divided into sentences."""

    offset: Number = Field(ge=0)
    text: str | None = None
    annotations: Annotated[list[BiocAnnotation], OrNull] = []
    relations: Annotated[list[BiocRelation], OrNull] = []


class BiocPassage(BiocSentence):
    """A section of the document, such as its title."""

    sentences: Annotated[list[BiocSentence], OrNull] = []


class BiocDocument(_BiocPart):
    """One document."""

    id: Text = Field(min_length=1)
    passages: Annotated[list[BiocPassage], OrNull] = []
    annotations: Annotated[list[BiocAnnotation], OrNull] = []
    relations: Annotated[list[BiocRelation], OrNull] = []


class _DocumentBuilder:
    """Builder of one document from its BioC parts."""

    def __init__(self, where: str, errors: AnnotationErrors) -> None:
        self._where = where
        self._ids: set[str] = set()
        self.errors = errors
        self.text = ""
        self.sections: list[Section] = []
        self.concepts: list[Concept] = []
        self.attributes: list[Attribute] = []
        self.normalizations: list[Normalization] = []
        self.relations: list[Relation] = []
        self.entity_relations: list[EntityRelation] = []

    def append_text(self, offset: int, text: str) -> None:
        """Append text at its offset; a gap before it is filled with a line feed and blanks."""
        gap = offset - len(self.text)
        if not 0 <= gap <= MAX_GAP:
            found = f"a passage at offset {offset} does not follow the {len(self.text)} characters before it"
            fail(self._where, found, remedy="check that offsets count characters, not bytes")
        self.text += ("\n" + " " * gap)[:gap] + text

    def add_annotation(self, annotation: BiocAnnotation) -> None:
        """Check one annotation against the text and add its concept, attributes and normalizations."""
        id_ = annotation.id or self._create_id("T", len(self.concepts))
        places = [(place.offset, place.offset + place.length) for place in annotation.locations]
        fitted = [self.errors.fit_span(self._where, id_, start, end, len(self.text)) for start, end in places]
        spans = tuple(span for span in fitted if span is not None)
        if not places:
            self.errors.add(self._where, f"{id_}: an annotation without a location", allowed="at least one location")
            return
        if len(spans) < len(fitted):
            return
        text_at_offsets = " ".join(self.text[s.start : s.end] for s in spans)
        # Copies of several parts include the text in between.
        if (
            annotation.text is not None
            and len(spans) == 1
            and not self.errors.check_mention(self._where, id_, annotation.text, text_at_offsets)
        ):
            return
        infons = dict(annotation.infons)
        self.concepts.append(Concept(id_, infons.pop("type", "") or "annotation", spans))
        for key, value in infons.items():
            if key in TERMINOLOGIES:
                for entry in value.split("|") if value not in MISSING_ENTRIES else []:
                    database, _, reference = entry.rpartition(":") if key == IDENTIFIER_KEY else (key, "", entry)
                    number = self._create_id("N", len(self.normalizations))
                    self.normalizations.append(Normalization(number, id_, database or key, reference))
            else:
                self._add_attribute(key, id_, value)

    def reserve_ids(self, ids: Iterable[str]) -> None:
        """Exclude the ids of the file from the ids that are created."""
        self._ids.update(ids)

    def _create_id(self, letter: str, count: int) -> str:
        while (id_ := f"{letter}{count + 1}") in self._ids:
            count += 1
        self._ids.add(id_)
        return id_

    def _add_attribute(self, key: str, target: str, value: str) -> None:
        id_ = self._create_id("A", len(self.attributes))
        self.attributes.append(Attribute(id_, key, target, value or None))

    def _next_relation_id(self) -> str:
        return self._create_id("R", len(self.relations) + len(self.entity_relations))

    def add_relation(self, relation: BiocRelation) -> None:
        """Add one relation, between annotations or between terminology entries."""
        infons = dict(relation.infons)
        type_ = infons.pop("relation", "") or infons.pop("type", "") or "relation"
        nodes = relation.nodes
        keys = next((pair for pair in ENTITY_KEYS if infons.keys() >= set(pair)), None)
        if not nodes and keys is None and len(infons) == 2:
            first, second = infons
            keys = (first, second)
        known = {concept.id for concept in self.concepts}
        if keys is not None and not (nodes and all(node.refid in known for node in nodes)):
            id_ = self._next_relation_id()
            self.entity_relations.append(EntityRelation(id_, type_, infons.pop(keys[0]), infons.pop(keys[1])))
            for key, value in infons.items():
                self._add_attribute(NOVELTY if key == NOVELTY_KEY else key, id_, value)
        elif len(nodes) >= 2:
            for node in nodes[1:]:
                id_ = self._next_relation_id()
                self.relations.append(Relation(id_, type_, nodes[0].refid, node.refid))
                for key, value in infons.items():
                    self._add_attribute(key, id_, value)
        else:
            self.errors.add(
                self._where, f"a relation with {len(nodes)} nodes", allowed="two nodes, or two infons beside its type"
            )


def from_bioc(source: BiocDocument, where: str, errors: AnnotationErrors) -> Document:
    """Convert a BioC document to a :class:`Document`.

    Args:
        source: The parsed BioC document.
        where: File and line or id, for messages.
        errors: An empty list for the faults of the annotations.

    Raises:
        InputError: With all problems of the document.
    """
    builder = _DocumentBuilder(where, errors)
    annotations, relations = list(source.annotations), list(source.relations)
    for passage in source.passages:
        pieces: Sequence[BiocSentence] = [passage] if passage.text else passage.sentences or [passage]
        begin = passage.offset
        for piece in pieces:
            builder.append_text(piece.offset, piece.text or "")
        for part in (passage, *passage.sentences):
            annotations += part.annotations
            relations += part.relations
        if begin < len(builder.text):
            kind = passage.infons.get("type") or passage.infons.get("section") or "passage"
            builder.sections.append(Section(kind, Span(begin, len(builder.text))))
    annotations = _make_ids_unique(annotations, relations)
    builder.reserve_ids(annotation.id for annotation in annotations)
    for annotation in annotations:
        builder.add_annotation(annotation)
    for relation in relations:
        builder.add_relation(relation)
    builder.errors.raise_if_any()
    return Document(
        source.id,
        builder.text,
        tuple(builder.concepts),
        tuple(builder.relations),
        tuple(builder.attributes),
        tuple(builder.normalizations),
        entity_relations=tuple(builder.entity_relations),
        sections=tuple(builder.sections),
        metadata=dict(source.infons),
    )


def _make_ids_unique(annotations: list[BiocAnnotation], relations: list[BiocRelation]) -> list[BiocAnnotation]:
    """Remove the ids if they restart in each passage, unless relations refer to them."""
    ids = [annotation.id for annotation in annotations]
    if len(set(ids)) == len(ids) or any(relation.nodes for relation in relations):
        return annotations
    return [annotation.model_copy(update={"id": ""}) for annotation in annotations]


def to_bioc(document: Document) -> BiocDocument:
    """Convert a document to BioC.

    The sections become passages; a document whose sections do not cover its text becomes one passage.
    """
    length = len(document.text)
    cuts = [(s.type, s.span.start, s.span.end) for s in document.sections]
    gaps = zip((0, *(end for _, _, end in cuts)), (*(start for _, start, _ in cuts), length), strict=True)
    covered = all(a <= b and document.text[a:b] in ("", "\n") for a, b in gaps)
    infons: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for attribute in document.attributes:
        infons[attribute.target].setdefault(attribute.type, attribute.value or "")
    for n in document.normalizations:
        key = n.database if n.database in TERMINOLOGIES else IDENTIFIER_KEY
        entry = n.reference if key == n.database else f"{n.database}:{n.reference}"
        infons[n.target][key] = "|".join(filter(None, (infons[n.target].get(key), entry)))
    annotations = [
        BiocAnnotation(
            id=c.id,
            infons={"type": c.type, **infons[c.id]},
            text=document.mention(c),
            locations=[BiocLocation(offset=s.start, length=s.end - s.start) for s in c.spans],
        )
        for c in document.concepts
    ]
    passages = [
        BiocPassage(
            infons={"type": kind},
            offset=start,
            text=document.text[start:end],
            annotations=[a for a, c in zip(annotations, document.concepts, strict=True) if start <= c.start < end],
        )
        for kind, start, end in (cuts if covered and cuts else [("passage", 0, length)])
    ]
    relations = [
        BiocRelation(
            id=r.id,
            infons={"relation": r.type, **infons[r.id]},
            nodes=[BiocNode(refid=r.head, role="head"), BiocNode(refid=r.tail, role="tail")],
        )
        for r in document.relations
    ]
    relations += [
        BiocRelation(
            id=r.id,
            infons={
                "relation": r.type,
                "head": r.head,
                "tail": r.tail,
                **{NOVELTY_KEY if key == NOVELTY else key: value for key, value in infons[r.id].items()},
            },
        )
        for r in document.entity_relations
    ]
    return BiocDocument(id=document.id, infons=dict(document.metadata), passages=passages, relations=relations)
