"""Commands that write, check, count, convert and split corpora."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.corpus_options import CorpusOptions, expand_corpus_options, find_corpus_files, read_items
from search.cli.options import (
    AsJson,
    Command,
    Ids,
    Overwrite,
    console,
    print_json,
    print_notices,
)
from search.cli.scores import score

if TYPE_CHECKING:
    from clinie_core.data.corpora.discovery import CorpusFiles
    from clinie_core.data.corpora.loading import CorpusSource
    from clinie_core.data.corpora.summary import CorpusSummary
    from clinie_core.errors import Problem
    from search.cli.corpus_limits import CorpusLimits

app = typer.Typer(help="Write, check, count, convert and split corpora.", no_args_is_help=True)

NewFolder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Folder to write to; new or empty, unless --overwrite is given.")
]


def synth(
    folder: NewFolder,
    documents: Annotated[int, typer.Option(help="Number of notes: 70 % train, 15 % dev, 15 % test.", min=10)] = 300,
    seed: Annotated[int, typer.Option(help="Random seed; equal seeds write equal corpora.")] = 13,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a synthetic corpus of clinical notes in brat format.

    It contains discharge summaries, radiology reports and social histories.
    """
    from clinie_core.data.corpora.brat import Brat
    from clinie_core.data.corpora.synthetic import generate_splits
    from clinie_core.output_files import require_empty_folder, stage_folder

    require_empty_folder(folder, overwrite=overwrite)
    splits = generate_splits(documents, seed)
    with stage_folder(folder) as part:
        for split, notes in splits.items():
            Brat().write(notes, part / split)
    if as_json:
        print_json({"folder": str(folder), "documents": {split: len(notes) for split, notes in splits.items()}})
        return
    console().print(f"{documents} notes in {folder}: " + ", ".join(f"{len(n)} {s}" for s, n in splits.items()))


def formats(as_json: AsJson = False) -> None:
    """List the corpus formats with an example of each."""
    from clinie_core.data.corpora import FORMATS

    rows = {name: FORMATS.load(name).example for name in FORMATS}
    if as_json:
        print_json(rows)
        return
    for name, example in rows.items():
        console().print(f"[bold]{name:<13}[/bold]{example}".replace("[{", r"\[{"), highlight=False, soft_wrap=True)


def _summarize(source: CorpusSource, files: CorpusFiles, limits: CorpusLimits | None = None) -> CorpusSummary:
    """Read a corpus and count its annotations.

    Args:
        source: The corpus.
        files: Its files.
        limits: Counts the concepts that models can express.

    Raises:
        InputError: If the corpus has problems; the error lists all of them.
    """
    from clinie_core.data.corpora.summary import CorpusSummary
    from clinie_core.errors import ErrorList, Problem

    errors, summary = ErrorList(), CorpusSummary()
    errors.extend(files.problems)
    for split, item in read_items(source, files):
        problem = item if isinstance(item, Problem) else summary.add(split, item)
        errors.extend([problem] if problem else [])
        if limits is not None and not isinstance(item, Problem):
            limits.add(split, item)
    errors.raise_if_any()
    summary.notices = errors.notices
    return summary


@expand_corpus_options
def check(
    corpus: CorpusOptions,
    space: Annotated[
        str | None, typer.Option(help="Space whose formulations are checked: the concepts that each can express.")
    ] = None,
    ids: Ids = "plain",
    as_json: AsJson = False,
) -> None:
    """Check a corpus for errors and for annotations that a model cannot represent.

    Exits with 2 if there are errors, with 0 if there are only warnings. Files that are not read, and a corpus
    or a train split without concepts, are errors.
    """
    from clinie_core.data.corpora.loading import find_count_difference, find_missing_annotations
    from clinie_core.errors import InputError
    from search.cli.corpus_limits import CorpusLimits

    limits = CorpusLimits(space)
    with corpus.open(quiet=as_json) as source:
        files = find_corpus_files(source)
        summary = _summarize(source, files, limits)
        concepts = {split: summary.items["concepts"][split].total() for split in summary.documents}
        missing = find_missing_annotations(source, concepts)
        if missing:
            raise InputError(missing)
        warnings = summary.warnings() + _find_undeclared_types(source, files, summary)
        warnings += [notice for notice in summary.notices if notice.severity == "warning"]
        warnings += find_count_difference(source, summary.documents)
        left_out = [notice for notice in summary.notices if notice.severity != "warning"]
    formulations, limit_warnings = limits.measure()
    warnings += limit_warnings
    splits = {
        split: {
            "documents": count,
            "unread_files": files.ignored[split],
            "concepts": concepts[split],
            "overlapping": summary.overlapping[split],
            **limits.as_json(split),
        }
        for split, count in summary.documents.items()
    }
    if as_json:
        print_json(
            {
                "format": source.format,
                "documents": dict(summary.documents),
                "files": files.count_files(),
                "splits": splits,
                "unread_files": files.ignored.total(),
                "warnings": [str(w) for w in warnings],
                "left_out": [f"{n.severity} {n}" for n in left_out],
                "concepts": dict(summary.representation),
                "representable": [row.as_json() for row in formulations],
            }
        )
        return
    out = console()
    total = summary.documents.total()
    out.print(
        f"{total} documents read from {files.count_files()} files, {files.ignored.total()} files ignored, no errors"
    )
    for warning in warnings:
        out.print(f"[yellow]warning[/yellow] {warning}", soft_wrap=True)
    print_notices(left_out)
    _print_splits(splits)
    out.print("concepts: " + ", ".join(f"{count:,} {name}" for name, count in summary.representation.items()))
    for row in formulations:
        out.print(f"maximum recall of exact concepts: {row}", soft_wrap=True)


def _print_splits(splits: dict[str, dict[str, Any]]) -> None:
    """Print the counts of each split as a table; what is counted by type or reason is only part of the JSON."""
    from rich.table import Table

    table = Table(header_style="bold", box=None, padding=(0, 1))
    table.add_column("")
    columns = ("documents", "unread_files", "concepts", "overlapping")
    for column in (*columns, "representable"):
        table.add_column(column.replace("_", " "), justify="right")
    for split, counts in splits.items():
        share = f"{100 * counts['representable']:.2f} %"
        table.add_row(split, *(f"{counts[column]:,}" for column in columns), share)
    console().print(table)


def _find_undeclared_types(source: CorpusSource, files: CorpusFiles, summary: CorpusSummary) -> list[Problem]:
    """Return a problem for each type that a brat corpus uses and its annotation.conf does not declare."""
    from clinie_core.data.corpora.brat import read_declared_types
    from clinie_core.errors import Problem

    legal = None
    if source.format == "brat":
        groups = [group for part in files.splits.values() for group in part.groups] + files.pool
        folders = dict.fromkeys((Path(source.path), *(group.main.parent for group in groups)))
        legal = next((types for types in map(read_declared_types, folders) if types is not None), None)
    if legal is None:
        return []
    declared = legal.get("entities", frozenset()) | legal.get("events", frozenset())
    used = set().union(*summary.items["concepts"].values())
    return [
        Problem(
            "annotation.conf", f"type {type_} is used but not declared", remedy="declare it, or correct the annotations"
        )
        for type_ in sorted(used - declared)
    ]


@expand_corpus_options
def stats(
    corpus: CorpusOptions,
    ids: Ids = "plain",
    as_json: AsJson = False,
) -> None:
    """Count documents, characters and annotations of a corpus by type and split."""
    from rich.table import Table

    with corpus.open(quiet=as_json) as source:
        summary = _summarize(source, find_corpus_files(source))
    counts = summary.to_json()
    if as_json:
        print_json(counts)
        return
    table = Table(header_style="bold", box=None, padding=(0, 2))
    table.add_column("")
    for split in counts:
        table.add_column(split, justify="right")
    rows = [(group, name) for group in next(iter(counts.values())) for name in _list_names(counts, group)]
    for group, name in rows:
        label = f"{group}: {name}" if name else group
        cells = (split[group].get(name, 0) if name else split[group] for split in counts.values())
        table.add_row(label, *(f"{cell:,}" for cell in cells))
    console().print(table)
    print_notices(summary.notices)


def _list_names(counts: dict[str, dict[str, Any]], group: str) -> list[str]:
    """Return the names that a group of counts has in any split; one empty name for a group that is a number."""
    if any(not isinstance(split[group], dict) for split in counts.values()):
        return [""]
    return sorted({name for split in counts.values() for name in split[group]})


@expand_corpus_options
def convert(
    corpus: CorpusOptions,
    folder: NewFolder,
    to: Annotated[str, typer.Option(help="Format to write; `clinie data formats` lists all.")] = "jsonl",
    overwrite: Overwrite = False,
    ids: Ids = "plain",
    as_json: AsJson = False,
) -> None:
    """Convert a corpus to another format, and report what that format cannot represent.

    Each converted document is read back and compared with the original. With --overwrite, files of the same
    name are replaced, and other files in the folder are kept.
    """
    from clinie_core.data.corpora.conversion import convert as convert_corpus

    with corpus.open(quiet=as_json) as source:
        report = convert_corpus(source, to, folder, overwrite=overwrite)
    if as_json:
        print_json(
            {
                "documents": report.documents,
                "files": report.files,
                "concepts": report.concepts,
                "lost": dict(report.lost),
                "lossy_documents": report.lossy_documents,
                "notices": [f"{n.severity} {n}" for n in report.notices],
            }
        )
        return
    out = console()
    counts = ", ".join(f"{count:,} {split}" for split, count in report.documents.items())
    out.print(f"documents in {folder}, from {report.files} files: {counts}", soft_wrap=True)
    print_notices(report.notices)
    if not report.concepts:
        out.print(f"[yellow]warning[/yellow] no concept was found; check --format {source.format}", soft_wrap=True)
    elif not report.lost and not report.notices:
        out.print("nothing was lost")
    for kind, count in sorted(report.lost.items()):
        out.print(f"[yellow]lost[/yellow] {count:,} {kind}: {to} cannot represent them", soft_wrap=True)


@expand_corpus_options
def split(
    corpus: CorpusOptions,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder for the lists, which have one document id per line.")
    ],
    dev: Annotated[float, typer.Option(help="Share of documents in dev.", min=0, max=0.9)] = 0.15,
    test: Annotated[float, typer.Option(help="Share of documents in test.", min=0, max=0.9)] = 0.15,
    folds: Annotated[int, typer.Option(help="Number of cross-validation folds, instead of one split.", min=0)] = 0,
    shots: Annotated[
        str, typer.Option(help="Also write few-shot training lists of these sizes, such as 5,10,20.")
    ] = "",
    group: Annotated[
        str | None,
        typer.Option(help="Source of the patient id: a regular expression on document ids, or metadata:KEY."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed; equal seeds give equal splits.")] = 13,
    overwrite: Overwrite = False,
    ids: Ids = "plain",
    as_json: AsJson = False,
) -> None:
    """Split a corpus into lists of documents, stratified by concept type.

    All documents of a patient (--group) are in the same split. A space refers to the lists as
    `splits: {train: lists/train.list, ...}`.
    """
    from clinie_core.data.corpora.split_lists import write_split_lists
    from clinie_core.data.corpora.splitting import Member
    from clinie_core.errors import ErrorList, Problem

    errors, members = ErrorList(), []
    with corpus.open(quiet=as_json) as source:
        files = find_corpus_files(source)
        errors.extend(files.problems)
        for _, item in read_items(source, files):
            if isinstance(item, Problem):
                errors.extend([item])
            else:
                members.append(Member.from_document(item, group))
    errors.raise_if_any()
    counts = write_split_lists(
        members, folder, dev=dev, test=test, folds=folds, shots=shots, seed=seed, overwrite=overwrite
    )
    if as_json:
        print_json({"folder": str(folder), "documents": counts})
        return
    print_notices(errors.notices)
    for name, count in counts.items():
        console().print(f"{count:>8,}  {folder / name}", soft_wrap=True, highlight=False)


for function in (synth, formats, check, stats, convert, split, score):
    command = Command(function, "Corpora")
    app.command(name=command.name, help=command.help)(function)
