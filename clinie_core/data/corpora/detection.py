"""Detection of a corpus' format from the names and the first kilobytes of its files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.files import is_ignored, list_files, match_suffix, open_binary
from clinie_core.errors import InputError, fail
from clinie_core.shown_ids import hide_file_names

__all__ = ["AUTO", "Detection", "detect", "detect_format"]

AUTO = "auto"
"""Value of ``format`` for a format that is detected."""
HEAD_BYTES = 64 * 2**10
FILES_PER_SUFFIX = 5
"""Number of files of each suffix whose content is read."""

COMPANIONS = {".ann": "brat", ".a1": "bionlp", ".a2": "bionlp", ".con": "i2b2", ".ast": "i2b2"}
"""Formats of annotation files; if some have a text beside them, the others do not count."""

SUFFIXES = {
    ".spacy": "docbin",
    ".parquet": "Parquet",
    ".arrow": "Arrow",
    ".csv": "CSV",
    ".knowtator.xml": "Knowtator XML",
    ".doc": "Microsoft Word",
    ".docx": "Microsoft Word",
    ".pdf": "PDF",
}
REMEDIES = {
    "UIMA CAS JSON": "export as UIMA CAS XMI, and pass --format cas_xmi",
    "Parquet": "write JSON lines with tokens and ner_tags, and pass --format hf_jsonl",
    "PDF": "extract the text",
    "Microsoft Word": "extract the text",
}


@dataclass(frozen=True)
class _Signature:
    """Patterns that all occur in the first kilobytes of a format's files.

    Args:
        name: Name in ``FORMATS``, or of an unsupported format.
        patterns: Regular expressions; ``^`` matches at each line.
        absent: Regular expression that does not occur.
    """

    name: str
    patterns: tuple[str, ...]
    absent: str = r"(?!)"

    def matches(self, head: str) -> bool:
        found = all(re.search(pattern, head, re.MULTILINE) for pattern in self.patterns)
        return found and not re.search(self.absent, head, re.MULTILINE)


def _key(*names: str) -> str:
    """Return a pattern of one of several keys of a JSON object; a key quoted within a string does not match."""
    return rf'(?<!\\)"(?:{"|".join(names)})"\s*:'


JSON_START, XML_START = r"\A\s*[\[{]", r"\A\s*<"
COLUMNS = r"^(?!#)\S+[ \t](?:.*[ \t])?(?:O|[BIESLUM](?:-\S+)?)[ \t\r]*$"
COLUMN_FILE = rf"\A(?:{COLUMNS}(?:[\r\n]+|\Z))+\Z|{COLUMNS}(?:\n{COLUMNS}){{2}}"
SIGNATURES = (
    _Signature("jsonl", (r'\A\s*\{\s*"version"\s*:\s*\d+\s*,\s*"document"\s*:',)),
    _Signature("medcat", (JSON_START, _key("projects"), _key("documents"))),
    _Signature("UIMA CAS JSON", (JSON_START, _key("%TYPES", "%FEATURE_STRUCTURES"))),
    _Signature("bioc_json", (JSON_START, _key("passages"))),
    _Signature("radgraph", (JSON_START, _key("start_ix", "labeler_1"))),
    _Signature("label_studio", (JSON_START, _key("annotations", "completions"), _key("data"))),
    _Signature("label_studio", (JSON_START, _key("annotation_id"))),
    _Signature("Dataturks JSON", (JSON_START, _key("annotation"), _key("content"), _key("points"))),
    _Signature("SQuAD JSON", (JSON_START, _key("paragraphs"), _key("qas", "context"))),
    _Signature("DyGIE JSON lines", (JSON_START, _key("sentences"), _key("ner"))),
    _Signature("spacy_jsonl", (JSON_START, _key("text"), _key("spans", "_task_hash"))),
    _Signature("spacy_jsonl", (r'\A\s*\[\s*\[\s*"', _key("entities"))),
    _Signature("label_studio", (r"\A\s*\[", _key("labels"), _key("start"), _key("text"))),
    _Signature("hf_jsonl", (JSON_START, _key("tokens"), _key("ner_tags", "tags", "labels"))),
    _Signature("hf_jsonl", (r'\A\s*\{\s*"names"\s*:',)),
    _Signature("doccano", (JSON_START, _key("text", "data"), _key("label", "labels", "entities"))),
    _Signature("cas_xmi", (XML_START, r"<xmi:XMI\b")),
    _Signature("cas_xmi", (r"\APK\x03\x04", r"\.xmi|TypeSystem\.xml")),
    _Signature("GATE XML", (XML_START, r"<GateDocument\b")),
    _Signature("Knowtator XML", (XML_START, r"<annotations\s+textSource=|<knowtator-project\b")),
    _Signature("JATS or PubMed XML", (XML_START, r"<(?:article|PubmedArticleSet|pmc-articleset)\b")),
    _Signature("n2c2 2018 track 1 XML, which labels whole documents", (XML_START, r"<PatientMatching\b")),
    _Signature("bioc_xml", (XML_START, r"<collection\b", r"<(?:document|source)\b")),
    _Signature("ddi_xml", (XML_START, r"<document\b[^>]*\bid=", r"<sentence\b")),
    _Signature("i2b2_xml", (XML_START, r"<TEXT\b")),
    _Signature("webanno_tsv", (r"\A#FORMAT=WebAnno TSV 3",)),
    _Signature("WebAnno TSV of an earlier version than 3", (r"\A#FORMAT=WebAnno TSV|\A# webanno\.",)),
    _Signature("pubtator", (r"\A\s*[^\s|]+\|[ta]\|",)),
    _Signature("conll", (rf"\A\s*(?:-DOCSTART-|# newdoc id = )|{COLUMN_FILE}",)),
    _Signature("ade", (r"\A[0-9]+\|[^|\n]+\|[^|\n]+\|[0-9]+\|[0-9]+\|",)),
    _Signature("ade", (r"\A[0-9]+ NEG \S",)),
    _Signature("PDF", (r"\A%PDF-",)),
)


class Detection(NamedTuple):
    """A detected format.

    Args:
        format: Name in ``FORMATS``.
        file: A file from which it was detected.
        files: Number of files in which it was recognized; zero for texts without annotations.
    """

    format: str
    file: Path
    files: int

    def __str__(self) -> str:
        reason = f"detected from {hide_file_names(self.file.name)}" if self.files else "since there are only texts"
        return f"format {self.format}, {reason}"


def detect_format(path: Path, ignore: Sequence[str] = ()) -> str:
    """Return the name of a corpus' format in ``FORMATS``; see :func:`detect`."""
    return detect(path, ignore).format


def detect(path: Path, ignore: Sequence[str] = (), places: AbstractSet[Path] = frozenset()) -> Detection:
    """Detect the format of a corpus from the names of its files and the first kilobytes of some of them.

    Args:
        path: Folder or file.
        ignore: Patterns of files that are not part of the corpus.
        places: Files and folders below the path to which the corpus is restricted; all if empty.

    Raises:
        InputError: If no format or several formats are recognized, or only one that clinie cannot read.
    """
    if not path.exists():
        fail(str(path), "no such folder or file", remedy="check the path")
    files = [path] if path.is_file() else list_files(path)
    root = path if path.is_dir() else path.parent
    files = [file for file in files if not is_ignored(file.relative_to(root), ignore)]
    if places:
        files = [file for file in files if file in places or not places.isdisjoint(file.parents)]
    found: dict[str, list[Path]] = {}
    for name, file in _recognize(files):
        found.setdefault(name, []).append(file)
    texts = [file for file in files if match_suffix(file.name, (".txt",))]
    if texts and not found:
        return Detection("brat", texts[0], 0)
    supported = {name: hits for name, hits in found.items() if name in FORMATS}
    if len(supported) != 1:
        _reject(path, root, supported, found)
    name, hits = next(iter(supported.items()))
    return Detection(name, hits[0], len(hits))


def _reject(path: Path, root: Path, supported: dict[str, list[Path]], found: dict[str, list[Path]]) -> NoReturn:
    """Raise the error for a corpus of no format, of several formats, or of one that clinie cannot read."""
    remedy = "pass --format NAME; `clinie data formats` lists all"
    if supported:
        names = ", ".join(f"{name} ({hits[0].relative_to(root)})" for name, hits in supported.items())
        fail(str(path), f"files of several formats: {names}", allowed="one", remedy=f"{remedy}, or use --ignore")
    if not found:
        fail(str(path), "the format of the files is not recognized", allowed=", ".join(FORMATS), remedy=remedy)
    name, hits = next(iter(found.items()))
    fail(
        str(hits[0]),
        f"the format is {name}, which is not supported",
        allowed=", ".join(FORMATS),
        remedy=REMEDIES.get(name, "convert the files to one of these formats"),
    )


def _recognize(files: list[Path]) -> Iterable[tuple[str, Path]]:
    """Yield the formats of files, first by names alone, otherwise by the content of a few files of each suffix."""
    for file in files:
        if file.name in ("dataset_info.json", "dataset_dict.json"):
            yield "hf_dataset", file
            return
    companions = [(match, file) for file in files if (match := match_suffix(file.name, tuple(COMPANIONS)))]
    if companions:
        texts = {(file.parent, match[0]) for file in files if (match := match_suffix(file.name, (".txt",)))}
        beside = [(match, file) for match, file in companions if (file.parent, match[0]) in texts]
        yield from ((COMPANIONS[match[1]], file) for match, file in beside or companions)
        return
    read: dict[str, int] = {}
    for file in files:
        suffix = next((s for s in SUFFIXES if match_suffix(file.name, (s,))), None)
        if suffix is not None:
            yield SUFFIXES[suffix], file
            continue
        kind = file.suffix.casefold()
        read[kind] = read.get(kind, 0) + 1
        if read[kind] <= FILES_PER_SUFFIX:
            name = _recognize_content(file)
            if name is not None:
                yield name, file


def _recognize_content(file: Path) -> str | None:
    try:
        with open_binary(file) as stream:
            head = stream.read(HEAD_BYTES).decode(errors="replace")
    except InputError:  # the error of a file that cannot be read is reported when the corpus is read
        return None
    return next((signature.name for signature in SIGNATURES if signature.matches(head)), None)
