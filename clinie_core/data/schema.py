"""The schema of an extraction task: the types of the training split and the type pairs that relations link.

A schema is derived from the training split only and stored with every checkpoint, so that label indices
and legal pairs do not depend on the predicted documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property

from pydantic import Field

from clinie_core.config import FrozenModel
from clinie_core.data.document import Document

__all__ = ["CORPUS_KEY", "Link", "Schema", "get_corpus_name"]

CORPUS_KEY = "corpus"
"""Metadata key of a document's corpus, if documents come from several corpora."""

Link = tuple[str, str, str]
"""A relation's type, and the types of its head and tail."""


def get_corpus_name(document: Document) -> str | None:
    """Return the name of a document's corpus, or None if there is a single corpus."""
    return document.metadata.get(CORPUS_KEY)


class Schema(FrozenModel):
    """The types of a corpus.

    Args:
        concept_types: Concept types, sorted.
        links: Relations between concepts that occur, as (type, head type, tail type), sorted.
        entity_links: The same for relations between terminology entries, with the types of their mentions.
        descriptions: Descriptions of types whose names are not self-explanatory.
        corpora: For several corpora the schema of each by its name, since a document of one corpus is not
            annotated with the types of another.
    """

    concept_types: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    entity_links: tuple[Link, ...] = ()
    descriptions: dict[str, str] = Field(default_factory=dict)
    corpora: dict[str, Schema] = Field(default_factory=dict)

    @classmethod
    def from_documents(cls, documents: Iterable[Document], descriptions: Mapping[str, str] | None = None) -> Schema:
        """Collect the types and links of documents, overall and for each corpus."""
        documents = tuple(documents)
        names = sorted({name for d in documents if (name := get_corpus_name(d)) is not None})
        whole = cls._from_single_corpus(documents, descriptions)
        parts = {
            name: cls._from_single_corpus((d for d in documents if get_corpus_name(d) == name), descriptions)
            for name in names
        }
        return whole.model_copy(update={"corpora": parts})

    def for_document(self, document: Document) -> Schema:
        """Return the schema of the document's corpus, or the overall schema if the corpus is unknown."""
        return self.corpora.get(get_corpus_name(document) or "", self)

    @classmethod
    def _from_single_corpus(cls, documents: Iterable[Document], descriptions: Mapping[str, str] | None) -> Schema:
        types: set[str] = set()
        links: set[Link] = set()
        entity_links: set[Link] = set()
        for document in documents:
            type_of = {c.id: c.type for c in document.concepts}
            types.update(type_of.values())
            links.update((r.type, type_of[r.head], type_of[r.tail]) for r in document.relations)
            entry_types = {n.reference: type_of[n.target] for n in document.normalizations if n.target in type_of}
            entity_links.update(
                (r.type, entry_types[r.head], entry_types[r.tail])
                for r in document.entity_relations
                if r.head in entry_types and r.tail in entry_types
            )
        return cls(
            concept_types=tuple(sorted(types)),
            links=tuple(sorted(links)),
            entity_links=tuple(sorted(entity_links)),
            descriptions=dict(descriptions or {}),
        )

    @cached_property
    def relation_types(self) -> tuple[str, ...]:
        """All relation types between concepts or entries, sorted."""
        return tuple(sorted({type_ for type_, _, _ in (*self.links, *self.entity_links)}))

    def describe_type(self, type_: str) -> str:
        """Return a type as words for a question or instruction: its description, else its name split into words.

        ``SpecificDisease`` becomes "specific disease", ``Sign_symptom`` "sign symptom".
        """
        if type_ in self.descriptions:
            return self.descriptions[type_]
        apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_\-/]+", " ", type_)
        return " ".join(word if word.isupper() else word.lower() for word in apart.split()) or type_
