"""Subsets of corpora that are small enough to train a configuration in less than a minute on one core."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clinie_core.data.corpora.loading import CorpusSource, load_corpus
from clinie_core.data.corpora.splitting import select_few_shot
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus

DISEASE = {"Disease": ["SpecificDisease", "Modifier", "DiseaseClass", "CompositeMention"]}
SUBSET_SEED = 11
SYNTHETIC_FACTOR = 4
"""Generated notes per selected one: the splits are smaller than the number of generated notes."""


@dataclass(frozen=True)
class Subset:
    """A subset of a corpus, with the space whose configurations are recorded on it.

    Args:
        space: Name of the space file beside this module, without its suffix.
        train: Number of training documents.
        dev: Number of dev documents.
        source: Fields of the corpus's ``CorpusSource``, with a path below ``CLINIE_CORPORA``; None for synthetic notes.
        weights: Relative frequency of the values of a dimension, where draws are not uniform: expensive
            values are drawn less often.
    """

    space: str
    train: int
    dev: int
    source: Mapping[str, object] | None = None
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def load(self) -> Corpus:
        """Read the corpus and take the subset of its train and dev splits."""
        if self.source is None:
            splits = generate_splits(SYNTHETIC_FACTOR * (self.train + self.dev), seed=SUBSET_SEED)
            corpus = Corpus({split: tuple(documents) for split, documents in splits.items()})
        else:
            root = Path(os.environ["CLINIE_CORPORA"])
            path = str(root / str(self.source["path"]))
            corpus = load_corpus(CorpusSource.model_validate({**self.source, "path": path}), ("train", "dev"))
        sizes = {"train": self.train, "dev": self.dev}
        return Corpus({split: select_few_shot(corpus[split], size, SUBSET_SEED) for split, size in sizes.items()})


BASE_METHODS = {"full": 2.0, "lora": 2.0}
CONCEPT_WEIGHTS: dict[str, dict[str, float]] = {
    "backbone": {"minilm-l6": 5, "minilm-l3": 4, "small-from-scratch": 1.5},
    "formulation": {"token_classification": 6, "span_pointer": 2, "span_question": 1},
    "finetuning": BASE_METHODS,
}
# A question for each type makes each document many times as expensive.
MANY_TYPES: dict[str, dict[str, float]] = {
    **CONCEPT_WEIGHTS,
    "formulation": {"token_classification": 3, "span_pointer": 1, "span_question": 0},
}
MACCROBAT = {
    "path": "maccrobat-2020",
    "format": "brat",
    "shares": {"train": 0.7, "dev": 0.15, "test": 0.15, "seed": 13},
}
SUBSETS: dict[str, Subset] = {
    "ncbi-disease": Subset(
        space="concepts",
        train=30,
        dev=24,
        source={
            "path": "ncbi-disease",
            "format": "brat",
            "splits": {"train": "train", "dev": "devel"},
            "merge_types": DISEASE,
        },
        weights=CONCEPT_WEIGHTS,
    ),
    "bc5cdr": Subset(
        space="concepts",
        train=30,
        dev=24,
        source={
            "path": "bc5cdr",
            "format": "pubtator",
            "splits": {"train": "CDR_TrainingSet.PubTator.txt", "dev": "CDR_DevelopmentSet.PubTator.txt"},
        },
        weights=CONCEPT_WEIGHTS,
    ),
    "phee": Subset(
        space="concepts",
        train=160,
        dev=100,
        source={"path": "phee", "format": "brat", "splits": {"train": "train", "dev": "dev"}},
        weights=MANY_TYPES,
    ),
    "maccrobat-2020": Subset(
        space="concepts",
        train=8,
        dev=6,
        source={
            **MACCROBAT,
            "concept_types": [
                "Biological_structure",
                "Detailed_description",
                "Diagnostic_procedure",
                "Disease_disorder",
                "Lab_value",
                "Medication",
                "Sign_symptom",
                "Therapeutic_procedure",
            ],
        },
        weights=MANY_TYPES,
    ),
    "synthetic": Subset(space="concepts", train=20, dev=16, weights=CONCEPT_WEIGHTS),
    "synthetic-relations": Subset(space="relations", train=24, dev=20, weights={"finetuning": BASE_METHODS}),
    "phee-decoder": Subset(
        space="decoder",
        train=32,
        dev=24,
        source={"path": "phee", "format": "brat", "splits": {"train": "train", "dev": "dev"}},
        weights={"finetuning": {"full": 0.5}},
    ),
}
"""The subsets, by name of the table."""
