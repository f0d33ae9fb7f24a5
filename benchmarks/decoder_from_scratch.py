"""A decoder that knows no word learns to write concepts: its strict F1 beside a look-up of known mentions.

Synthetic notes, whose dev names are mostly not those of the training split: who looks mentions up can know
about three quarters. The decoder is a small Llama over single bytes, trained from random weights to write one
label a word (template `bio`), constrained to what the note allows. Prints a JSON line an epoch.

    python benchmarks/decoder_from_scratch.py [EPOCHS]
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict

import torch

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.corpora.synthetic import synthetic_splits
from clinie_core.data.document import Concept, Corpus, Document, Span
from clinie_core.scoring import score_concepts
from clinie_core.training.train import EpochReport, train

DOCUMENTS, SCORED = 400, 12
WRITER = {
    "model_type": "llama",
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 384,
    "max_position_embeddings": 2048,
}


def looked_up(known: dict[str, str], note: Document) -> list[Concept]:
    """The longest known mentions, as the type that each had most often."""
    found: list[Concept] = []
    taken = [False] * len(note.text)
    for mention in sorted(known, key=len, reverse=True):
        for match in re.finditer(rf"(?<!\w){re.escape(mention)}(?!\w)", note.text):
            if not any(taken[match.start() : match.end()]):
                taken[match.start() : match.end()] = [True] * len(mention)
                found.append(Concept("T", known[mention], (Span(match.start(), match.end()),)))
    return found


def look_up_f1(corpus: Corpus) -> dict[str, float]:
    """Strict and lenient F1 of the look-up on dev."""
    types: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for note in corpus["train"]:
        for concept in note.concepts:
            types[note.text[concept.start : concept.end]][concept.type] += 1
    known = {mention: counts.most_common(1)[0][0] for mention, counts in types.items()}
    scores = score_concepts([(note.concepts, looked_up(known, note)) for note in corpus["dev"]])
    return {way: round(scores.micro(way).f1, 4) for way in ("strict", "lenient")}


def main() -> None:
    """Train, and print each epoch."""
    torch.set_num_threads(1)
    splits = synthetic_splits(DOCUMENTS, seed=13)
    corpus = Corpus({"train": tuple(splits["train"]), "dev": tuple(splits["dev"][:SCORED])})
    print(json.dumps({"documents": len(corpus["train"]), "look_up": look_up_f1(corpus)}), flush=True)
    config = TrialConfig(
        backbone=BackboneSource(name="writer", scratch=WRITER),
        formulation=ComponentChoice(name="generation", parameters={"template": "bio", "constrained": True}),
        finetuning=ComponentChoice(name="full", parameters={"learning_rate": 3e-3}),
        epochs=int(sys.argv[1]) if len(sys.argv) > 1 else 24,
        batch_size=8,
        window_tokens=400,
        window_overlap=32,
        dropout=0.0,
    )

    def on_epoch(report: EpochReport) -> bool:
        kept = ("strict_f1", "lenient_f1", "train_loss", "seconds", "malformed_rate")
        shown = {name: round(report.metrics[name], 4) for name in kept if name in report.metrics}
        print(json.dumps({"epoch": report.epoch, **shown}), flush=True)
        return True

    train(config, corpus, on_epoch=on_epoch)


if __name__ == "__main__":
    main()
