"""Writing of UIMA CAS XMI; see :mod:`clinie_core.data.corpora.cas_xmi`."""

from __future__ import annotations

import keyword
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clinie_core.data.corpora.cas_files import STRING, import_cassis, name_feature
from clinie_core.data.corpora.cas_reader import METADATA
from clinie_core.data.corpora.webanno_layers import IDENTIFIER
from clinie_core.data.corpora.xml_files import replace_illegal_characters
from clinie_core.data.document import Document

__all__ = ["TypeSystemBuilder", "render_cas"]

CONCEPT, RELATION = "webanno.custom.Concept", "webanno.custom.Relation"
VALUE, LABEL, GOVERNOR, DEPENDENT = "value", "label", "Governor", "Dependent"
TAKEN = frozenset({*keyword.kwlist, "sofa", "begin", "end", "xmiID", VALUE, LABEL, IDENTIFIER, GOVERNOR, DEPENDENT})
"""Names that attributes cannot have; dkpro-cassis does not write words that Python reserves."""
FEATURE = re.compile(r"[A-Za-z](?:[A-Za-z0-9_]*[A-Za-z0-9])?")


@dataclass
class TypeSystemBuilder:
    """Type system of a corpus: a layer of concepts and one of relations, with a feature for each attribute.

    Args:
        concept_features: Types of the attributes of concepts.
        relation_features: Types of the attributes of relations.
    """

    concept_features: set[str] = field(default_factory=set)
    relation_features: set[str] = field(default_factory=set)

    def add(self, document: Document) -> None:
        """Add the features that a document needs."""
        concepts = {concept.id for concept in document.concepts}
        relations = {relation.id for relation in document.relations}
        for attribute in document.attributes:
            if FEATURE.fullmatch(attribute.type) and attribute.type not in TAKEN:
                self.concept_features |= {attribute.type} if attribute.target in concepts else set()
                self.relation_features |= {attribute.type} if attribute.target in relations else set()

    def build(self) -> Any:
        """Return the type system as an object of dkpro-cassis."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a feature named ``type``, which dkpro-cassis renames in memory
            return self._create_types(import_cassis().TypeSystem())

    def _create_types(self, types: Any) -> Any:
        concept, relation = types.create_type(CONCEPT), types.create_type(RELATION)
        for name in (VALUE, IDENTIFIER, *sorted(self.concept_features)):
            types.create_feature(concept, name, STRING)
        types.create_feature(relation, GOVERNOR, concept)
        types.create_feature(relation, DEPENDENT, concept)
        for name in (LABEL, *sorted(self.relation_features)):
            types.create_feature(relation, name, STRING)
        metadata = types.create_type(METADATA)
        for name in ("key", "value"):
            types.create_feature(metadata, name, STRING)
        return types

    def render(self) -> str:
        """Return the file ``TypeSystem.xml``."""
        return str(self.build().to_xml()) + "\n"


def render_cas(document: Document) -> str:
    """Return the XMI file of a document."""
    builder = TypeSystemBuilder()
    builder.add(document)
    types = builder.build()
    cas = import_cassis().Cas(types)
    cas.sofa_mime = "text/plain"
    cas.sofa_string = replace_illegal_characters(document.text)
    metadata = types.get_type(METADATA)
    fields = [
        metadata(begin=0, end=0, key=replace_illegal_characters(key), value=replace_illegal_characters(value))
        for key, value in document.metadata.items()
    ]
    attributes = _collect_attributes(document)
    identifiers = {n.target: _render_identifier(n.database, n.reference) for n in reversed(document.normalizations)}
    concept_type, relation_type = types.get_type(CONCEPT), types.get_type(RELATION)
    concepts = {
        c.id: concept_type(
            begin=c.start,
            end=c.end,
            value=replace_illegal_characters(c.type),
            identifier=identifiers.get(c.id),
            **_select(attributes[c.id], builder.concept_features),
        )
        for c in document.concepts
    }
    relations = [
        relation_type(
            begin=concepts[r.tail].begin,
            end=concepts[r.tail].end,
            label=replace_illegal_characters(r.type),
            Governor=concepts[r.head],
            Dependent=concepts[r.tail],
            **_select(attributes[r.id], builder.relation_features),
        )
        for r in document.relations
    ]
    cas.add_all([*fields, *concepts.values(), *relations])
    return str(cas.to_xmi()) + "\n"


def _collect_attributes(document: Document) -> Mapping[str, dict[str, str]]:
    """Return type and value of the attributes of each concept or relation; a flag is its name."""
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for attribute in document.attributes:
        value = attribute.type if attribute.value is None else attribute.value
        found[attribute.target].setdefault(attribute.type, replace_illegal_characters(value))
    return found


def _select(values: Mapping[str, str], features: Iterable[str]) -> dict[str, str]:
    return {name_feature(name): value for name, value in values.items() if name in features}


def _render_identifier(database: str, reference: str) -> str:
    separator = "/" if "://" in database else ":"
    return replace_illegal_characters(f"{database}{separator}{reference}")
