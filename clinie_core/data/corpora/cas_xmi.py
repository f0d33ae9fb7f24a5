"""UIMA CAS XMI, the export of INCEpTION, WebAnno and other tools that are based on UIMA.

Source: https://uima.apache.org/d/uimaj-current/ref.html (chapter on XMI), and the appendix on formats of
https://inception-project.github.io/documentation. A document is an ``.xmi`` file with a type system
``TypeSystem.xml`` in its folder or one above, or a zip file with both. dkpro-cassis reads and writes the files.
Offsets count UTF-16 units.

An annotation of a span layer becomes a concept. Its type is the feature ``value``, ``label`` or ``type``, else the
only one with text, else the name of the layer. A layer with the features ``Governor`` and ``Dependent``, or a
similar pair, contains relations. A reference from one annotation to another, such as a slot, is a relation too.
The feature ``identifier`` becomes a normalization, and further ones attributes. Layers of tokens, such as part of
speech, are not read. Chains, relations between tokens and further views are not read, with a warning.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from clinie_core.data.corpora.archive import unpack
from clinie_core.data.corpora.cas_files import import_cassis, load_cas, load_type_system
from clinie_core.data.corpora.cas_reader import build_document
from clinie_core.data.corpora.cas_writer import TypeSystemBuilder, render_cas
from clinie_core.data.corpora.corpus_format import StandoffFormat
from clinie_core.data.corpora.files import (
    FileGroup,
    decode_text,
    list_files,
    make_file_name,
    make_file_names,
    match_suffix,
    read_text,
)
from clinie_core.data.document import Document
from clinie_core.errors import InputError, Problem, fail
from clinie_core.shown_ids import show_id

__all__ = ["CasXmi"]

XMI, XML, ZIP, TYPES = ".xmi", ".xml", ".zip", "TypeSystem.xml"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class CasXmi(StandoffFormat):
    """One XMI file or zip file per document, with a type system."""

    example: ClassVar[str] = "NAME.xmi with TypeSystem.xml in its folder or one above, or NAME.zip with both"
    suffixes: ClassVar[tuple[str, ...]] = (XMI, XML, ZIP)

    def group_files(self, files: Sequence[Path], root: Path) -> list[FileGroup]:
        """See :meth:`CorpusFormat.group_files`; an XMI file and the nearest type system are a group."""
        groups = []
        types_of = {file.parent: file for file in sorted(files, key=_order_type_system) if _is_type_system(file)}
        for file in files:
            match = match_suffix(file.name, self.suffixes)
            if match is not None and not _is_type_system(file):
                name = (file.relative_to(root).parent / match[0]).as_posix()
                types = _find_type_system(file, root, types_of) if match[1] != ZIP else None
                groups.append(FileGroup(name, {match[1]: file} | ({TYPES: types} if types else {})))
        return sorted(groups, key=lambda group: group.name)

    def explain_unread_file(self, file: Path) -> Problem | None:
        """See :meth:`CorpusFormat.explain_unread_file`: a type system without documents."""
        if _is_type_system(file):
            return Problem(str(file), "a type system without documents", remedy="add the XMI files or remove it")
        return None

    def read_groups(self, groups: Iterable[FileGroup]) -> Iterator[Document | Problem]:
        """See :meth:`CorpusFormat.read_groups`."""
        reported: set[Problem] = set()
        seen: dict[str, Path] = {}
        try:
            import_cassis()
        except InputError as error:
            yield from error.problems
            return
        for group in groups:
            try:
                if group.name in seen:
                    fail(str(group.main), f"another file is {show_id(group.name)} too", remedy="remove or rename one")
                seen[group.name] = group.main
                where, files = _read_files(group)
                document = self.parse(group.name, where, files)
            except InputError as error:
                # Documents that share a faulty type system would repeat its problems.
                yield from self.skip(problem for problem in error.problems if problem not in reported)
                reported.update(error.problems)
            else:
                yield from self.take_notices()
                yield from self.validate(document, where[XMI])

    def parse(self, name: str, where: Mapping[str, str], files: Mapping[str, str]) -> Document:
        """See :meth:`StandoffFormat.parse`."""
        types = _load_types(files[TYPES], where[TYPES])
        errors = self.collect_errors()
        cas = load_cas(files[XMI], types, where[XMI], errors)
        return build_document(cas, where[XMI], name, errors)

    def render(self, document: Document) -> dict[str, str]:
        """See :meth:`StandoffFormat.render`; a discontinuous concept is written as its whole extent."""
        return {XMI: render_cas(document)}

    def write(self, documents: Iterable[Document], folder: Path) -> None:
        """See :meth:`StandoffFormat.write`; one type system describes all documents."""
        if isinstance(documents, Sequence):
            make_file_names(document.id for document in documents)
        types = TypeSystemBuilder()

        def add_features() -> Iterator[Document]:
            for document in documents:
                types.add(document)
                yield document

        super().write(add_features(), folder)
        with (folder / TYPES).open("x", encoding="utf-8", newline="") as stream:
            stream.write(types.render())

    def round_trip(self, document: Document) -> Document:
        """See :meth:`CorpusFormat.round_trip`."""
        types = TypeSystemBuilder()
        types.add(document)
        where = {XMI: f"{show_id(document.id)}{XMI}", TYPES: TYPES}
        return self.parse(make_file_name(document.id), where, self.render(document) | {TYPES: types.render()})


@lru_cache(maxsize=4)
def _load_types(content: str, where: str) -> Any:
    """Return a type system, which the documents of a folder share."""
    return load_type_system(content, where)


def _is_type_system(file: Path) -> bool:
    return file.name.casefold().endswith(TYPES.casefold())


def _order_type_system(file: Path) -> tuple[bool, str]:
    """Return a key that sorts the file with the standard name last, which a dictionary keeps."""
    return file.name.casefold() == TYPES.casefold(), file.name


def _find_type_system(file: Path, root: Path, types_of: Mapping[Path, Path]) -> Path | None:
    """Return the type system in the folder of a file or the nearest one above, up to the parent of the root.

    The root can be the folder of a split, beside which the type system is.
    """
    for folder in file.parents:
        if folder in types_of:
            return types_of[folder]
        if folder == root:
            break
    beside = [root.parent / name for name in (TYPES, TYPES.casefold())]
    return next((candidate for candidate in beside if os.path.isfile(candidate)), None)


def _read_files(group: FileGroup) -> tuple[dict[str, str], dict[str, str]]:
    """Return the name and the content of the XMI file and of the type system of a document.

    Raises:
        InputError: If a file is missing or cannot be read.
    """
    if ZIP in group.files:
        return _read_zip(group.main)
    if TYPES not in group.files:
        remedy = "copy it from the export, which contains it as a file of its own"
        fail(
            str(group.main), "the type system is missing", allowed=f"{TYPES} in the folder or one above", remedy=remedy
        )
    files = {XMI: group.main, TYPES: group.files[TYPES]}
    return {kind: str(file) for kind, file in files.items()}, {kind: read_text(file) for kind, file in files.items()}


def _read_zip(file: Path) -> tuple[dict[str, str], dict[str, str]]:
    if not zipfile.is_zipfile(file):
        fail(str(file), "not a zip file", allowed=f"a zip file with one {XMI} file and {TYPES}")
    files: dict[str, list[Path]] = {XMI: [], TYPES: []}
    with unpack(file) as folder:
        members = list_files(folder)
        for member in members:
            kind = TYPES if _is_type_system(member) else member.suffix.casefold()
            files.setdefault(kind, []).append(member)
        if {kind: len(found) for kind, found in files.items()} != {XMI: 1, TYPES: 1}:
            found = f"{len(members)} files, {len(files[XMI])} of them {XMI} and {len(files[TYPES])} {TYPES}"
            fail(str(file), found, allowed=f"one {XMI} file and {TYPES}", remedy="unpack it")
        where = {kind: f"{file}/{found[0].name}" for kind, found in files.items()}
        content = {kind: found[0].read_bytes().removeprefix(BYTE_ORDER_MARK) for kind, found in files.items()}
    return where, {kind: decode_text(content[kind], where[kind]) for kind in content}
