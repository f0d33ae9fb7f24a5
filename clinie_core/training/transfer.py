"""Transfer protocol: train on all corpora but one, and evaluate on that one, without and with a few of its documents.

Source: Peng et al. 2025 (arXiv 2509.04753); several seeds and confidence intervals are an addition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clinie_core.config import BEST, TrialConfig
from clinie_core.data.document import Corpus
from clinie_core.data.schema import Schema
from clinie_core.errors import fail
from clinie_core.formulations import FORMULATIONS, build_components
from clinie_core.inference.extractor import Extractor
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.scoring.significance import bootstrap_interval
from clinie_core.training.train import train

__all__ = ["TransferResult", "evaluate_few_shot", "evaluate_zero_shot", "join_corpora"]


@dataclass(frozen=True)
class TransferResult:
    """One evaluation of the protocol.

    Args:
        holdout: Name of the held-out corpus.
        shots: Number of its documents that were used for training.
        seed: Seed of training and of the selection of those documents.
        split: The scored split of the held-out corpus.
        metrics: Scores on that split.
        low: Lower end of the 95 % confidence interval of ``strict_f1``, by bootstrap over documents.
        high: Upper end of that interval.
    """

    holdout: str
    shots: int
    seed: int
    split: str
    metrics: dict[str, float]
    low: float
    high: float


def join_corpora(corpora: Mapping[str, Corpus], without: str) -> Corpus:
    """Join the train and dev splits of all corpora but one."""
    others = [corpus for name, corpus in corpora.items() if name != without]
    return Corpus({split: tuple(d for corpus in others for d in corpus[split]) for split in ("train", "dev")})


def evaluate_zero_shot(
    config: TrialConfig,
    corpora: Mapping[str, Corpus],
    holdout: str,
    folder: Path,
    *,
    split: str,
    cache: ModelCache,
    distributed: DistributedContext | None = None,
) -> TransferResult:
    """Train on all corpora but one and score on that one.

    Args:
        config: The configuration; its formulations must accept types that training has not seen.
        corpora: Corpora by name; the documents' metadata hold the name, too.
        holdout: Name of the held-out corpus.
        folder: Folder of the model; an interrupted training resumes from it.
        split: Split of the held-out corpus to score.
        cache: Holds backbones and encoded corpora between trainings.
        distributed: Distributed context with the device; by default CUDA if there is a GPU.

    Raises:
        InputError: If a formulation's labels are bound to the training corpus.
    """
    for component, formulation in build_components(config).items():
        if not formulation.type_conditioned:
            names = ", ".join(name for name in FORMULATIONS if FORMULATIONS.load(name).type_conditioned)
            fail(
                "formulation",
                f"the labels for {component} are bound to one corpus",
                allowed=f"a formulation that describes types as text: {names}",
            )
    if not (folder / "done").exists():
        train(config, join_corpora(corpora, holdout), cache=cache, distributed=distributed, folder=folder)
        (folder / "done").touch()
    return _evaluate(folder / BEST, corpora[holdout], holdout, 0, config.seed, split, distributed)


def evaluate_few_shot(
    config: TrialConfig,
    corpus: Corpus,
    holdout: str,
    folder: Path,
    shots: int,
    *,
    epochs: int,
    split: str,
    cache: ModelCache,
    distributed: DistributedContext | None = None,
) -> TransferResult:
    """Continue the training of :func:`evaluate_zero_shot`'s model on a few documents of the held-out corpus.

    Subsets of documents are nested. The last epoch counts, because a dev split would be additional documents.

    Args:
        config: The configuration of the zero-shot model.
        corpus: The held-out corpus.
        holdout: Name of the held-out corpus.
        folder: Folder of the zero-shot model.
        shots: Number of documents to train on.
        epochs: Number of passes over them; fewer documents need more epochs.
        split: Split of the held-out corpus to score.
        cache: Holds backbones and encoded corpora between trainings.
        distributed: As for :func:`evaluate_zero_shot`.
    """
    target = folder / f"shots-{shots}-epochs-{epochs}"
    few = config.model_copy(update={"train_documents": shots, "patience": 0, "epochs": epochs})
    if not (target / "done").exists():
        documents = Corpus({"train": corpus["train"], "dev": ()})
        train(few, documents, cache=cache, distributed=distributed, folder=target, start=folder / BEST)
        (target / "done").touch()
    return _evaluate(target / BEST, corpus, holdout, shots, config.seed, split, distributed)


def _evaluate(
    folder: Path,
    corpus: Corpus,
    holdout: str,
    shots: int,
    seed: int,
    split: str,
    distributed: DistributedContext | None,
) -> TransferResult:
    extractor = Extractor.load(folder, distributed=distributed)
    schema = Schema.from_documents(corpus["train"], extractor.checkpoint.config.view.descriptions)
    scores = extractor.score(corpus[split], schema)
    low, high = bootstrap_interval(scores.overall.documents("strict"))
    return TransferResult(holdout, shots, seed, split, scores.metrics(), low, high)
