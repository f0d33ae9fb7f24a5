"""Commands that use models: predict, evaluate and serve, and open the MLflow UI."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from clinie_core.garbage_collection import suspend_collection
from search.cli.corpus_options import Format, Ignore, Preset
from search.cli.errors import errors
from search.cli.model_loading import load_extractor
from search.cli.options import (
    DEFAULT_HOME,
    AsJson,
    Command,
    HomeFolder,
    Ids,
    Offsets,
    OnError,
    Overwrite,
    TrackingUri,
    console,
    print_json,
    print_notices,
    resolve_format,
)

__all__ = ["COMMANDS"]

ModelName = Annotated[str, typer.Option("--model", help="Registered model: NAME@champion or NAME/VERSION.")]


def predict(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="Text files, folders of .txt files, CSV, TSV or Parquet files, or - for standard input.",
        ),
    ],
    model: ModelName,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write annotated files to.")] = None,
    to: Annotated[str, typer.Option(help="Format of the annotated files; `clinie data formats` lists all.")] = "brat",
    text_column: Annotated[str | None, typer.Option(help="Column of a table with the texts. Default: text.")] = None,
    id_column: Annotated[
        str | None,
        typer.Option(
            help="Column of a table with the ids of the texts. Default: id, document_id, doc_id, note_id or row_id;"
            " without such a column, rows are numbered."
        ),
    ] = None,
    overwrite: Overwrite = False,
    on_error: OnError = "stop",
    ids: Ids = "plain",
    as_json: AsJson = False,
) -> None:
    """Extract concepts and relations from texts with a registered model.

    Shows each text with its concepts marked; --json prints types and offsets without text. A model of task
    `relations` reads the concepts of NOTE.txt from the brat file NOTE.ann in the same folder.

    Each row of a table is a text. Tables are read in batches, so they may be larger than memory.

    --output needs a new or empty folder. With --overwrite, files of the same name in it are replaced.
    """
    from clinie_core.data.corpora.conversion import load_target_format
    from clinie_core.data.corpora.reading import ReadingOptions
    from clinie_core.data.document import Document
    from clinie_core.errors import Problem, fail
    from clinie_core.inference.notes import find_notes, read_annotated_notes, read_notes
    from clinie_core.inference.tables import Columns, Tables, is_table
    from clinie_core.output_files import require_empty_folder, stage_folder
    from clinie_core.shown_ids import show_id
    from search.report.marked_text import mark_concepts

    format_ = load_target_format(to)
    paths = [file for file in files if is_table(file)]
    if (text_column or id_column) and not paths:
        option = "--text-column" if text_column else "--id-column"
        fail(option, "no table among the files", allowed="a file with the suffix .csv, .tsv or .parquet")
    notes = find_notes([file for file in files if file not in paths], output=output)
    if output is not None:
        require_empty_folder(output, overwrite=overwrite)
    skipped: list[Problem] | None = None if on_error == "stop" else []
    tables = Tables(paths, Columns(text_column, id_column), {note.id: note.where for note in notes})
    names = [*(note.id for note in notes), *tables.check(skipped)]
    if output is not None:
        format_.check_names(names)
    documents = read_notes(notes, skipped=skipped)
    extractor = load_extractor(model, home, tracking_uri)
    from clinie_core.inference.extractor import annotations_to_json  # imported by now: it needs torch

    if extractor.task == "relations":
        if paths:
            found = "the model predicts relations between given concepts, which a table does not contain"
            fail(str(paths[0]), found, allowed="text files with a brat file beside each")
        documents = read_annotated_notes(notes, documents, ReadingOptions(on_error=on_error), skipped=skipped)
    rows: list[dict[str, Any]] = []
    count = 0

    def annotate() -> Iterator[Document]:
        """Yield the annotated documents; tables are predicted in batches, since they can be larger than memory."""
        nonlocal count
        for batch in chain([documents] if documents else [], tables.read_batches()):
            for document in extractor.annotate(batch):
                count += 1
                if as_json:
                    rows.append({"document": show_id(document.id), **annotations_to_json(document)})
                yield document

    if output is not None:
        with stage_folder(output) as part:  # opened first, because predictions for a read-only folder would be lost
            format_.write(annotate(), part)
    elif as_json:
        deque(annotate(), maxlen=0)
    if as_json:
        left_out = {} if skipped is None else {"left_out": [f"{p.severity} {p}" for p in skipped]}
        print_json({"model": model, "documents": rows, **left_out})
        return
    print_notices(skipped or ())
    if output is not None:
        console().print(f"{count} documents in {output}", soft_wrap=True)
        return
    for document in annotate():
        console().print(mark_concepts(document), soft_wrap=True)


def evaluate(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="Folder of an annotated corpus.")],
    model: ModelName,
    split: Annotated[str, typer.Option(help="Split to score on: train, dev or test.")] = "dev",
    format_: Format = "auto",
    preset: Preset = None,
    ignore: Ignore = None,
    offsets: Offsets = "verify",
    on_error: OnError = "stop",
    scorer: Annotated[
        str | None,
        typer.Option(
            help="How to count: clinie, or n2c2-2018 for the script of that shared task. Default: that of the preset,"
            " else clinie."
        ),
    ] = None,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    ids: Ids = "plain",
    as_json: AsJson = False,
) -> None:
    """Score a registered model on one split of a corpus."""
    from clinie_core.data.corpora.loading import discover_splits, load_corpus
    from clinie_core.data.corpora.presets import load_preset
    from clinie_core.scoring import DEFAULT_SCORER, SCORERS
    from clinie_core.scoring.significance import bootstrap_interval
    from search.report.terminal import build_scores_table

    scorer = scorer or (preset and load_preset(preset, "--preset").scorer) or DEFAULT_SCORER
    SCORERS.load(scorer, "--scorer")
    if preset is None:
        format_ = resolve_format(corpus, format_, ignore or (), quiet=as_json)
    source = discover_splits(corpus, format_, ignore or (), preset)
    loaded = load_corpus(source.model_copy(update={"offsets": offsets, "on_error": on_error}), (split,))
    extractor = load_extractor(model, home, tracking_uri)
    scores = extractor.score(loaded[split], scorer=scorer)
    if as_json:
        low, high = bootstrap_interval(scores.overall.documents("strict"))
        row = {"model": model, "split": split, "scorer": scores.scorer, **scores.metrics()}
        notices = {"notices": [f"{n.severity} {n}" for n in loaded.notices]} if loaded.notices else {}
        print_json({**row, "strict_f1_interval": [low, high], **notices})
    else:
        print_notices(loaded.notices)
        title = f"{model} on {split}, {len(loaded[split])} documents, scorer {scores.scorer}"
        console().print(build_scores_table(title, scores.overall))


def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Registered model: NAME@champion or NAME/VERSION.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 chooses a free one.")] = 8000,
    follow: Annotated[bool, typer.Option("--follow", help="Load another version when the alias moves to it.")] = False,
    threads: Annotated[int, typer.Option(help="Number of CPU cores for predictions.", min=1)] = 1,
    replicas: Annotated[
        int, typer.Option(help="Number of processes for predictions; more than one runs on Ray Serve.", min=1)
    ] = 1,
    gpus: Annotated[
        float | None,
        typer.Option(help="GPUs of each process; a fraction with several. Default: one if there is one.", min=0, max=1),
    ] = None,
    max_characters: Annotated[int, typer.Option(help="Maximum number of characters in one note.", min=1)] = 200_000,
    max_bytes: Annotated[int, typer.Option(help="Maximum size of a request in bytes.", min=1)] = 4 * 2**20,
    timeout: Annotated[float, typer.Option(help="Seconds in which a request must be answered.", min=0.1)] = 300.0,
    drain: Annotated[float, typer.Option(help="Seconds to finish requests after SIGTERM or Ctrl-C.", min=0)] = 30.0,
    token: Annotated[
        str | None,
        typer.Option(envvar="CLINIE_SERVE_TOKEN", help="Token that requests must send as a bearer token."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="Host name that clients may use; repeatable.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", exists=True, dir_okay=False, help="PEM file for TLS.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--tls-key", exists=True, dir_okay=False, help="PEM file with the private key.")
    ] = None,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
) -> None:
    """Serve a registered model over HTTP until Ctrl-C.

    Endpoints: POST /predict, GET /healthz, /readyz and /metrics, and documentation at /docs. Without --token,
    everyone who can reach the port can use the service.

    The version of an alias is loaded at the start. If the alias moves, this version keeps serving and /healthz shows
    both; with --follow, the other version replaces it.
    """
    from clinie_core.errors import fail

    with suspend_collection():
        from search.promotion.model_source import ModelSource
        from search.serving.guard import Limits
        from search.serving.server import ServerSettings, open_port, serve_model
        from search.storage.home import Home
        from search.tracking.connection import connect

    if not 0 <= port <= 65535:
        fail("--port", f"{port} is not a port", allowed="0 to 65535")
    if (certificate is None) != (key is None):
        fail("--tls-certificate", "only one of certificate and key is given", allowed="both or none")
    place = Home.open(home, tracking_uri)
    source = ModelSource(model, connect(place))
    with open_port(host, port) as listener:
        names = {name.lower() for name in (host, *(allow_host or ()))}
        limits = Limits(max_bytes=max_bytes, answer_seconds=timeout, hosts=Limits().hosts | names, token=token)
        settings = ServerSettings(limits, max_characters, drain, certificate, key)
        address = f"{'https' if certificate else 'http'}://{host}:{listener.getsockname()[1]}"
        serve_model(
            source,
            listener,
            settings,
            place.root,
            follow=follow,
            threads=threads,
            replicas=replicas,
            gpus=gpus,
            ready=lambda: console().print(f"{address}  (Ctrl-C to stop)"),
        )


def ui(
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Study to show. Default: the only one, or a list of all.")
    ] = None,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    port: Annotated[int, typer.Option(help="Port to listen on, on loopback.")] = 5000,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser if there is a graphical display.")] = True,
) -> None:
    """Show the trials of a study in MLflow's pages until Ctrl-C."""
    from clinie_core.errors import fail
    from search.serving.browser import open_browser
    from search.serving.server import open_port
    from search.storage.home import Home, hide_password
    from search.study.page import find_page

    if not 1 <= port <= 65535:
        fail("--port", f"{port} is not a port", allowed="1 to 65535")
    page = find_page(Home.open(home, tracking_uri), study)
    place, path = page.home, page.path
    remote = place.tracking_uri.startswith(("http:", "https:"))
    address = hide_password(place.tracking_uri).rstrip("/") if remote else f"http://127.0.0.1:{port}"
    if not remote:
        open_port("127.0.0.1", port).close()
    print(address + path, flush=True)  # in one line, so that it can be copied
    if browser:
        open_browser(address, path)
    if remote:  # this server has the pages already
        return
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", place.tracking_uri]
    command += ["--default-artifact-root", place.artifacts, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1"]  # for one user
    # The server searches PATH for programs that are installed in the interpreter's folder.
    program_path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    settings = {"PATH": program_path, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # six processes that serve LLMs
    os.execve(sys.executable, command, {**os.environ, **settings})


COMMANDS = tuple(Command(f, "Models") for f in (predict, evaluate, errors, serve, ui))
