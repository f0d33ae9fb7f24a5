"""Peak memory and speed of a model with 110M weights on two processes: replicated (DDP) or sharded (FSDP).

python benchmarks/sharded_memory.py
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from typing import Any

import torch
from torch import distributed

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus
from clinie_core.training.train import train

PROCESSES = 2
WIDE: dict[str, Any] = {
    "model_type": "bert",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30_000,
    "max_position_embeddings": 512,
}


def measure(rank: int, port: int, sharded: bool, found: Any) -> None:
    """Train one epoch in one of the processes; rank 0 returns the metrics through ``found``."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=PROCESSES)
    config = TrialConfig(
        backbone=BackboneSource(name="wide", scratch=WIDE),
        formulation=ComponentChoice(name="token_classification"),
        finetuning=ComponentChoice(name="full", parameters={"learning_rate": 1e-4}),
        epochs=1,
        batch_size=4,
        window_tokens=128,
        dropout=0.0,
        precision="float32",
        sharded=sharded,
    )
    splits = generate_splits(20, seed=3)
    corpus = Corpus({"train": tuple(splits["train"][:6]), "dev": tuple(splits["dev"])})
    metrics = train(config, corpus).best_metrics
    if rank == 0:
        found.put(metrics)
    distributed.destroy_process_group()


def main() -> None:
    """Print one row for the replicated and one for the sharded model."""
    # Without these limits, glibc does not return the memory of temporary layers to the system.
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": "1000000"}
    rows = {}
    for sharded in (False, True):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        spawn = multiprocessing.get_context("spawn")
        found = spawn.SimpleQueue()
        processes = [spawn.Process(target=measure, args=(rank, port, sharded, found)) for rank in range(PROCESSES)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            if process.exitcode:
                sys.exit(f"a process ended with {process.exitcode}")
        rows[sharded] = found.get()
    for sharded, row in rows.items():
        share = row["peak_memory_mb"] / rows[False]["peak_memory_mb"]
        pace = row["tokens_per_second"] / rows[False]["tokens_per_second"]
        kind = "sharded" if sharded else "replicated"
        print(f"{kind:<16}{row['peak_memory_mb']:>8,.0f} MiB {share:>6.2f}   speed {pace:.2f}", end="   ")
        print(f"loss {row['train_loss']:.4f}")


if __name__ == "__main__":
    main()
