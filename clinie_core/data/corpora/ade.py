r"""The ADE corpus, version 2: sentences of case reports with drugs, their adverse effects and doses. It is read only.

Source: Gurulingappa et al. 2012, Journal of Biomedical Informatics 45(5), and the corpus' README. A line of
``DRUG-AE.rel`` or ``DRUG-DOSE.rel`` is a relation: ``PMID|sentence|effect|begin|end|drug|begin|end``, with a dose
instead of the effect. A line of ``ADE-NEG.txt`` is a sentence without an adverse effect, ``PMID NEG sentence``.

Each sentence of an abstract is a document, whose annotations are those of all its lines in the files of a folder. Its
id is ``PMID-NUMBER``, in the order of the lines. The metadata ``pmid`` can keep an abstract in one split.

Offsets count characters of ``PMID\n\ntitle\n\nabstract``, which is not in the release. A mention is searched in its
sentence. If it occurs several times, the offsets decide: the begin of the sentence that they imply has to agree with
that of the sentence's other mentions. It becomes the metadata ``begin``. The rest of the abstract is not available.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NoReturn

from clinie_core.data.corpora.corpus_format import CorpusFormat
from clinie_core.data.corpora.files import FileGroup, match_suffix, open_binary, read_lines
from clinie_core.data.corpora.reading import AnnotationErrors
from clinie_core.data.document import Concept, Document, Relation, Span
from clinie_core.errors import InputError, Problem, fail
from clinie_core.shown_ids import show_id

__all__ = ["Ade"]

REL, TXT = ".rel", ".txt"
DRUG, EFFECT, DOSE = "Drug", "Adverse-Effect", "Dose"
KINDS = {"drugae": (REL, EFFECT, "DRUG-AE"), "drugdose": (REL, DOSE, "DRUG-DOSE"), "adeneg": (TXT, "", "")}
"""Suffix, type of the first mention and type of the relation, by the letters of the file's name."""
NEGATIVE = re.compile(r"([0-9]{1,12})\s+NEG\s+(.*\S)\s*")
NUMBER = re.compile(r"[0-9]{1,12}")
PMID, BEGIN = "pmid", "begin"
FILES = "DRUG-AE.rel, DRUG-DOSE.rel and ADE-NEG.txt"


@dataclass(frozen=True)
class _Mention:
    """A mention with its offsets in the abstract."""

    type: str
    begin: int
    text: str = field(repr=False)


@dataclass(frozen=True)
class _Line:
    """A relation between a drug and an effect or dose."""

    where: str
    relation: str
    other: _Mention
    drug: _Mention


@dataclass
class _Sentence:
    """A sentence with its lines, and the place of the first."""

    pmid: str
    number: int
    text: str = field(repr=False)
    where: str
    lines: list[_Line] = field(default_factory=list, repr=False)


class Ade(CorpusFormat):
    """Folders with the three files of the corpus, or some of them."""

    example: ClassVar[str] = f"{FILES}, with lines PMID|sentence|effect|begin|end|drug|begin|end"
    files_without_documents: ClassVar[tuple[str, ...]] = ("README.txt",)
    read_only: ClassVar[bool] = True

    def group_files(self, files: Sequence[Path], root: Path) -> list[FileGroup]:
        """See :meth:`CorpusFormat.group_files`; the files of a folder are a group, relations first."""
        found: dict[Path, dict[str, Path]] = {}
        for file in sorted(files, key=lambda file: (_find_kind(file) == "adeneg", file)):
            if _find_kind(file) is not None:
                found.setdefault(file.parent, {})[file.name] = file
        return [FileGroup(folder.relative_to(root).as_posix(), found[folder]) for folder in sorted(found)]

    def group_file(self, file: Path) -> FileGroup | None:
        """See :meth:`CorpusFormat.group_file`."""
        return FileGroup(".", {file.name: file}) if _find_kind(file) else None

    def explain_unread_file(self, file: Path) -> Problem | None:
        """See :meth:`CorpusFormat.explain_unread_file`: relations in a file of another name."""
        if match_suffix(file.name, (REL,)) is None:
            return None
        return Problem(str(file), "its name does not tell the type of its annotations", allowed=FILES)

    def read_groups(self, groups: Iterable[FileGroup]) -> Iterator[Document | Problem]:
        """See :meth:`CorpusFormat.read_groups`; the files of a folder are read into memory."""
        seen: dict[str, str] = {}
        for group in groups:
            sentences: dict[tuple[str, str], _Sentence] = {}
            counts: Counter[str] = Counter()
            for file in group.files.values():
                yield from self._read_file(file, sentences, counts)
            for sentence in sentences.values():
                try:
                    document = self._build(sentence, "" if group.name == "." else f"{group.name}/")
                    if document.id in seen:
                        found = f"duplicate document id, first at {seen[document.id]}"
                        fail(sentence.where, found, remedy="rename one of the folders")
                except InputError as error:
                    yield from self.skip(error.problems)
                    continue
                yield from self.take_notices()
                seen[document.id] = sentence.where
                yield from self.validate(document, sentence.where)

    def write(self, documents: Iterable[Document], folder: Path) -> NoReturn:
        """See :meth:`CorpusFormat.write`.

        Raises:
            InputError: Always; the format contains no texts of documents.
        """
        fail(str(folder), "ade is read only", allowed="another format", remedy="write brat or jsonl")

    def round_trip(self, document: Document) -> NoReturn:
        """See :meth:`CorpusFormat.round_trip`.

        Raises:
            InputError: Always.
        """
        fail(show_id(document.id), "ade is read only", allowed="another format", remedy="write brat or jsonl")

    def _read_file(
        self, file: Path, sentences: dict[tuple[str, str], _Sentence], counts: Counter[str]
    ) -> Iterator[Problem]:
        """Add the lines of a file to the sentences, and yield the problems."""
        suffix, type_, relation = KINDS[_find_kind(file) or ""]
        parse = _parse_negative if suffix == TXT else _parse_relation
        try:
            with open_binary(file) as stream:
                for number, line in enumerate(read_lines(stream, str(file)), start=1):
                    where = f"{file}:{number}"
                    if not line.strip():
                        continue
                    try:
                        pmid, text, row = parse(line, where)
                    except InputError as error:
                        yield from self.skip(error.problems)
                        continue
                    if (pmid, text) not in sentences:
                        counts[pmid] += 1
                        sentences[pmid, text] = _Sentence(pmid, counts[pmid], text, where)
                    if row is not None:
                        other, begin, _, drug, drug_begin, _ = row
                        mentions = _Mention(type_, int(begin), other), _Mention(DRUG, int(drug_begin), drug)
                        sentences[pmid, text].lines.append(_Line(where, relation, *mentions))
        except InputError as error:
            yield from self.skip(error.problems, rest=True)

    def _build(self, sentence: _Sentence, prefix: str) -> Document:
        """Return the document of a sentence.

        Raises:
            InputError: If a mention is not in the sentence, and the options do not leave it out.
        """
        errors = self.collect_errors()
        places = _Places(sentence, errors)
        concepts: dict[tuple[str, Span], Concept] = {}
        relations: dict[tuple[str, str, str], Relation] = {}
        for line in sentence.lines:
            ends = []
            for mention in (line.drug, line.other):
                span = places.locate(line.where, mention)
                if span is not None:
                    key = mention.type, span
                    ends.append(concepts.setdefault(key, Concept(f"T{len(concepts) + 1}", mention.type, (span,))).id)
            if len(ends) == 2:
                relation = (line.relation, ends[0], ends[1])
                relations.setdefault(relation, Relation(f"R{len(relations) + 1}", *relation))
        errors.raise_if_any()
        begin = {BEGIN: str(places.begin)} if places.begin is not None else {}
        return Document(
            f"{prefix}{sentence.pmid}-{sentence.number}",
            sentence.text,
            tuple(concepts.values()),
            tuple(relations.values()),
            metadata={PMID: sentence.pmid} | begin,
        )


class _Places:
    """Places of the mentions in a sentence.

    Attributes:
        begin: Begin of the sentence in the abstract if all mentions agree.
    """

    def __init__(self, sentence: _Sentence, errors: AnnotationErrors) -> None:
        self._errors = errors
        self._text = sentence.text
        self._found: dict[str, list[Span]] = {}
        mentions = {mention for line in sentence.lines for mention in (line.drug, line.other)}
        self._votes = Counter(m.begin - span.start for m in mentions for span in self._search(m.text))
        agreed = [begin for begin, votes in self._votes.items() if votes == len(mentions)]
        self.begin = agreed[0] if len(agreed) == 1 else None

    def locate(self, where: str, mention: _Mention) -> Span | None:
        """Return the place of a mention, or add a problem if it is not in the sentence."""
        spans = self._search(mention.text)
        if not spans:
            found = f"the {mention.type} at {mention.begin} is not in the sentence"
            self._errors.add(where, found, allowed="a mention of the sentence")
            return None
        most = max(self._votes[mention.begin - span.start] for span in spans)
        best = [span for span in spans if self._votes[mention.begin - span.start] == most]
        if len(best) > 1:
            found = f"the {mention.type} at {mention.begin} is in the sentence {len(best)} times; the first is taken"
            self._errors.warn(where, found)
        return best[0]

    def _search(self, text: str) -> list[Span]:
        """Return all places of a mention, whose white space may differ."""
        if text not in self._found:
            pattern = r"\s+".join(map(re.escape, text.split()))
            matches = re.finditer(f"(?=({pattern}))", self._text) if pattern else ()
            self._found[text] = [Span(*match.span(1)) for match in matches]
        return self._found[text]


Row = tuple[str, str, Sequence[str] | None]
"""PubMed id, sentence, and the last six fields of a line with a relation."""


def _find_kind(file: Path) -> str | None:
    """Return the key of a file in ``KINDS``, None for other files."""
    match = match_suffix(file.name, (REL, TXT))
    if match is None:
        return None
    letters = re.sub(r"[^a-z]", "", match[0].casefold())
    return next((kind for kind, (suffix, *_) in KINDS.items() if kind in letters and suffix == match[1]), None)


def _parse_relation(line: str, where: str) -> Row:
    """Parse a line with a relation; only the sentence can contain a vertical bar."""
    pmid, bar, rest = line.partition("|")
    fields = rest.rsplit("|", 6)
    if not bar or len(fields) != 7 or not NUMBER.fullmatch(pmid):
        fail(where, "not a relation", allowed="PMID|sentence|mention|begin|end|drug|begin|end")
    if any(not NUMBER.fullmatch(fields[at].strip()) for at in (2, 3, 5, 6)):
        fail(where, "an offset is not a number", allowed="integers from 0")
    if not fields[0].strip():
        fail(where, "an empty sentence", allowed="text")
    return pmid, fields[0], fields[1:]


def _parse_negative(line: str, where: str) -> Row:
    match = NEGATIVE.fullmatch(line)
    if match is None:
        fail(where, "not a sentence without adverse effects", allowed="PMID NEG sentence")
    return match[1], match[2], None
