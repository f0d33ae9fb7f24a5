"""The 2010 i2b2/VA format: a text ``NAME.txt`` with ``NAME.con``, ``NAME.rel`` and ``NAME.ast``.

Source: Uzuner et al. 2011, JAMIA 18(5), and the task's annotation files. A position is ``LINE:TOKEN`` with
1-based lines and 0-based tokens, which white space separates; both ends are inclusive. The annotation files
repeat each mention in lower case.

The annotation files are beside the text or, as in the released corpus, in sibling folders such as ``txt``,
``concept``, ``rel`` and ``ast``, or in another folder of the same split.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from clinie_core.data.corpora.checking import normalize_whitespace
from clinie_core.data.corpora.corpus_format import StandoffFormat
from clinie_core.data.corpora.files import FileGroup, match_suffix
from clinie_core.data.corpora.reading import AnnotationErrors
from clinie_core.data.corpora.split_names import find_split
from clinie_core.data.corpora.tokens import find_tokens
from clinie_core.data.document import Attribute, Concept, Document, Relation, Span, find_overlapping_spans
from clinie_core.errors import Problem

__all__ = ["I2b2"]

ASSERTION = "assertion"
FOLDERS = {
    ".txt": ("txt", "text", "texts"),
    ".con": ("con", "concept", "concepts"),
    ".rel": ("rel", "relation", "relations"),
    ".ast": ("ast", "assertion", "assertions"),
}
"""Names of the sibling folders that contain the files of one suffix, in lower case."""
UNANNOTATED = "unannotated"
"""Name of the released folder of texts without annotations, which are not documents without concepts."""
PLACE = r'c="(.*)" ([0-9]{1,9}):([0-9]{1,9}) ([0-9]{1,9}):([0-9]{1,9})'
CONCEPT_LINE = re.compile(PLACE + r'\|\|t="([^"]+)"')
RELATION_LINE = re.compile(PLACE + r'\|\|r="([^"]+)"\|\|' + PLACE)
ASSERTION_LINE = re.compile(PLACE + r'\|\|t="([^"]+)"\|\|a="([^"]+)"')


class I2b2(StandoffFormat):
    """Folders of texts with files of concepts, relations and assertions."""

    example: ClassVar[str] = "NAME.txt with NAME.con, NAME.rel and NAME.ast beside it or in sibling folders"
    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".con", ".rel", ".ast")

    def group_files(self, files: Sequence[Path], root: Path) -> list[FileGroup]:
        """See :meth:`StandoffFormat.group_files`; annotations may be in other folders of the same split."""
        files = [file for file in files if not _is_unannotated(file)]
        groups = super().group_files(files, root)
        grouped = {file for group in groups for file in group.files.values()}
        parts: defaultdict[str | None, tuple[list[FileGroup], list[Path]]] = defaultdict(lambda: ([], []))
        for group in groups:
            parts[_find_split(group.main, root)][0].append(group)
        for file in files:
            if file not in grouped:
                parts[_find_split(file, root)][1].append(file)
        attached = [group for part in parts.values() for group in self.attach_files(*part)]
        return sorted(attached, key=lambda group: group.name)

    def attach_files(self, groups: Sequence[FileGroup], files: Sequence[Path]) -> list[FileGroup]:
        """See :meth:`CorpusFormat.attach_files`.

        An annotation file belongs to the text of the same name in a sibling folder, else to the only text of that
        name. A document's name does not contain the folder of the texts if the annotations are beside that folder.
        """
        keys = {group.main: _strip_folder(group.main, ".txt") for group in groups}
        siblings, namesakes = defaultdict[Path, list[Path]](list), defaultdict[str, list[Path]](list)
        for main, key in keys.items():
            siblings[key].append(main)
            namesakes[key.name].append(main)
        files_of = {group.main: dict(group.files) for group in groups}
        folders = set()
        for file in files:
            match = match_suffix(file.name, self.suffixes[1:])
            if match is None:
                continue
            key = _strip_folder(file, match[1])
            folders.add(key.parent)
            texts = siblings.get(key) or namesakes.get(key.name, [])
            if len(texts) == 1:
                files_of[texts[0]].setdefault(match[1], file)
        names = {group.main: group.name for group in groups}
        for main, key in keys.items():
            if key.parent in folders and key.parent != main.parent:
                *parents, stem = names[main].split("/")
                names[main] = "/".join((*_remove_folder(parents, ".txt"), stem))
        counts = Counter(names.values())
        return [
            FileGroup(
                names[group.main] if counts[names[group.main]] == 1 else group.name,
                {s: files_of[group.main][s] for s in self.suffixes if s in files_of[group.main]},
            )
            for group in groups
        ]

    def explain_unread_file(self, file: Path) -> Problem | None:
        """See :meth:`StandoffFormat.explain_unread_file`."""
        if _is_unannotated(file):
            remedy = f"pass --ignore {file.parent.name}, or set corpus.ignore: [{file.parent.name}] in a space"
            return Problem(str(file.parent), "a folder of texts without annotations is not read", remedy=remedy)
        if match_suffix(file.name, self.suffixes) is None:
            return None
        remedy = "add the text, or remove the annotations"
        return Problem(str(file), "there is no text of this name, or the file is one of several", remedy=remedy)

    def parse(self, name: str, where: Mapping[str, str], files: Mapping[str, str]) -> Document:
        """See :meth:`StandoffFormat.parse`."""
        parser = _Parser(where, files, self.collect_errors())
        parser.parse()
        parser.errors.raise_if_any()
        text = files[".txt"]
        return Document(name, text, tuple(parser.concepts), tuple(parser.relations), tuple(parser.attributes))

    def render(self, document: Document) -> dict[str, str]:
        """See :meth:`StandoffFormat.render`; concepts are extended to whole tokens."""
        lines = _tokenize_lines(document.text)
        flat = [span for line in lines for span in line]
        places = [f"{row}:{column}" for row, line in enumerate(lines, start=1) for column in range(len(line))]
        marks = {}
        for concept in document.concepts:
            tokens = find_overlapping_spans(flat, concept.start, concept.end)
            if tokens is not None:
                text = document.text[flat[tokens[0]].start : flat[tokens[1]].end]
                marks[concept.id] = f'c="{normalize_whitespace(text).lower()}" {places[tokens[0]]} {places[tokens[1]]}'
        types = {c.id: c.type for c in document.concepts}
        con = [f'{marks[c.id]}||t="{_replace_quotes(c.type)}"' for c in document.concepts if c.id in marks]
        rel = [
            f'{marks[r.head]}||r="{_replace_quotes(r.type)}"||{marks[r.tail]}'
            for r in document.relations
            if r.head in marks and r.tail in marks
        ]
        ast = [
            f'{marks[a.target]}||t="{_replace_quotes(types[a.target])}"||a="{_replace_quotes(a.value)}"'
            for a in document.attributes
            if a.type == ASSERTION and a.value and a.target in marks
        ]
        contents = {".con": con, ".rel": rel, ".ast": ast}
        return {".txt": document.text} | {s: "".join(f"{line}\n" for line in rows) for s, rows in contents.items()}


def _is_unannotated(file: Path) -> bool:
    return file.parent.name.casefold() == UNANNOTATED


def _find_split(file: Path, root: Path) -> str | None:
    """Return the split that the outermost folder of a path names."""
    return next((split for split in map(find_split, file.relative_to(root).parts[:-1]) if split is not None), None)


def _strip_folder(file: Path, suffix: str) -> Path:
    """Return the path without its suffix and without the innermost folder that is named after the suffix."""
    match = match_suffix(file.name, (suffix,))
    return Path(*_remove_folder(file.parts[:-1], suffix), match[0] if match else file.name)


def _remove_folder(folders: Sequence[str], suffix: str) -> list[str]:
    at = next((i for i in reversed(range(len(folders))) if folders[i].casefold() in FOLDERS[suffix]), None)
    return [folder for i, folder in enumerate(folders) if i != at]


def _replace_quotes(name: str) -> str:
    return " ".join(name.replace('"', "'").split())


def _tokenize_lines(text: str) -> list[list[Span]]:
    """Return the token spans of each line."""
    lines, at = [], 0
    for line in text.split("\n"):
        lines.append([Span(at + s.start, at + s.end) for s in find_tokens(line, words=False)])
        at += len(line) + 1
    return lines


class _Parser:
    """Parser of the three annotation files of one text."""

    def __init__(self, where: Mapping[str, str], files: Mapping[str, str], errors: AnnotationErrors) -> None:
        self._where = where
        self._files = files
        self._text = files[".txt"]
        self._lines = _tokenize_lines(self._text)
        self.errors = errors
        self.concepts: list[Concept] = []
        self.relations: list[Relation] = []
        self.attributes: list[Attribute] = []
        self._at: dict[tuple[Span, str | None], str] = {}

    def parse(self) -> None:
        """Parse concepts, then the relations and assertions that refer to them."""
        for where, groups in self._match_lines(".con", CONCEPT_LINE, '\'c="mention" 1:0 1:2||t="type"\''):
            span = self._resolve_span(where, groups[:5])
            if span is not None:
                concept = Concept(f"T{len(self.concepts) + 1}", groups[5], (span,))
                self.concepts.append(concept)
                self._at.setdefault((span, concept.type), concept.id)
                self._at.setdefault((span, None), concept.id)
        for where, groups in self._match_lines(".rel", RELATION_LINE, '\'c="..." 1:0 1:2||r="type"||c="..." 1:4 1:4\''):
            head, tail = self._find_concept(where, groups[:5]), self._find_concept(where, groups[6:])
            if head and tail:
                self.relations.append(Relation(f"R{len(self.relations) + 1}", groups[5], head, tail))
        for where, groups in self._match_lines(".ast", ASSERTION_LINE, '\'c="..." 1:0 1:2||t="type"||a="assertion"\''):
            target = self._find_concept(where, groups[:5], groups[5])
            if target:
                self.attributes.append(Attribute(f"A{len(self.attributes) + 1}", ASSERTION, target, groups[6]))

    def _match_lines(self, suffix: str, pattern: re.Pattern[str], allowed: str) -> list[tuple[str, tuple[str, ...]]]:
        rows = []
        for number, line in enumerate(self._files.get(suffix, "").split("\n"), start=1):
            where, content = f"{self._where[suffix]}:{number}", line.strip()
            match = pattern.fullmatch(content)
            if match:
                rows.append((where, match.groups()))
            elif content:
                self.errors.add(where, f"not a line of a {suffix} file", allowed=allowed)
        return rows

    def _resolve_span(self, where: str, groups: tuple[str, ...]) -> Span | None:
        mention, rows = groups[0], [int(n) for n in groups[1:]]
        ends = []
        for row, column in (rows[:2], rows[2:]):
            if not 1 <= row <= len(self._lines) or column >= len(self._lines[row - 1]):
                found = f"{row}:{column} is not a token of the text"
                self.errors.add(where, found, allowed="LINE from 1, TOKEN from 0")
                return None
            ends.append(self._lines[row - 1][column])
        if ends[1].end <= ends[0].start:
            self.errors.add(where, "the concept ends before it begins", allowed="first token, then last token")
            return None
        span = Span(ends[0].start, ends[1].end)
        text_at_offsets = self._text[span.start : span.end]
        return span if self.errors.check_mention(where, "c", mention, text_at_offsets, any_case=True) else None

    def _find_concept(self, where: str, groups: tuple[str, ...], type_: str | None = None) -> str | None:
        span = self._resolve_span(where, groups)
        if span is None:
            return None
        id_ = self._at.get((span, type_))
        if id_ is None:
            self.errors.add(where, "no such concept in the .con file", allowed="a concept of this text")
        return id_
