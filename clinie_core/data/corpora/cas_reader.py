"""Documents from loaded UIMA CAS files; see :mod:`clinie_core.data.corpora.cas_xmi`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from clinie_core.data.corpora.cas_files import ANNOTATION, STRING, Cas
from clinie_core.data.corpora.offsets import convert_utf16_offsets
from clinie_core.data.corpora.reading import AnnotationErrors
from clinie_core.data.corpora.webanno_layers import IDENTIFIER, TOKEN_LAYER, choose_type_feature, parse_identifier
from clinie_core.data.document import Attribute, Concept, Document, Normalization, Relation, Span
from clinie_core.errors import fail

__all__ = ["METADATA", "build_document"]

METADATA = "de.tudarmstadt.ukp.dkpro.core.api.metadata.type.MetaDataStringField"
INTERNAL = re.compile(r"uima\.|.*\.api\.(?:metadata|structure|xml)\.|.*\.webanno\.api\.type\.|.*\.ukp\.inception\.")
"""Types that contain no annotations of the text."""
CHAIN_FEATURES = ("first", "next")
"""Features of a chain and of its links, which refer to links."""
ENDS = (("Governor", "Dependent"), ("source", "target"), ("from", "to"), ("head", "tail"), ("arg1", "arg2"))
"""Names of the features that refer to the ends of a relation, in lower or mixed case; WebAnno has the first pair."""
BASE_FEATURES = ("sofa", "begin", "end")
ROLE, TARGET = "role", "target"
INITIAL_VIEW = "_InitialView"


@dataclass(frozen=True)
class _Layer:
    """A type of annotations.

    Args:
        name: Full name.
        features: The features without offsets, by name.
        strings: Names of the features that are strings.
        references: Names of the features that refer to other feature structures, one or several.
        ends: Names of the features that refer to the ends of a relation; None for spans.
    """

    name: str
    features: tuple[str, ...]
    strings: tuple[str, ...]
    references: tuple[str, ...]
    ends: tuple[str, str] | None

    @property
    def short_name(self) -> str:
        """Last part of the name."""
        return self.name.rpartition(".")[2]

    @property
    def type_feature(self) -> str | None:
        """The feature that contains the type, if any."""
        names = {name.removesuffix("_"): name for name in self.strings}
        chosen = choose_type_feature(names)
        return names[chosen] if chosen is not None else None


def build_document(cas: Cas, where: str, name: str, errors: AnnotationErrors) -> Document:
    """Return the document of a CAS.

    Args:
        cas: The CAS.
        where: The file's name, for messages.
        name: The document's id.
        errors: List to which the faults of annotations are added.

    Raises:
        InputError: If the CAS has no text, or faults that the options do not leave out.
    """
    views = [sofa.sofaID for sofa in cas.cas.sofas if sofa.sofaString is not None]
    if not views:
        fail(where, "no text", allowed="a cas:Sofa with sofaString", remedy="export the document again")
    chosen = INITIAL_VIEW if INITIAL_VIEW in views else views[0]
    if len(views) > 1:
        errors.warn(where, f"{len(views) - 1} further views are not read")
    builder = _Builder(cas, cas.cas.get_view(chosen), where, errors)
    document = builder.build(name)
    errors.raise_if_any()
    return document


class _Builder:
    """Builder of one document."""

    def __init__(self, cas: Cas, view: Any, where: str, errors: AnnotationErrors) -> None:
        self._types = cas.cas.typesystem
        self._places = cas.places
        self._view = view
        self._where = where
        self._errors = errors
        self._text: str = view.sofa_string
        self._units = len(self._text) + sum(character > "\uffff" for character in self._text)
        self._convert = convert_utf16_offsets(self._text)
        self._layers: dict[str, _Layer | None] = {}
        self._concepts: dict[int, Concept] = {}
        self._relations: list[Relation] = []
        self._attributes: list[tuple[str, str, str]] = []
        self._normalizations: list[Normalization] = []

    def build(self, name: str) -> Document:
        """Read spans, then relations and the features of both, which refer to spans."""
        structures = sorted(self._view.select_all_fs(), key=lambda structure: structure.xmiID)
        found = [(s, layer) for s in structures if (layer := self._find_layer(s.type)) is not None]
        spans = [(structure, layer) for structure, layer in found if layer.ends is None]
        for structure, layer in spans:
            self._read_span(structure, layer)
        for structure, layer in found:
            if layer.ends is not None:
                self._read_relation(structure, layer, layer.ends)
        for structure, layer in spans:
            if structure.xmiID in self._concepts:
                self._read_features(structure, layer, self._concepts[structure.xmiID].id)
        attributes = (
            Attribute(f"A{n}", type_, target, None if value == type_ else value)
            for n, (type_, target, value) in enumerate(self._attributes, start=1)
        )
        return Document(
            name,
            self._text,
            tuple(self._concepts.values()),
            tuple(self._relations),
            tuple(attributes),
            tuple(self._normalizations),
            metadata=self._read_metadata(structures),
        )

    def _find_layer(self, type_: Any) -> _Layer | None:
        """Return the layer of a type, None if it is not read."""
        if type_.name not in self._layers:
            self._layers[type_.name] = self._build_layer(type_)
        return self._layers[type_.name]

    def _build_layer(self, type_: Any) -> _Layer | None:
        name = f"{type_.name}."
        if not self._is(type_, ANNOTATION) or INTERNAL.match(name) or TOKEN_LAYER.search(name):
            return None
        if self._is_chain(type_):
            return None
        features = [feature for feature in type_.all_features if feature.name not in BASE_FEATURES]
        strings = [f.name for f in features if self._is(f.rangeType, STRING)]
        references = [f.name for f in features if not self._is_value(f.rangeType)]
        singles = {f.name.removesuffix("_").casefold(): f.name for f in features if f.name in references}
        pairs = [(singles.get(a.casefold()), singles.get(b.casefold())) for a, b in ENDS]
        ends = next(((a, b) for a, b in pairs if a is not None and b is not None), None)
        return _Layer(type_.name, tuple(f.name for f in features), tuple(strings), tuple(references), ends)

    def _is_chain(self, type_: Any) -> bool:
        """Return whether a type is a chain or its links, with a warning."""
        found = any(f.name in CHAIN_FEATURES and not self._is_value(f.rangeType) for f in type_.all_features)
        if found:
            self._errors.warn(self._where, f"chains of {type_.name} are not read")
        return found

    def _is(self, type_: Any, parent: str) -> bool:
        return bool(self._types.is_instance_of(type_.name, parent))

    def _is_value(self, range_: Any) -> bool:
        types = self._types
        return bool(types.is_primitive(range_) or types.is_primitive_array(range_) or types.is_primitive_list(range_))

    def _locate(self, structure: Any) -> str:
        return f"{self._where}:{self._places[structure.xmiID][0]}"

    def _read_span(self, structure: Any, layer: _Layer) -> None:
        id_ = f"T{len(self._concepts) + 1}"
        where, (_, begin, end) = self._locate(structure), self._places[structure.xmiID]
        if begin < 0:
            self._errors.add(where, f"an annotation of {layer.name} without offsets", allowed="begin and end")
            return
        span = self._fit_span(where, id_, begin, end)
        if span is not None:
            type_ = structure[layer.type_feature] if layer.type_feature else None
            self._concepts[structure.xmiID] = Concept(id_, type_ or layer.short_name, (span,))

    def _fit_span(self, where: str, id_: str, begin: int, end: int) -> Span | None:
        """Return the span of two offsets in UTF-16 units, or add a problem."""
        length = len(self._text)
        beyond = max(0, end - self._units)
        start, stop = self._convert(begin, end - beyond)
        if max(start, stop) > length and begin <= self._units:
            found = f"{id_}: the offsets {begin}:{end} divide a character"
            self._errors.add(where, found, allowed="offsets that count UTF-16 units")
            return None
        return self._errors.fit_span(where, id_, start, stop + beyond, length)

    def _read_relation(self, structure: Any, layer: _Layer, ends: tuple[str, str]) -> None:
        targets = [structure[name] for name in ends]
        if any(target is not None and self._is_unread(target) for target in targets):
            self._errors.warn(self._where, f"relations of {layer.name} between tokens are not read")
            return
        concepts = [self._concepts.get(target.xmiID) if target is not None else None for target in targets]
        if concepts[0] is None or concepts[1] is None:
            found = f"a relation of {layer.short_name} refers to an annotation that does not exist"
            self._errors.add(self._locate(structure), found, allowed="annotations of this document")
            return
        id_ = f"R{len(self._relations) + 1}"
        type_ = structure[layer.type_feature] if layer.type_feature else None
        self._relations.append(Relation(id_, type_ or layer.short_name, concepts[0].id, concepts[1].id))
        self._read_features(structure, layer, id_)

    def _is_unread(self, structure: Any) -> bool:
        """Return whether an annotation belongs to a layer that is not read, such as the tokens."""
        return self._find_layer(structure.type) is None

    def _read_features(self, structure: Any, layer: _Layer, id_: str) -> None:
        """Read the features of an annotation other than its type and the ends of a relation."""
        for name in layer.features:
            value = structure[name]
            shown = name.removesuffix("_")
            if value is None or name == layer.type_feature or name in (layer.ends or ()):
                continue
            if name in layer.references:
                self._read_slot(structure, layer, shown, value, id_)
            elif name == IDENTIFIER and isinstance(value, str) and value and layer.ends is None:
                self._normalizations.append(parse_identifier(f"N{len(self._normalizations) + 1}", id_, value))
            else:
                self._attributes += [(shown, id_, _format(item)) for item in _list_values(value)]

    def _read_slot(self, structure: Any, layer: _Layer, name: str, value: Any, id_: str) -> None:
        """Read references of an annotation to others, directly or by links with a role, as relations."""
        for item in getattr(value, "elements", None) or ([] if hasattr(value, "elements") else [value]):
            names = {feature.name for feature in item.type.all_features} if item is not None else set()
            link = {ROLE, TARGET} <= names and not self._is(item.type, ANNOTATION)
            target = item[TARGET] if link else item
            if target is None:
                continue
            concept = self._concepts.get(target.xmiID)
            if concept is not None and layer.ends is None:
                type_ = (item[ROLE] if link else None) or name
                self._relations.append(Relation(f"R{len(self._relations) + 1}", type_, id_, concept.id))
            elif not self._is(target.type, ANNOTATION) or self._is_unread(target) or layer.ends is not None:
                self._errors.warn(self._where, f"values of the feature {name} of {layer.name} are not read")
            else:
                found = f"the feature {name} refers to an annotation that does not exist"
                self._errors.add(self._locate(structure), found, allowed="annotations of this document")

    def _read_metadata(self, structures: list[Any]) -> dict[str, str]:
        """Return the fields of the document: those of DKPro, and the features of layers without offsets."""
        found: dict[str, list[str]] = {}
        for structure in structures:
            type_ = structure.type
            if type_.name == METADATA:
                if structure.key and structure.value is not None:
                    found.setdefault(structure.key, []).append(structure.value)
            elif self._is(type_, "uima.cas.AnnotationBase") and not self._is(type_, ANNOTATION):
                if self._is_chain(type_):
                    continue
                for feature in type_.all_features:
                    value = structure[feature.name]
                    if feature.name != "sofa" and value is not None and self._types.is_primitive(feature.rangeType):
                        key = f"{type_.name.rpartition('.')[2]}.{feature.name.removesuffix('_')}"
                        found.setdefault(key, []).append(_format(value))
        return {key: ", ".join(values) for key, values in found.items()}


def _list_values(value: Any) -> list[Any]:
    """Return the values of a primitive feature, an array or a linked list, without empty ones."""
    values = []
    if hasattr(value, "elements"):
        values = list(value.elements or ())
    elif hasattr(value, "type"):
        while hasattr(value, "head"):
            values.append(value.head)
            value = value.tail
    else:
        values = [value]
    return [item for item in values if item not in (None, "")]


def _format(value: Any) -> str:
    """Return a value as in the file."""
    return str(value).lower() if isinstance(value, bool) else str(value)
