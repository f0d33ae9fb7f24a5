"""Conversion between corpus formats, one document at a time, with a report of the lost information."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.corpus_format import CorpusFormat
from clinie_core.data.corpora.document_comparison import count_differences
from clinie_core.data.corpora.loading import (
    CorpusSource,
    check_source,
    find_count_difference,
    find_files,
    read_split,
)
from clinie_core.data.document import Document
from clinie_core.errors import ErrorList, Problem, fail
from clinie_core.output_files import require_empty_folder, stage_folder

__all__ = ["ConversionReport", "convert", "load_target_format"]


@dataclass
class ConversionReport:
    """Result of a conversion.

    Args:
        documents: Number of documents written, by split.
        lost: Number of items that the new format cannot represent, by kind.
        lossy_documents: Number of documents that lost an item.
        notices: Warnings, and the annotations and documents of the corpus that were left out on request.
        files: Number of files that were read.
        concepts: Number of concepts that were read.
    """

    documents: dict[str, int] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    lossy_documents: int = 0
    notices: list[Problem] = field(default_factory=list)
    files: int = 0
    concepts: int = 0


def load_target_format(name: str) -> CorpusFormat:
    """Return the format that the option ``--to`` names.

    Raises:
        InputError: If it does not exist or is read only.
    """
    format_ = FORMATS.load(name, "--to")
    if format_.read_only:
        others = ", ".join(other for other in FORMATS if not FORMATS.load(other).read_only)
        fail("--to", f"{name} is read only", allowed=others)
    return format_()


def convert(source: CorpusSource, format_: str, folder: Path, *, overwrite: bool = False) -> ConversionReport:
    """Write a corpus in another format.

    Each document is rendered, read back and compared with the original before it is written.

    Args:
        source: The corpus.
        format_: Name of the target format in ``FORMATS``.
        folder: The target folder, new or empty. Each split becomes a subfolder, unless
            the corpus has only a training split.
        overwrite: Replace files of the same name in a folder that is not empty.

    Raises:
        InputError: With all problems of the corpus, which include files that the format does not read, or
            if ``folder`` cannot be written. Nothing is written to ``folder`` then.
    """
    errors = ErrorList()
    errors.extend(check_source(source))
    errors.raise_if_any()
    files = find_files(source)
    errors.extend(files.problems)
    target = load_target_format(format_)
    require_empty_folder(folder, overwrite=overwrite)
    if Path(source.path).resolve() in folder.resolve().parents and folder.is_dir() and any(folder.iterdir()):
        fail(str(folder), "is in the corpus and is not empty", allowed="a folder outside the corpus")
    report = ConversionReport(files=files.count_files())
    with stage_folder(folder) as part:
        for split in files.splits:
            place = part if list(files.splits) == ["train"] else part / split
            target.write(_render_and_compare(read_split(source, split, files), split, target, report, errors), place)
        errors.raise_if_any()
        report.notices = errors.notices + find_count_difference(source, report.documents)
    return report


def _render_and_compare(
    items: Iterator[Document | Problem], split: str, target: CorpusFormat, report: ConversionReport, errors: ErrorList
) -> Iterator[Document]:
    report.documents[split] = 0
    for item in items:
        if isinstance(item, Problem):
            errors.extend([item])
        elif not len(errors):
            lost = count_differences(item, target.round_trip(item))
            report.lost += lost
            report.lossy_documents += bool(lost)
            report.documents[split] += 1
            report.concepts += len(item.concepts)
            yield item
