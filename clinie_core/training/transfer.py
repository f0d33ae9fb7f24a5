"""Leave one corpus out: train on the others, test on it with no document of its own, then with a few.

Source: the transfer protocol of Peng et al. 2025 (arXiv 2509.04753), with several seeds and intervals, which the
study does not report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clinie_core.config import BEST, TrialConfig
from clinie_core.data.document import Corpus
from clinie_core.data.schema import Schema
from clinie_core.errors import fail
from clinie_core.formulations import build_components
from clinie_core.inference.extractor import Extractor
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.scoring.significance import interval
from clinie_core.training.train import train

__all__ = ["TransferResult", "evaluate_few_shot", "evaluate_zero_shot", "join_corpora"]


@dataclass(frozen=True)
class TransferResult:
    """One score of the protocol.

    Args:
        holdout: The corpus that was left out.
        shots: How many of its documents were trained on.
        seed: Of training and of the choice of those documents.
        split: On which of its splits the score was taken.
        metrics: Of that split.
        low: Lower end of the 95 % interval of ``strict_f1``, by bootstrap over documents.
        high: Its upper end.
    """

    holdout: str
    shots: int
    seed: int
    split: str
    metrics: dict[str, float]
    low: float
    high: float


def join_corpora(corpora: Mapping[str, Corpus], without: str) -> Corpus:
    """The train and dev splits of all corpora but one, as one."""
    others = [corpus for name, corpus in corpora.items() if name != without]
    return Corpus({split: tuple(d for corpus in others for d in corpus[split]) for split in ("train", "dev")})


def evaluate_zero_shot(
    config: TrialConfig, corpora: Mapping[str, Corpus], holdout: str, folder: Path, *, split: str, cache: ModelCache
) -> TransferResult:
    """Train on all corpora but one and score on that one.

    Args:
        config: What to train; its formulations ask by words.
        corpora: Each by its name; their documents say it too.
        holdout: The corpus that is left out.
        folder: Takes the model, and is gone on from if the training was cut off.
        split: On which split of the corpus left out to score.
        cache: What is kept between trainings.

    Raises:
        InputError: If a formulation's labels are those of one corpus.
    """
    for component, formulation in build_components(config).items():
        if not formulation.by_words:
            found = f"its labels for {component} are those of one corpus"
            fail(
                "formulation",
                found,
                allowed="a formulation that asks by words: generation, span_question, relation_question",
            )
    if not (folder / "done").exists():
        train(config, join_corpora(corpora, holdout), cache=cache, folder=folder)
        (folder / "done").touch()
    return _evaluate(folder / BEST, corpora[holdout], holdout, 0, config.seed, split)


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
) -> TransferResult:
    """Go on from the model of :func:`evaluate_zero_shot` with a few documents of the corpus left out.

    Fewer documents lie within more. There is no dev split to choose an epoch by, since that would be more
    documents: the last epoch counts.

    Args:
        config: As for the zero-shot model.
        corpus: The corpus that was left out.
        holdout: Its name.
        folder: As for the zero-shot model.
        shots: How many of its documents are trained on.
        epochs: How often; few documents want more epochs than many.
        split: On which of its splits to score.
        cache: What is kept between trainings.
    """
    target = folder / f"shots-{shots}-epochs-{epochs}"  # another length is another model
    few = config.model_copy(update={"train_documents": shots, "patience": 0, "epochs": epochs})
    if not (target / "done").exists():
        train(few, Corpus({"train": corpus["train"], "dev": ()}), cache=cache, folder=target, start=folder / BEST)
        (target / "done").touch()
    return _evaluate(target / BEST, corpus, holdout, shots, config.seed, split)


def _evaluate(folder: Path, corpus: Corpus, holdout: str, shots: int, seed: int, split: str) -> TransferResult:
    extractor = Extractor.load(folder)
    schema = Schema.from_documents(corpus["train"], extractor.checkpoint.config.view.descriptions)
    scores = extractor.scores(corpus[split], schema)
    low, high = interval(scores.overall.documents("strict"))
    return TransferResult(holdout, shots, seed, split, scores.metrics(), low, high)
