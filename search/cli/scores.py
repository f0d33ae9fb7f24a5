"""The command that scores the annotations of one folder against those of another."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clinie_core.shown_ids import show_id
from search.cli.options import AsJson, Ids, console, print_json

if TYPE_CHECKING:
    from clinie_core.data.document import Document

__all__ = ["score"]


def score(
    gold: Annotated[Path, typer.Argument(metavar="GOLD", help="Folder, file or archive of the annotated corpus.")],
    predicted: Annotated[Path, typer.Argument(metavar="PREDICTED", help="The same documents with predictions.")],
    format_: Annotated[
        str, typer.Option("--format", help="Format of both; `clinie data formats` lists all. auto: detect each.")
    ] = "auto",
    predicted_format: Annotated[
        str | None, typer.Option(help="Format of the predictions. Default: that of the corpus.")
    ] = None,
    task: Annotated[Literal["concepts", "relations", "joint"], typer.Option(help="Annotations to score.")] = "concepts",
    scorer: Annotated[
        str, typer.Option(help="How to count: clinie, or n2c2-2018 for the script of that shared task.")
    ] = "clinie",
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="PATTERN", help="Files that are not read; repeatable.")
    ] = None,
    ids: Ids = "plain",
    as_json: AsJson = False,
) -> None:
    """Score predicted against gold annotations, without a model.

    Both sides need the same documents with the same texts. Splits do not matter.
    """
    from clinie_core.scoring import SCORERS, score_task
    from search.report.terminal import build_scores_table

    SCORERS.load(scorer, "--scorer")
    pairs = _pair_documents(
        _read_documents(gold, format_, ignore),
        _read_documents(predicted, predicted_format or format_, ignore),
        str(predicted),
    )
    scores = score_task(task, pairs, scorer=scorer)
    if as_json:
        modes = scores.overall.modes
        by_type = {mode: {t: asdict(counts) for t, counts in scores.overall.by_type(mode).items()} for mode in modes}
        row = {"scorer": scores.scorer, "task": task, "documents": len(pairs), **scores.metrics()}
        print_json({**row, "by_type": by_type})
        return
    title = f"{task}, {len(pairs)} documents, scorer {scores.scorer}"
    console().print(build_scores_table(title, scores.overall))


def _read_documents(path: Path, format_: str, ignore: list[str] | None) -> dict[str, Document]:
    """Read the documents of all splits, by id; they may have no annotations.

    Raises:
        InputError: If the corpus has problems; the error lists all of them.
    """
    from clinie_core.data.corpora.archive import unpack
    from clinie_core.data.corpora.loading import check_source, discover_splits, find_files, read_split
    from clinie_core.errors import ErrorList, Problem

    errors = ErrorList()
    documents: dict[str, Document] = {}
    with unpack(path) as folder:
        source = discover_splits(folder, format_, ignore or ())
        errors.extend(check_source(source))
        errors.raise_if_any()
        files = find_files(source)
        errors.extend(files.problems)
        for split in files.splits:
            for item in read_split(source, split, files):
                if isinstance(item, Problem):
                    errors.extend([item])
                elif item.id in documents:
                    errors.add(str(path), f"two documents have the id {show_id(item.id)}", allowed="different ids")
                else:
                    documents[item.id] = item
    errors.raise_if_any()
    return documents


def _pair_documents(
    gold: dict[str, Document], predicted: dict[str, Document], where: str
) -> list[tuple[Document, Document]]:
    """Pair the documents of both sides by id.

    Raises:
        InputError: If a document is missing on one side, or its texts differ.
    """
    from clinie_core.errors import ErrorList

    errors = ErrorList()
    for id_ in sorted(gold.keys() - predicted.keys()):
        errors.add(
            where, f"document {show_id(id_)} is missing", remedy="add it, with an empty annotation file if necessary"
        )
    for id_ in sorted(predicted.keys() - gold.keys()):
        errors.add(where, f"document {show_id(id_)} is not in the annotated corpus", remedy="remove it")
    for id_ in sorted(gold.keys() & predicted.keys()):
        if gold[id_].text != predicted[id_].text:
            lengths = f"{len(gold[id_].text):,} and {len(predicted[id_].text):,} characters"
            errors.add(where, f"the texts of document {show_id(id_)} differ ({lengths})", allowed="equal texts")
    errors.raise_if_any()
    return [(document, predicted[id_]) for id_, document in gold.items()]
