"""Seconds and CPU seconds of the commands that a user waits for.

A home folder with a study of 1,000 trials of four epochs at most is written through the ledger, with counts by document
as a search stores them. ``plan`` runs twice, with an empty cache and again. With ``--home`` and ``--model``, the script
also measures ``report``, ``status`` and ``predict`` of that home. Each line is the fastest of ``--repeats`` calls.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from clinie_core.scoring.document_counts import DocumentCounts
from search.config.validation import validate_space
from search.ledger.ledger import Ledger
from search.ledger.storage import open_storage
from search.storage.home import Home

METRICS = ("strict_f1", "strict_precision", "strict_recall", "lenient_f1", "train_loss", "seconds", "peak_memory_mb")
DOCUMENTS = 30
NOTE = "Started on norvatidine 40 mg PO BID for CHF. Denies fever or chest wall pain.\n"


def write_study(folder: Path, corpus: Path, trials: int) -> None:
    """Write a study with random results."""
    home = Home.open(folder, create=True)
    validated = validate_space("quickstart", [f"corpus.path={corpus}", "algorithm.sampler=random"])
    file, draw = validated.file, random.Random(13)
    attributes = {"space": file.model_dump(mode="json"), "where": "quickstart"}
    ledger = Ledger.create(open_storage(home), "big", file.objective, file.algorithm, attributes)
    for _ in range(trials):
        number, _config = ledger.ask(validated.space)
        run_id = f"{number:032x}"
        ledger.set_locations(number, {"run_id": run_id})
        epochs = draw.choice([1, 1, 2, 4])
        for epoch in range(1, epochs + 1):
            ledger.report(number, epoch, {metric: draw.random() for metric in METRICS})
        artifacts = home.artifact_folder("big", run_id)
        assert artifacts is not None, "the home has no server"
        artifacts.mkdir(parents=True)
        counts = np.random.default_rng(number).integers(0, 9, (DOCUMENTS, 3)).astype(np.float64)
        DocumentCounts("strict_f1", "digest", counts).write(artifacts)
        ledger.end(number, "complete" if epochs == 4 else "pruned")


def measure(
    arguments: list[str], repeats: int = 1, environment: Mapping[str, str] | None = None
) -> tuple[float, float]:
    """Run a command of clinie and time its fastest call.

    Returns:
        Seconds, and CPU seconds of the process and its children.
    """
    return min(_measure_once(arguments, environment or {}) for _ in range(repeats))


def _measure_once(arguments: list[str], environment: Mapping[str, str]) -> tuple[float, float]:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [str(Path(sys.executable).with_name("clinie")), *arguments]
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure all commands and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1_000, help="number of trials of the written study")
    parser.add_argument("--home", help="home folder with a study and a registered model")
    parser.add_argument("--study", default="quickstart", help="study of --home")
    parser.add_argument("--model", help="registered model of --home, such as NAME@champion")
    parser.add_argument("--repeats", type=int, default=3, help="calls of each command; the fastest counts")
    options = parser.parse_args()
    repeats = options.repeats
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        corpus, big, cache = folder / "corpus", folder / "home", {"CLINIE_CACHE": str(folder / "cache")}
        measure(["data", "synth", str(corpus), "--documents", "120"])
        write_study(big, corpus, options.trials)
        plan = ["plan", "quickstart", f"corpus.path={corpus}"]
        rows = [
            ("--help", measure(["--help"], repeats)),
            (f"status, {options.trials:,} trials", measure(["status", "big", "--home", str(big)], repeats)),
            (f"best, {options.trials:,} trials", measure(["best", "big", "--home", str(big)], repeats)),
            ("plan quickstart, no corpus", measure(["plan", "quickstart"], repeats, cache)),
            ("plan quickstart, empty cache", measure(plan, environment=cache)),
            ("plan quickstart, again", measure(plan, repeats, cache)),
            ("plan paper", measure(["plan", "paper"], repeats, cache | {"HF_HUB_OFFLINE": "1"})),
        ]
        if options.home:
            rows.append(("report", measure(["report", options.study, "--home", options.home], repeats)))
        if options.model:
            note = folder / "note.txt"
            note.write_text(NOTE, encoding="utf-8")
            arguments = ["predict", str(note), "--model", options.model, "--home", options.home or "clinie-home"]
            rows.append(("predict, one note", measure(arguments, repeats)))
    print(f"{'command':32}  {'seconds':>7}  {'CPU s':>6}")
    for name, (seconds, cpu) in rows:
        print(f"{name:32}  {seconds:7.2f}  {cpu:6.2f}")


if __name__ == "__main__":
    main()
