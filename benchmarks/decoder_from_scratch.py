"""Strict F1 of a decoder trained from random weights, compared with a look-up of known mentions.

The names in the dev split of the synthetic notes are mostly absent from the training split, so a look-up finds about
three quarters of them. The decoder is a small Llama over single bytes. It generates one label per word (template
`bio`), and decoding is constrained to valid answers. Prints one JSON line per epoch.

    python benchmarks/decoder_from_scratch.py [EPOCHS]
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict

import torch

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Concept, Corpus, Document, Span
from clinie_core.scoring import score_concepts
from clinie_core.training.train import EpochReport, train

DOCUMENTS, SCORED = 400, 12
DECODER = {
    "model_type": "llama",
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 384,
    "max_position_embeddings": 2048,
}


def look_up(known: dict[str, str], note: Document) -> list[Concept]:
    """Return the longest known mentions of a note, each with its most frequent type."""
    found: list[Concept] = []
    taken = [False] * len(note.text)
    for mention in sorted(known, key=len, reverse=True):
        for match in re.finditer(rf"(?<!\w){re.escape(mention)}(?!\w)", note.text):
            if not any(taken[match.start() : match.end()]):
                taken[match.start() : match.end()] = [True] * len(mention)
                found.append(Concept("T", known[mention], (Span(match.start(), match.end()),)))
    return found


def score_look_up(corpus: Corpus) -> dict[str, float]:
    """Return strict and lenient F1 of the look-up on dev."""
    types: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for note in corpus["train"]:
        for concept in note.concepts:
            types[note.text[concept.start : concept.end]][concept.type] += 1
    known = {mention: counts.most_common(1)[0][0] for mention, counts in types.items()}
    scores = score_concepts([(note.concepts, look_up(known, note)) for note in corpus["dev"]])
    return {mode: round(scores.micro(mode).f1, 4) for mode in ("strict", "lenient")}


def main() -> None:
    """Train the decoder and print the metrics of each epoch."""
    torch.set_num_threads(1)
    splits = generate_splits(DOCUMENTS, seed=13)
    corpus = Corpus({"train": tuple(splits["train"]), "dev": tuple(splits["dev"][:SCORED])})
    print(json.dumps({"documents": len(corpus["train"]), "look_up": score_look_up(corpus)}), flush=True)
    config = TrialConfig(
        backbone=BackboneSource(name="decoder", scratch=DECODER),
        formulation=ComponentChoice(name="generation", parameters={"template": "bio", "constrained": True}),
        finetuning=ComponentChoice(name="full", parameters={"learning_rate": 3e-3}),
        epochs=int(sys.argv[1]) if len(sys.argv) > 1 else 24,
        batch_size=8,
        window_tokens=400,
        window_overlap=32,
        dropout=0.0,
    )

    def on_epoch(report: EpochReport) -> bool:
        names = ("strict_f1", "lenient_f1", "train_loss", "seconds", "malformed_rate")
        shown = {name: round(report.metrics[name], 4) for name in names if name in report.metrics}
        print(json.dumps({"epoch": report.epoch, **shown}), flush=True)
        return True

    train(config, corpus, on_epoch=on_epoch)


if __name__ == "__main__":
    main()
