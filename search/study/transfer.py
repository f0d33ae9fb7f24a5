"""The transfer protocol: leave each corpus of a space out in turn, train on the others, and tabulate the scores."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clinie_core.config import TrialConfig
from clinie_core.data.document import Corpus
from clinie_core.data.schema import get_corpus_name
from clinie_core.errors import fail
from clinie_core.training.transfer import TransferResult
from search.config.domains import RandomChooser
from search.config.space_file import SpaceFile
from search.config.validation import ValidatedSpace, validate_space
from search.storage.home import Home

__all__ = ["TransferRow", "run_transfer", "summarize", "validate_transfer_space"]

RESULTS = "transfer.json"


@dataclass(frozen=True)
class TransferRow:
    """Scores for one corpus that was left out and one number of its documents.

    Args:
        holdout: Name of the corpus.
        shots: Number of its documents in the training data.
        seeds: Number of runs.
        mean: Mean strict F1 over the seeds.
        low: Lowest strict F1 of several seeds, or the lower bound of the bootstrap interval of one seed.
        high: Highest strict F1 of several seeds, or the upper bound of the bootstrap interval of one seed.
    """

    holdout: str
    shots: int
    seeds: int
    mean: float
    low: float
    high: float


def validate_transfer_space(name: str, overrides: Iterable[str], split: str) -> ValidatedSpace:
    """Read and validate a space of several corpora together with the splits that a transfer needs.

    Args:
        name: Path of a space file, or the name of a shipped space.
        overrides: Changes to the file, each ``key.path=value``.
        split: Split to score on, ``dev`` or ``test``.

    Raises:
        InputError: If the space or a corpus is invalid, there is a single corpus, or the split is neither dev nor test.
    """
    if split not in ("dev", "test"):
        fail("split", f"found {split!r}", allowed="dev or test")
    splits = ("train", "dev", *(("test",) if split == "test" else ()))
    validated = validate_space(name, overrides, splits=splits)
    if len(validated.file.corpus) < 2:
        where = f"{validated.where}: corpus"
        fail(where, "only one corpus to leave out", allowed="a list of at least two corpora")
    return validated


def run_transfer(
    validated: ValidatedSpace,
    home: Home,
    *,
    shots: Sequence[int],
    seeds: int,
    split: str,
    shot_epochs: int | None = None,
    allow_text: bool = False,
) -> list[TransferResult]:
    """Leave each corpus of a space out in turn.

    Args:
        validated: The result of :func:`validate_transfer_space`. Open dimensions of the space are drawn once, with
            its seed.
        home: Home folder for models and results; finished trainings in it are reused.
        shots: Numbers of documents of the left-out corpus to train on.
        seeds: Number of runs, with consecutive seeds.
        split: Split of the left-out corpus to score on, as for :func:`validate_transfer_space`.
        shot_epochs: Number of epochs on those documents; the space's ``budget.epochs`` if None.
        allow_text: Let failure reasons quote error messages.

    Returns:
        One result per left-out corpus, seed and number of documents.

    Raises:
        TransferFailed: If a training failed.
    """
    assert validated.corpus is not None, "a transfer needs corpora that could be read"
    file, together = validated.file, validated.corpus
    drawn = validated.space.suggest(RandomChooser(file.algorithm.seed))
    configs = [drawn.model_copy(update={"seed": file.algorithm.seed + i}) for i in range(seeds)]
    corpora = {source.title: _select_corpus(together, source.title) for source in file.corpus}

    from search.cluster.session import ray_session
    from search.cluster.transfer_tasks import run_transfers

    folder = Home.open(home.root, create=True).study_folder(file.study) / "transfer"
    folder.mkdir(parents=True, exist_ok=True)
    results: list[TransferResult] = []
    with ray_session(home.root):
        found = run_transfers(
            configs,
            corpora,
            shots,
            shot_epochs=shot_epochs or file.budget.epochs,
            split=split,
            resources=file.find_class(drawn.backbone.name),
            folder=folder,
            allow_text=allow_text,
        )
        for result in found:
            results.append(result)
            _write_results(folder / RESULTS, drawn, results)
    _record_in_mlflow(home, file, drawn, results)
    return results


def _select_corpus(corpus: Corpus, name: str) -> Corpus:
    return Corpus({s: tuple(d for d in docs if get_corpus_name(d) == name) for s, docs in corpus.splits.items()})


def _write_results(file: Path, config: TrialConfig, results: Sequence[TransferResult]) -> None:
    content = {"config": config.model_dump(mode="json"), "results": [asdict(result) for result in results]}
    staging = file.with_suffix(".new")
    staging.write_text(json.dumps(content, indent=1), encoding="utf-8")
    staging.replace(file)


def _record_in_mlflow(home: Home, file: SpaceFile, config: TrialConfig, results: Sequence[TransferResult]) -> None:
    from search.tracking.connection import connect
    from search.tracking.transfer_runs import record_transfer

    rows: list[dict[str, Any]] = [asdict(result) for result in results]
    record_transfer(connect(home), home, file.study, config, rows)


def summarize(results: Sequence[TransferResult]) -> list[TransferRow]:
    """Return one row per left-out corpus and number of documents, with the mean over the seeds."""
    rows = []
    for holdout, shots in sorted({(r.holdout, r.shots) for r in results}):
        own = [r for r in results if (r.holdout, r.shots) == (holdout, shots)]
        scores = [r.metrics["strict_f1"] for r in own]
        low, high = (own[0].low, own[0].high) if len(own) == 1 else (min(scores), max(scores))
        rows.append(TransferRow(holdout, shots, len(own), statistics.fmean(scores), low, high))
    return rows
