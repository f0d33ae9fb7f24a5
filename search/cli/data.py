"""Commands on corpora: write a synthetic one, check, count, convert and split one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.options import AsJson, console, print_json

if TYPE_CHECKING:
    from clinie_core.data.corpora.loading import CorpusSource
    from clinie_core.data.corpora.summary import CorpusSummary
    from clinie_core.data.document import Document
    from clinie_core.errors import Problem

app = typer.Typer(help="Write, check, count, convert and split corpora.", no_args_is_help=True)

CorpusPath = Annotated[Path, typer.Argument(help="Folder, file, zip or tar of the corpus.")]
Format = Annotated[str, typer.Option("--format", help="Its format, one of those that `clinie data formats` lists.")]


@app.command()
def synth(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; it must not exist or be empty.")],
    documents: Annotated[int, typer.Option(help="Notes in all; 70 % train, 15 % dev, 15 % test.", min=10)] = 300,
    seed: Annotated[int, typer.Option(help="Equal seeds write equal corpora.")] = 13,
    as_json: AsJson = False,
) -> None:
    """Write a synthetic corpus of discharge summaries, radiology reports and social histories (brat)."""
    from clinie_core.data.corpora.brat import Brat
    from clinie_core.data.corpora.corpus_format import require_new
    from clinie_core.data.corpora.synthetic import synthetic_splits

    require_new(folder)
    splits = synthetic_splits(documents, seed)
    for split, notes in splits.items():
        Brat().write(notes, folder / split)
    if as_json:
        print_json({"folder": str(folder), "documents": {split: len(notes) for split, notes in splits.items()}})
        return
    console().print(f"{documents} notes in {folder}: " + ", ".join(f"{len(n)} {s}" for s, n in splits.items()))


@app.command()
def formats(as_json: AsJson = False) -> None:
    """List the corpus formats and what a folder of each holds."""
    from clinie_core.data.corpora import FORMATS

    rows = {name: FORMATS.load(name).example for name in FORMATS}
    if as_json:
        print_json(rows)
        return
    for name, example in rows.items():
        console().print(f"[bold]{name:<12}[/bold]{example}".replace("[{", r"\[{"), highlight=False, soft_wrap=True)


@contextmanager
def _source(path: Path, format_: str) -> Iterator[CorpusSource]:
    """The corpus at a path, an archive unpacked for as long as it is read."""
    from clinie_core.data.corpora.archive import unpack
    from clinie_core.data.corpora.loading import discover_splits

    with unpack(path) as folder:
        yield discover_splits(folder, format_)


def _summary(source: CorpusSource) -> CorpusSummary:
    """Read a corpus once, keeping counts alone.

    Raises:
        InputError: With all its problems.
    """
    from clinie_core.data.corpora.loading import source_problems
    from clinie_core.data.corpora.summary import CorpusSummary
    from clinie_core.errors import ErrorList, Problem

    errors, summary = ErrorList(), CorpusSummary()
    errors.extend(source_problems(source))
    errors.raise_if_any()
    for split, item in _items(source):
        problem = item if isinstance(item, Problem) else summary.add(split, item)
        errors.extend([problem] if problem else [])
    errors.raise_if_any()
    return summary


def _items(source: CorpusSource) -> Iterator[tuple[str, Document | Problem]]:
    """Every document and problem of a corpus, with its split."""
    from clinie_core.data.corpora.loading import read_split

    for split in source.splits:
        for item in read_split(source, split):
            yield split, item


@app.command()
def check(path: CorpusPath, format_: Format = "brat", as_json: AsJson = False) -> None:
    """Check a corpus: everything that is wrong, and what a model of flat concepts cannot represent.

    Exits with 2 if something is wrong; warnings alone exit with 0.
    """
    with _source(path, format_) as source:
        summary = _summary(source)
        warnings = summary.warnings() + _undeclared(source, summary)
    if as_json:
        counts = dict(summary.representation)
        print_json({"documents": dict(summary.documents), "warnings": [str(w) for w in warnings], "concepts": counts})
        return
    out = console()
    out.print(f"{summary.documents.total()} documents read, nothing wrong")
    for warning in warnings:
        out.print(f"[yellow]warning[/yellow] {warning}", soft_wrap=True)
    out.print("concepts: " + ", ".join(f"{count:,} {name}" for name, count in summary.representation.items()))


def _undeclared(source: CorpusSource, summary: CorpusSummary) -> list[Any]:
    """Types that a brat corpus uses and its annotation.conf does not name."""
    from clinie_core.data.corpora.brat import legal_types
    from clinie_core.errors import Problem

    legal = None
    if source.format == "brat":
        folders = [Path(source.path, place) for split in source.splits for place in source.places(split)]
        legal = next((types for types in map(legal_types, folders) if types is not None), None)
    if legal is None:
        return []
    declared = legal.get("entities", frozenset()) | legal.get("events", frozenset())
    used = set().union(*summary.items["concepts"].values())
    return [
        Problem(
            "annotation.conf", f"type {type_} is used and not declared", remedy="declare it, or mend the annotations"
        )
        for type_ in sorted(used - declared)
    ]


@app.command()
def stats(path: CorpusPath, format_: Format = "brat", as_json: AsJson = False) -> None:
    """Count a corpus: documents, characters, concepts, relations and attributes by type and split."""
    from rich.table import Table

    with _source(path, format_) as source:
        counts = _summary(source).as_json()
    if as_json:
        print_json(counts)
        return
    table = Table(header_style="bold", box=None, padding=(0, 2))
    table.add_column("")
    for split in counts:
        table.add_column(split, justify="right")
    rows = [(group, name) for group in next(iter(counts.values())) for name in _names(counts, group)]
    for group, name in rows:
        label = f"{group}: {name}" if name else group
        cells = (split[group].get(name, 0) if name else split[group] for split in counts.values())
        table.add_row(label, *(f"{cell:,}" for cell in cells))
    console().print(table)


def _names(counts: dict[str, dict[str, Any]], group: str) -> list[str]:
    if any(not isinstance(split[group], dict) for split in counts.values()):
        return [""]
    return sorted({name for split in counts.values() for name in split[group]})


@app.command()
def convert(
    path: CorpusPath,
    folder: Annotated[Path, typer.Argument(help="Folder to write to; it must not exist or be empty.")],
    to: Annotated[str, typer.Option(help="The format to write.")] = "jsonl",
    format_: Format = "brat",
    as_json: AsJson = False,
) -> None:
    """Write a corpus in another format, and say what that format cannot carry.

    Each document is read back from what was written and compared with what it was.
    """
    from clinie_core.data.corpora.conversion import convert as convert_corpus

    with _source(path, format_) as source:
        report = convert_corpus(source, to, folder)
    if as_json:
        print_json(
            {"documents": report.documents, "lost": dict(report.lost), "lossy_documents": report.lossy_documents}
        )
        return
    out = console()
    written = ", ".join(f"{count:,} {split}" for split, count in report.documents.items())
    out.print(f"documents in {folder}: {written}", soft_wrap=True)
    if not report.lost:
        out.print("nothing was lost")
    for kind, count in sorted(report.lost.items()):
        out.print(f"[yellow]lost[/yellow] {count:,} {kind}: {to} cannot carry them", soft_wrap=True)


@app.command()
def split(
    path: CorpusPath,
    folder: Annotated[Path, typer.Argument(help="Folder for the lists, one document id a line.")],
    format_: Format = "brat",
    dev: Annotated[float, typer.Option(help="Share of documents in dev.", min=0, max=0.9)] = 0.15,
    test: Annotated[float, typer.Option(help="Share of documents in test.", min=0, max=0.9)] = 0.15,
    folds: Annotated[int, typer.Option(help="Folds of a cross-validation in place of one split.", min=0)] = 0,
    shots: Annotated[str, typer.Option(help="Also few-shot training lists of so many documents: 5,10,20.")] = "",
    group: Annotated[
        str | None, typer.Option(help="What names a patient: a pattern over document ids, or metadata:KEY.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal splits.")] = 13,
    as_json: AsJson = False,
) -> None:
    """Split a corpus by document: seeded, stratified by concept type, a patient's documents together.

    The lists are what a space names: `splits: {train: lists/train.list, ...}`.
    """
    from clinie_core.data.corpora.split_lists import write_lists
    from clinie_core.data.corpora.splitting import Member
    from clinie_core.errors import ErrorList, Problem

    errors, members = ErrorList(), []
    with _source(path, format_) as source:
        for _, item in _items(source):
            if isinstance(item, Problem):
                errors.extend([item])
            else:
                members.append(Member.of(item, group))
    errors.raise_if_any()
    counts = write_lists(members, folder, dev=dev, test=test, folds=folds, shots=shots, seed=seed)
    if as_json:
        print_json({"folder": str(folder), "documents": counts})
        return
    for name, count in counts.items():
        console().print(f"{count:>8,}  {folder / name}", soft_wrap=True, highlight=False)
