"""Scores of predicted concepts: strict and lenient precision, recall and F1.

Strict counts a prediction as right if type, start and end equal a gold concept's. Lenient follows
the scorer of 2018 n2c2 track 2 (Henry et al. 2020, JAMIA 27(1)): same type and at least one shared
character; further predictions on a gold concept that is already found are dropped rather than
counted as false; one prediction finds at most one gold concept. Under both, a discontinuous concept
counts as the stretch from its first start to its last end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from clinie_core.document import Concept

__all__ = ["ConceptScores", "Counts", "score_concepts"]


@dataclass(frozen=True)
class Counts:
    """True positives, false positives and false negatives, and the rates that follow from them."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        """Tp / (tp + fp), in [0, 1]; 0 if nothing was predicted."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else 0.0

    @property
    def recall(self) -> float:
        """Tp / (tp + fn), in [0, 1]; 0 if there was nothing to find."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else 0.0

    @property
    def f1(self) -> float:
        """2 tp / (2 tp + fp + fn), in [0, 1]; 0 if all three are 0."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else 0.0


@dataclass(frozen=True)
class ConceptScores:
    """Counts by type, strict and lenient; micro scores are their sums."""

    strict: Mapping[str, Counts] = field(default_factory=dict)
    lenient: Mapping[str, Counts] = field(default_factory=dict)

    @property
    def strict_micro(self) -> Counts:
        """The strict counts of all types together."""
        return sum(self.strict.values(), Counts())

    @property
    def lenient_micro(self) -> Counts:
        """The lenient counts of all types together."""
        return sum(self.lenient.values(), Counts())

    def metrics(self) -> dict[str, float]:
        """The micro scores as flat metrics, ``strict_f1`` and so on, each in [0, 1]."""
        return {
            f"{mode}_{rate}": float(getattr(counts, rate))
            for mode, counts in (("strict", self.strict_micro), ("lenient", self.lenient_micro))
            for rate in ("f1", "precision", "recall")
        }


def _strict(gold: Sequence[tuple[int, int]], predicted: Sequence[tuple[int, int]]) -> Counts:
    tp = len(set(gold) & set(predicted))
    return Counts(tp, len(set(predicted)) - tp, len(set(gold)) - tp)


def _lenient(gold: Sequence[tuple[int, int]], predicted: Sequence[tuple[int, int]]) -> Counts:
    open_gold, found, fp = sorted(set(gold)), set[tuple[int, int]](), 0
    exact = set(gold)
    # Exact predictions take their own gold concept first; a lenient score is then never below a strict one.
    for span in sorted(set(predicted), key=lambda s: (s not in exact, s)):
        over = [g for g in open_gold if g[0] < span[1] and span[0] < g[1]]
        free = [g for g in over if g not in found]
        if span in free:
            found.add(span)
        elif free:
            found.add(free[0])
        elif not over:
            fp += 1
    return Counts(len(found), fp, len(open_gold) - len(found))


def score_concepts(pairs: Iterable[tuple[Sequence[Concept], Sequence[Concept]]]) -> ConceptScores:
    """Score the concepts of documents.

    Args:
        pairs: For each document its gold and its predicted concepts.

    Returns:
        Counts by type over all documents; neither the order of documents nor that of concepts matters.
    """
    strict: defaultdict[str, Counts] = defaultdict(Counts)
    lenient: defaultdict[str, Counts] = defaultdict(Counts)
    for gold, predicted in pairs:
        for type_ in sorted({c.type for c in gold} | {c.type for c in predicted}):
            gold_spans = [(c.start, c.end) for c in gold if c.type == type_]
            predicted_spans = [(c.start, c.end) for c in predicted if c.type == type_]
            strict[type_] += _strict(gold_spans, predicted_spans)
            lenient[type_] += _lenient(gold_spans, predicted_spans)
    return ConceptScores(dict(strict), dict(lenient))
