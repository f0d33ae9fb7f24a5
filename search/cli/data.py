"""Commands on corpora: write a synthetic one, check one, count one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from search.cli.options import AsJson, console, print_json

app = typer.Typer(help="Write, check and count corpora.", no_args_is_help=True)

CorpusFolder = Annotated[Path, typer.Argument(help="Folder of the corpus.")]
Format = Annotated[str, typer.Option("--format", help="Its format; `brat` is NAME.txt with NAME.ann beside it.")]


@app.command()
def synth(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; it must not exist or be empty.")],
    documents: Annotated[int, typer.Option(help="Notes in all; 70 % train, 15 % dev, 15 % test.", min=10)] = 300,
    seed: Annotated[int, typer.Option(help="Equal seeds write equal corpora.")] = 13,
    as_json: AsJson = False,
) -> None:
    """Write a synthetic corpus of discharge summaries, radiology reports and social histories (brat)."""
    from clinie_core.corpora.brat import write_brat
    from clinie_core.corpora.synthetic import synthetic_splits
    from clinie_core.errors import fail

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        fail(str(folder), "is there and not empty", "a new or empty folder", "remove it or name another")
    splits = synthetic_splits(documents, seed)
    for split, notes in splits.items():
        for note in notes:
            write_brat(note, folder / split)
    if as_json:
        print_json({"folder": str(folder), "documents": {split: len(notes) for split, notes in splits.items()}})
        return
    console().print(f"{documents} notes in {folder}: " + ", ".join(f"{len(n)} {s}" for s, n in splits.items()))


@app.command()
def check(folder: CorpusFolder, format_: Format = "brat", as_json: AsJson = False) -> None:
    """Check a corpus: everything that is wrong, and what a model of flat concepts cannot represent.

    Exits with 2 if something is wrong; warnings alone exit with 0.
    """
    from clinie_core.corpora.loading import corpus_warnings, discover_splits, load_corpus, representation_counts

    corpus = load_corpus(discover_splits(folder, format_))
    warnings = corpus_warnings(corpus)
    counts = representation_counts(corpus)
    documents = {split: len(corpus[split]) for split in corpus.splits}
    if as_json:
        print_json({"documents": documents, "warnings": [str(w) for w in warnings], "concepts": counts})
        return
    out = console()
    out.print(f"{sum(documents.values())} documents read, nothing wrong")
    for warning in warnings:
        out.print(f"[yellow]warning[/yellow] {warning}", soft_wrap=True)
    out.print("concepts: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()))


@app.command()
def stats(folder: CorpusFolder, format_: Format = "brat", as_json: AsJson = False) -> None:
    """Count a corpus: documents, characters, concepts, relations and attributes by type and split."""
    from rich.table import Table

    from clinie_core.corpora.loading import corpus_stats, discover_splits, load_corpus

    counts: dict[str, dict[str, Any]] = corpus_stats(load_corpus(discover_splits(folder, format_)))
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
