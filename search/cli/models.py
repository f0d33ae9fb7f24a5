"""Commands on models: promote, evaluate, predict, and open the MLflow UI."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.options import (
    DEFAULT_HOME,
    AsJson,
    Command,
    HomeFolder,
    StudyName,
    TrackingUri,
    console,
    home_of_study,
    print_json,
)

if TYPE_CHECKING:
    from clinie_core.document import Document
    from clinie_core.extractor import Extractor

__all__ = ["COMMANDS"]

ModelName = Annotated[str, typer.Option("--model", help="A registered model: NAME@champion or NAME/VERSION.")]


def promote(
    study: StudyName,
    name: Annotated[str, typer.Option("--name", help="The registered model's name.")],
    trial: Annotated[int | None, typer.Option(help="A trial's number; the best one if left out.")] = None,
    home: HomeFolder = DEFAULT_HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Register a study's best trial as NAME@champion; the test split is read here, once."""
    from clinie_core.corpora.loading import load_corpora
    from clinie_core.errors import fail
    from search.ledger import Ledger, open_storage
    from search.promotion import promote_trial
    from search.space_file import SpaceFile
    from search.tracking.connection import connect

    place = home_of_study(home, study, tracking_uri)
    ledger = Ledger.open(open_storage(place), study)
    record = ledger.best() if trial is None else next((r for r in ledger.records() if r.number == trial), None)
    if record is None:
        fail(
            "study",
            f"study {study!r} has no finished trial" if trial is None else f"no trial {trial}",
            "a finished trial",
        )
    attributes = ledger.attributes
    file = SpaceFile.model_validate(attributes["space"])
    test = load_corpora(file.corpus, ("test",))
    promotion = promote_trial(
        connect(place),
        record,
        study=study,
        parent_run=attributes["parent_run"],
        name=name,
        test=test["test"],
        tags={"clinie.corpus_digest": attributes["corpus_digest"], "clinie.test_digest": test.digest("test")},
    )
    if as_json:
        print_json(promotion.as_json())
        return
    out = console()
    out.print(
        f"[bold]{name}[/bold] version {promotion.version} is @{promotion.alias}: trial {record.number} of {study}"
    )
    out.print(f"  dev strict F1  {promotion.dev['strict_f1']:.4f} (chosen on dev, so optimistic)")
    out.print(f"  test strict F1 {promotion.test['strict_f1']:.4f}, lenient {promotion.test['lenient_f1']:.4f}")


def predict(
    files: Annotated[list[Path], typer.Argument(help="Text files; - for standard input.")],
    model: ModelName,
    home: HomeFolder = DEFAULT_HOME,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write brat files to this folder instead.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Extract concepts and relations from texts with a registered model.

    Shows the text with its concepts marked; --json gives types and offsets without text. A model of relations
    alone reads the concepts of NOTE.txt from the brat file NOTE.ann beside it.
    """
    from clinie_core.corpora.brat import Brat
    from clinie_core.extractor import found_json
    from search.report.terminal import marked_text

    extractor = _extractor(model, home)
    read = _with_concepts if extractor.task == "relations" else _without_concepts
    documents = extractor.annotate([read(file) for file in files])
    if as_json:
        print_json({"model": model, "documents": [{"document": d.id, **found_json(d)} for d in documents]})
    if output is not None:
        Brat().write(documents, output)
    elif not as_json:
        for document in documents:
            console().print(marked_text(document), soft_wrap=True)
    if output is not None and not as_json:
        console().print(f"{len(documents)} documents in {output}")


def evaluate(
    corpus: Annotated[Path, typer.Argument(help="Folder of an annotated corpus.")],
    model: ModelName,
    split: Annotated[str, typer.Option(help="Its split: train, dev or test.")] = "dev",
    format_: Annotated[str, typer.Option("--format", help="The corpus's format.")] = "brat",
    home: HomeFolder = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Score a registered model on a split of a corpus."""
    from clinie_core.corpora.loading import discover_splits, load_corpus
    from clinie_core.scoring.significance import interval
    from search.report.terminal import scores_table

    loaded = load_corpus(discover_splits(corpus, format_), (split,))
    extractor = _extractor(model, home)
    scores = extractor.scores(loaded[split])
    if as_json:
        low, high = interval(scores.overall.documents("strict"))
        print_json({"model": model, "split": split, **scores.metrics(), "strict_f1_interval": [low, high]})
    else:
        console().print(scores_table(f"{model} on {split}, {len(loaded[split])} documents", scores.overall))


def ui(
    home: HomeFolder = DEFAULT_HOME,
    port: Annotated[int, typer.Option(help="Port on the loopback interface.")] = 5000,
) -> None:
    """Open the MLflow UI on a home folder (Ctrl-C ends it)."""
    from search.settings import Home

    place = Home.at(home)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", place.tracking_uri]
    command += ["--default-artifact-root", place.artifacts.as_uri(), "--host", "127.0.0.1", "--port", str(port)]
    console().print(f"http://127.0.0.1:{port}")
    # The server looks for its own programs beside the interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.execve(sys.executable, command, {**os.environ, "PATH": path})


def _without_concepts(file: Path) -> Document:
    from clinie_core.corpora.corpus_format import read_text
    from clinie_core.document import Document

    if str(file) == "-":
        return Document("stdin", sys.stdin.read())
    return Document(file.stem, read_text(file))


def _with_concepts(file: Path) -> Document:
    from clinie_core.corpora.brat import Brat
    from clinie_core.corpora.corpus_format import read_text
    from clinie_core.errors import fail

    annotations = file.with_suffix(".ann")
    if not annotations.is_file():
        found = "the model finds relations between concepts that are given, and there are none"
        fail(str(file), found, f"a brat file {annotations.name} beside it")
    where = {".txt": str(file), ".ann": str(annotations)}
    return Brat().parse(file.stem, where, {".txt": read_text(file), ".ann": read_text(annotations)})


def _extractor(model: str, home: Path) -> Extractor:
    from search.promotion import registered_extractor
    from search.settings import Home
    from search.tracking.connection import connect

    connect(Home.at(home))
    return registered_extractor(model)


COMMANDS = tuple(Command(f, "Models") for f in (promote, predict, evaluate, ui))
