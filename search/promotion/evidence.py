"""Measurement of a model on the test split: scores by document and type, and the costs of prediction."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from clinie_core.data.document import Document
from clinie_core.inference.extractor import Extractor
from clinie_core.modeling.distributed import DistributedContext
from search.promotion.gate import Evidence, TypeScore

__all__ = ["measure"]


def measure(folder: Path, documents: Sequence[Document]) -> Evidence:
    """Load a model, predict the test split, score the predictions and measure the costs.

    The model is not in memory afterwards, so that the next one can be measured.

    Args:
        folder: Folder with the model's files.
        documents: Documents of the test split.

    Returns:
        The scores and costs.
    """
    distributed = DistributedContext.current()
    extractor = Extractor.load(folder, distributed=distributed)
    distributed.reset_peak_memory()
    started = time.perf_counter()
    scores = extractor.score(documents)
    seconds = time.perf_counter() - started
    peak_memory = distributed.measure_peak_memory_mb()
    del extractor
    distributed.release_memory()
    types = {
        name: TypeScore(counts.f1, int(counts.tp + counts.fn), counts.precision, counts.recall)
        for name, counts in scores.overall.by_type("strict").items()
    }
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    costs = {
        "seconds_per_document": seconds / max(1, len(documents)),
        "peak_memory_mb": peak_memory,
        "size_mb": size / 2**20,
    }
    return Evidence(scores.overall.documents("strict"), scores.metrics(), types, costs)
