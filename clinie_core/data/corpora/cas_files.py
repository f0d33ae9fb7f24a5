"""Checked loading of UIMA type systems and CAS files by dkpro-cassis.

A file is checked before dkpro-cassis reads it, because the library does not name lines, builds Python classes from
names in the file, and keeps invalid offsets. Files with a document type declaration are refused, since they can
define entities that expand without limit or refer to other files.
"""

from __future__ import annotations

import io
import keyword
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

from lxml import etree

from clinie_core.data.corpora.extras import import_extra
from clinie_core.data.corpora.reading import AnnotationErrors
from clinie_core.data.corpora.xml_files import parse_xml
from clinie_core.errors import ErrorList, fail

__all__ = ["Cas", "import_cassis", "load_cas", "load_type_system", "name_feature"]

DOCTYPE = "<!DOCTYPE"
ID = "{http://www.omg.org/XMI}id"
XMI = "{http://www.omg.org/XMI}XMI"
CAS_NAMESPACE = "http:///uima/cas.ecore"
STRUCTURAL = frozenset({f"{{{CAS_NAMESPACE}}}{name}" for name in ("NULL", "Sofa", "View")})
PACKAGE = re.compile(r"http:///(.+)\.ecore")
NO_PACKAGE = "uima.noNamespace."
STRING, ANNOTATION = "uima.cas.String", "uima.tcas.Annotation"
NUMBER = re.compile(r"[0-9]{1,12}")
FEATURE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
RESERVED = frozenset({*keyword.kwlist, "self", "type", "xmiID"})
"""Names of features that cannot be names of attributes of dkpro-cassis' classes."""
REMEDY = "export the document again as UIMA CAS XMI"


@dataclass
class Cas:
    """A loaded CAS.

    Args:
        cas: The object of dkpro-cassis; its offsets are not checked.
        places: Line, start and end of each feature structure in the file, by its id; offsets count UTF-16 units,
            and are -1 if the file has none or they do not parse.
    """

    cas: Any = field(repr=False)
    places: dict[int, tuple[int, int, int]]


def import_cassis() -> Any:
    """Return the module ``cassis``.

    Raises:
        InputError: If dkpro-cassis is not installed.
    """
    return import_extra("cassis", "dkpro-cassis", "cas_xmi", "cas")


def name_feature(name: str) -> str:
    """Return the name of a feature in dkpro-cassis, in which words that Python reserves end in an underscore."""
    return f"{name}_" if name in RESERVED else name


def load_type_system(content: str, where: str) -> Any:
    """Load a type system.

    Args:
        content: The file.
        where: Its name, for messages.

    Raises:
        InputError: If it cannot be read.
    """
    root = _parse(content, where)
    if etree.QName(root).localname != "typeSystemDescription":
        fail(f"{where}:1", "not a UIMA type system", allowed="<typeSystemDescription>", remedy=REMEDY)
    if any(len(imports) for imports in root.iterfind("{*}imports")):
        fail(where, "the type system imports other files", allowed="a file with all types", remedy=REMEDY)
    _check_features(root, where)
    _replace_string_subtypes(root)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a feature that a type and its supertype declare
            return import_cassis().load_typesystem(io.BytesIO(etree.tostring(root)))
    except Exception as error:  # dkpro-cassis has no common class of errors
        fail(where, f"not a type system that can be read ({type(error).__name__})", remedy=REMEDY)


def _parse(content: str, where: str) -> Any:
    at = content.find(DOCTYPE)
    if at >= 0:
        line = content.count("\n", 0, at) + 1
        fail(f"{where}:{line}", "a document type declaration", allowed="a file without one", remedy="remove it")
    return parse_xml(content, where)


def _check_features(root: Any, where: str) -> None:
    """Rename features that dkpro-cassis cannot represent.

    Raises:
        InputError: If the name of a feature is not an identifier; dkpro-cassis would generate code with it.
    """
    errors = ErrorList()
    for node in root.iterfind(".//{*}featureDescription/{*}name"):
        name = (node.text or "").strip()
        if not FEATURE_NAME.fullmatch(name):
            errors.add(f"{where}:{node.sourceline}", "the name of a feature", allowed="letters, digits and _")
        node.text = name_feature(name)
    errors.raise_if_any()


def _replace_string_subtypes(root: Any) -> None:
    """Replace types of features that restrict strings to some values, which dkpro-cassis does not read."""
    supertypes = {
        (node.findtext("{*}name") or "").strip(): (node.findtext("{*}supertypeName") or "").strip()
        for node in root.iterfind(".//{*}typeDescription")
    }
    strings = {STRING}
    while more := {name for name, above in supertypes.items() if above in strings} - strings:
        strings |= more
    for node in root.iterfind(".//{*}featureDescription/{*}rangeTypeName"):
        if (node.text or "").strip() in strings:
            node.text = STRING


def load_cas(content: str, type_system: Any, where: str, errors: AnnotationErrors) -> Cas:
    """Load a CAS.

    Args:
        content: The XMI file.
        type_system: Its type system.
        where: The file's name, for messages.
        errors: List to which faults of single feature structures are added; they are left out.

    Raises:
        InputError: If the file cannot be read, or has faults and the options do not leave them out.
    """
    root = _parse(content, where)
    if root.tag != XMI:
        fail(f"{where}:1", "not a UIMA CAS in XMI", allowed="<xmi:XMI>", remedy=REMEDY)
    places = _Checker(root, type_system, where, errors).check()
    errors.raise_if_any()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # offsets between the units of a character, which the reader reports
            cas = import_cassis().load_cas_from_xmi(io.BytesIO(etree.tostring(root)), type_system)
    except Exception as error:  # dkpro-cassis has no common class of errors
        fail(where, f"not a CAS that can be read ({type(error).__name__})", allowed="UIMA CAS XMI", remedy=REMEDY)
    return Cas(cas, places)


class _Checker:
    """Check of the elements of a file, which removes the faulty ones."""

    def __init__(self, root: Any, type_system: Any, where: str, errors: AnnotationErrors) -> None:
        self._root = root
        self._types = type_system
        self._where = where
        self._errors = errors
        self._known: set[str] = set()
        self._features: dict[str, dict[str, Any]] = {}

    def check(self) -> dict[int, tuple[int, int, int]]:
        """Check all elements and return the places of the feature structures."""
        elements = [element for element in self._root.iterchildren("*") if element.tag not in STRUCTURAL]
        kept = [(element, name) for element in elements if (name := self._find_type(element)) is not None]
        places: dict[int, tuple[int, int, int]] = {}
        for element, name in kept:
            self._rename_features(element, name)
            line = element.sourceline or 0
            places[int(element.get(ID))] = (line, *self._read_offsets(element, name))
            self._check_references(element, name)
        for view in self._root.iterfind(f"{{{CAS_NAMESPACE}}}View"):
            members = (view.get("members") or "").split()
            self._report_missing(view, "a member of the view", members)
            view.set("members", " ".join(member for member in members if member in self._known))
        return places

    def _find_type(self, element: Any) -> str | None:
        """Return the type of an element; None for a faulty one, which is removed."""
        id_, match = element.get(ID) or "", PACKAGE.fullmatch(etree.QName(element).namespace or "")
        name = f"{match[1].replace('/', '.')}.{etree.QName(element).localname}" if match else ""
        name = name.removeprefix(NO_PACKAGE)
        if not name or not self._types.contains_type(name):
            found = f"the type {name or etree.QName(element).localname} is not in the type system"
            self._add(element, found, remedy="add the TypeSystem.xml of the same export")
        elif not NUMBER.fullmatch(id_) or id_ in self._known:
            found = "an id that occurs twice" if id_ in self._known else "an element without an id"
            self._add(element, found, allowed='xmi:id="NUMBER", different for each element')
        else:
            self._known.add(id_)
            return name
        self._root.remove(element)
        return None

    def _rename_features(self, element: Any, type_name: str) -> None:
        """Give features the names of dkpro-cassis, and remove those that the type does not have."""
        known = self._list_features(type_name)
        for name in [name for name in element.attrib if name != ID]:
            value = element.attrib.pop(name)
            if name_feature(name) in known:
                element.set(name_feature(name), value)
            else:
                self._add(element, f"{type_name} has no feature {name}", remedy="add the TypeSystem.xml of this export")
        for child in element.iterchildren("*"):
            if name_feature(child.tag) not in known:
                self._add(element, f"{type_name} has no feature {child.tag}")
                element.remove(child)
            else:
                child.tag = name_feature(child.tag)

    def _list_features(self, type_name: str) -> dict[str, Any]:
        if type_name not in self._features:
            features = self._types.get_type(type_name).all_features
            self._features[type_name] = {feature.name: feature for feature in features}
        return self._features[type_name]

    def _read_offsets(self, element: Any, type_name: str) -> tuple[int, int]:
        """Return the offsets of an annotation; dkpro-cassis gets numbers in any case."""
        if not self._types.is_instance_of(type_name, ANNOTATION):
            return -1, -1
        found = [element.get(name, "") for name in ("begin", "end")]
        if all(NUMBER.fullmatch(value) for value in found):
            return int(found[0]), int(found[1])
        for name in ("begin", "end"):
            element.set(name, "0")
        return -1, -1

    def _check_references(self, element: Any, type_name: str) -> None:
        for name, feature in self._list_features(type_name).items():
            value = element.get(name)
            if value is None or name == "sofa" or not self._is_reference(type_name, feature):
                continue
            targets = value.split()
            if not self._report_missing(element, f"{type_name}: {name}", targets):
                kept = [target for target in targets if target in self._known]
                if kept:
                    element.set(name, " ".join(kept))
                else:
                    del element.attrib[name]

    def _is_reference(self, type_name: str, feature: Any) -> bool:
        types, range_ = self._types, feature.rangeType
        if feature.name == "elements" and types.is_primitive_array(type_name):
            return False
        return not (types.is_primitive(range_) or types.is_primitive_array(range_) or types.is_primitive_list(range_))

    def _report_missing(self, element: Any, what: str, targets: list[str]) -> bool:
        """Add a problem for each id that does not exist, and return whether there is none."""
        missing = [target for target in targets if target not in self._known]
        for target in missing:
            self._add(element, f"{what} refers to {target}, which does not exist", allowed="the id of an element")
        return not missing

    def _add(self, element: Any, found: str, *, allowed: str = "", remedy: str = "") -> None:
        self._errors.add(f"{self._where}:{element.sourceline}", found, allowed=allowed, remedy=remedy)
