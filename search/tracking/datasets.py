"""MLflow dataset entities of a corpus: digest, counts and types, but no text."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from clinie_core.data.document import Corpus

__all__ = ["DatasetFacts", "make_dataset_inputs", "summarize_splits"]

CONTEXTS = {"train": "training", "dev": "validation", "test": "testing"}
DIGEST_LENGTH = 36
"""Longest digest that MLflow stores."""
PROFILE_TYPES = 100
"""Largest number of types in a profile, whose length MLflow limits."""


@dataclass(frozen=True)
class DatasetFacts:
    """Description of one split."""

    name: str
    split: str
    digest: str
    documents: int
    concepts: dict[str, int]
    relations: dict[str, int]


def summarize_splits(corpus: Corpus, name: str) -> list[DatasetFacts]:
    """Count each split of a corpus.

    Args:
        corpus: The splits to describe.
        name: Name of the corpus.
    """
    facts = []
    for split, documents in corpus.splits.items():
        concepts = Counter(c.type for d in documents for c in d.concepts)
        relations = Counter(r.type for d in documents for r in d.relations)
        relations += Counter(r.type for d in documents for r in d.entity_relations)
        digest = corpus.digest(split)[:DIGEST_LENGTH]
        facts.append(DatasetFacts(name, split, digest, len(documents), dict(concepts), dict(relations)))
    return facts


def make_dataset_inputs(facts: list[DatasetFacts]) -> list[DatasetInput]:
    """Return the dataset inputs of a run that uses these splits."""
    return [
        DatasetInput(
            Dataset(
                name=f"{fact.name} {fact.split}",
                digest=fact.digest,
                source_type="clinie",
                source=json.dumps({"corpus": fact.name, "split": fact.split}),
                schema=_format_schema(fact),
                profile=_format_profile(fact),
            ),
            [InputTag(MLFLOW_DATASET_CONTEXT, CONTEXTS[fact.split])],
        )
        for fact in facts
    ]


def _format_schema(fact: DatasetFacts) -> str:
    """Return the annotated types in MLflow's format for columns, so that its UI lists them."""
    columns = [{"name": type_, "type": "concept"} for type_ in sorted(fact.concepts)]
    columns += [{"name": type_, "type": "relation"} for type_ in sorted(fact.relations)]
    return json.dumps({"mlflow_colspec": columns[:PROFILE_TYPES]})


def _format_profile(fact: DatasetFacts) -> str:
    def select_frequent(counts: dict[str, int]) -> dict[str, int]:
        return dict(Counter(counts).most_common(PROFILE_TYPES))

    return json.dumps(
        {
            "documents": fact.documents,
            "concepts": select_frequent(fact.concepts),
            "relations": select_frequent(fact.relations),
        }
    )
