"""Cost of recording trials in MLflow when a study has thousands: time per trial, time to list the best 50.

The time of a block of trials ends when MLflow has received all their events, which a thread delivers in batches.

python benchmarks/tracking.py [--trials 5000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus
from search.storage.home import Home
from search.tracking.connection import connect
from search.tracking.datasets import summarize_splits
from search.tracking.tracker import StudyFacts, Tracker
from search.trials.result import EpochResult

EPOCHS = 3
BLOCK = 500


def main() -> None:
    """Record trials without checkpoints and print the time per trial of each block."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5000)
    options = parser.parse_args()
    if options.trials < BLOCK:
        parser.error(f"--trials must be at least {BLOCK}")
    corpus = Corpus({split: tuple(notes) for split, notes in generate_splits(20, seed=3).items()})
    config = TrialConfig(
        backbone=BackboneSource(name="tiny", scratch={"model_type": "bert", "hidden_size": 32}),
        formulation=ComponentChoice(name="token_classification"),
        finetuning=ComponentChoice(name="lora", parameters={"learning_rate": 1e-3, "rank": 8}),
        epochs=EPOCHS,
    )
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        client = connect(home)
        facts = StudyFacts("many", {"clinie.corpus": "synthetic"}, summarize_splits(corpus, "synthetic"))
        tracker = Tracker(client, home, facts, lambda number, places: None)
        blocks: list[float] = []
        started = time.perf_counter()
        for number in range(options.trials):
            tracker.begin(number, config, None, {})
            scores = {f"metric_{i}": (number * 7919 % 1000) / 1000 for i in range(11)}
            scores["strict_f1"] = (number * 7919 % 1000) / 1000
            for epoch in range(1, EPOCHS + 1):
                tracker.on_epoch_end(number, EpochResult(epoch, scores))
            tracker.end(
                number,
                "complete",
                config=config,
                reason=None,
                best=scores,
                best_epoch=EPOCHS,
                checkpoint=None,
                keep=False,
            )
            if (number + 1) % BLOCK == 0:
                if tracker.drain():
                    raise SystemExit("MLflow has not received all events")
                blocks.append((time.perf_counter() - started) / BLOCK)
                started = time.perf_counter()
                first = number + 2 - BLOCK
                print(f"trials {first:>5} to {number + 1:>5}: {blocks[-1] * 1000:6.1f} ms per trial", flush=True)
        experiment = client.get_experiment_by_name("many").experiment_id
        started = time.perf_counter()
        best = client.search_runs(
            [experiment], "tags.clinie.kind = 'trial'", max_results=50, order_by=["metrics.strict_f1 DESC"]
        )
        print(f"the best {len(best)} of {options.trials} trials listed in {time.perf_counter() - started:.2f} s")
        print(f"the last {BLOCK} trials took {blocks[-1] / blocks[0]:.2f} times as long as the first")


if __name__ == "__main__":
    main()
