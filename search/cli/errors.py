"""The command that shows the errors of a model in the text of the documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.cli.corpus_options import Format, Ignore, Preset
from search.cli.model_loading import load_extractor
from search.cli.options import (
    DEFAULT_HOME,
    HomeFolder,
    Offsets,
    OnError,
    Overwrite,
    TrackingUri,
    console,
    print_notices,
    resolve_format,
)

__all__ = ["errors"]


def errors(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Registered model: NAME@champion or NAME/VERSION.")],
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="Folder of an annotated corpus.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write; it contains document text.")],
    split: Annotated[str, typer.Option(help="Split to predict: train, dev or test.")] = "dev",
    allow_folder: Annotated[
        bool,
        typer.Option("--allow-folder", help="Write also into a clinie home, an artifact folder or a git checkout."),
    ] = False,
    format_: Format = "auto",
    preset: Preset = None,
    ignore: Ignore = None,
    offsets: Offsets = "verify",
    on_error: OnError = "stop",
    overwrite: Overwrite = False,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
) -> None:
    """Show gold and predicted annotations side by side, filtered by type and kind of error.

    The page contains document text. It is not stored in MLflow, and it is not written into a clinie home, an artifact
    folder or a git checkout without --allow-folder.
    """
    from clinie_core.data.corpora.loading import discover_splits, load_corpus
    from clinie_core.output_files import check_output_files, write_output
    from search.report.errors_page import render_errors_page
    from search.storage.text_folder import check_text_folder

    check_output_files(output, overwrite=overwrite)
    if not allow_folder:
        check_text_folder(output, home)
    if preset is None:
        format_ = resolve_format(corpus, format_, ignore or (), quiet=False)
    source = discover_splits(corpus, format_, ignore or (), preset)
    loaded = load_corpus(source.model_copy(update={"offsets": offsets, "on_error": on_error}), (split,))
    print_notices(loaded.notices)
    extractor = load_extractor(model, home, tracking_uri)
    pairs = extractor.annotate_pairs(loaded[split])
    write_output(output, render_errors_page(f"Errors of {model} on {split}", pairs, extractor.task))
    console().print(f"{len(pairs)} documents in {output}; the file contains document text", soft_wrap=True)
