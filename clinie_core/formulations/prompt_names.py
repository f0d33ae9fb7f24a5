"""Names of concept and relation types in prompts and generated answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from clinie_core.data.document import Document
from clinie_core.data.schema import Schema, get_corpus_name

__all__ = ["CorpusNames", "TypeNames"]


class TypeNames:
    """Unique prompt names of concept and relation types; types with equal descriptions use their own names."""

    def __init__(self, schema: Schema) -> None:
        self.of_type = _assign_unique_names(schema.concept_types, schema)
        self.of_relation = _assign_unique_names(schema.relation_types, schema)
        self.types, self.relations = tuple(self.of_type.values()), tuple(self.of_relation.values())
        self.type_of = {name: type_ for type_, name in self.of_type.items()}
        self.relation_of = {name: type_ for type_, name in self.of_relation.items()}


class CorpusNames:
    """Prompt names of the types of each document's corpus."""

    def __init__(self, schema: Schema) -> None:
        self._all_types = TypeNames(schema)
        self._by_corpus = {name: TypeNames(part) for name, part in schema.corpora.items()}

    def __call__(self, document: Document) -> TypeNames:
        """Return the names of the corpus of a document."""
        return self._by_corpus.get(get_corpus_name(document) or "", self._all_types)

    def list_all(self) -> list[TypeNames]:
        """Return the names of every corpus, or those of the whole schema if there is only one corpus."""
        return list(self._by_corpus.values()) or [self._all_types]


def _assign_unique_names(types: Sequence[str], schema: Schema) -> dict[str, str]:
    names = {type_: schema.describe_type(type_) for type_ in types}
    counts = Counter(names.values())
    return {type_: name if counts[name] == 1 else type_ for type_, name in names.items()}
