"""Results of a study: the winner, comparisons of groups, trends, the Pareto front and the history.

All scores are dev scores. Only promotions score on the test split.

A stopped trial has fewer epochs than a complete one, so that their final scores differ for this reason alone. Groups
are compared by their complete trials, and the Pareto front consists of complete trials. Trends compare all trials
after the same number of epochs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from clinie_core.scoring.document_counts import DocumentCounts
from clinie_core.scoring.significance import Comparison, compare
from search.analysis.comparisons import (
    CorrectedBest,
    GroupComparison,
    Trend,
    compare_groups,
    compute_trend,
)
from search.analysis.scored_trials import (
    ScoredTrial,
    compute_interval,
    rank_trials,
    score_trials,
    score_winner,
    select_comparable,
    stack_counts,
)
from search.config.objectives import Limit, describe_violations
from search.ledger.ranking import RankedTrial
from search.ledger.ranking import rank_trials as rank_records
from search.ledger.records import TrialRecord

if TYPE_CHECKING:
    pass

__all__ = [
    "COSTS",
    "CorpusRow",
    "Findings",
    "GroupRow",
    "analyze",
    "compare_groups_of_studies",
    "compare_trials",
    "compare_with_single",
    "find_pareto_front",
    "get_cost",
]

FULL = "full"
COSTS = ("seconds_per_document", "peak_memory_mb", "trainable_parameters")


@dataclass(frozen=True)
class GroupRow:
    """A group of trials and its comparison with a reference group.

    Args:
        name: Name of the group.
        trials: Number of trials with at least one finished epoch.
        complete: Number of complete trials, which are compared with those of the reference group.
        best: Best complete trial of the group; the best other trial if none is complete.
        score_at_equal_epochs: Best score of all its trials after the same number of epochs as in the other groups.
        interval: 95 % interval of the best trial's score, by bootstrap over documents; None without counts.
        relative_score: Best score divided by the best score of the reference group; None if that is 0, or if one of
            the two groups has no complete trial.
        is_reference: Whether this is the reference group.
        against: Comparison with the reference group; None for the reference group itself, or without counts.
    """

    name: str
    trials: int
    complete: int
    best: ScoredTrial
    score_at_equal_epochs: float
    interval: tuple[float, float] | None
    relative_score: float | None
    is_reference: bool
    against: GroupComparison | None


@dataclass(frozen=True)
class CorpusRow:
    """Comparison of a model for several corpora with a model for one of these corpora.

    Args:
        corpus: Name of the corpus.
        together: Strict F1 of the model for several corpora on the dev documents of this corpus.
        study: Name of a study of this corpus alone; None if there is none.
        alone: Score of the best trial of that study.
        comparison: Comparison on the same documents; None if the models were not scored on the same documents.
    """

    corpus: str
    together: float
    study: str | None = None
    alone: float | None = None
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Findings:
    """Results of a study that a report shows.

    Args:
        study: Name of the study.
        metric: Name of the metric of the first objective.
        maximized: Whether a higher value of the metric is better.
        trials: Trials with at least one finished epoch, in order of number. Groups, trends and the Pareto front
            leave out runs of finalists with other seeds, and trials that are identical to an earlier one.
        states: Number of trials by state.
        winner: Best complete trial within the limits; None if there is none.
        interval: 95 % interval of the winner's score, by bootstrap over documents.
        corrected: Score of the best trial, corrected for the selection.
        runner_up: Second-best complete trial.
        margin: Comparison of the winner with the runner-up on the same documents.
        architectures: Groups by architecture; none if all trials have the same.
        methods: Groups by fine-tuning method, with ``full`` as the reference group if it was tried.
        equal_epochs: Number of epochs after which all trials can be compared: that of the shortest stopped trial; None
            if no trial was stopped.
        trends: Rank correlation of the score with each numeric dimension, by path; after ``equal_epochs``.
        front: Pareto front of score, prediction time, memory and trainable parameters, of complete trials.
        history: For each ended trial: its number, cumulative compute hours, and best score of a complete trial up to
            then; an infinite value before the first one.
        importances: Share of the score's variation by dimension.
        beyond_limits: Number of complete trials that violate a limit and cannot be the winner.
        limits: Limits that the winner satisfies.
        rankings: Complete trials within the limits with the scores of all their seeds, the best first.
    """

    study: str
    metric: str
    maximized: bool
    trials: list[ScoredTrial]
    states: Mapping[str, int]
    winner: ScoredTrial | None
    interval: tuple[float, float] | None
    corrected: CorrectedBest | None
    runner_up: ScoredTrial | None
    margin: Comparison | None
    architectures: list[GroupRow]
    methods: list[GroupRow]
    equal_epochs: int | None
    trends: dict[str, Trend]
    front: list[ScoredTrial]
    history: list[tuple[int, float, float]]
    importances: dict[str, float] = field(default_factory=dict)
    beyond_limits: int = 0
    limits: tuple[Limit, ...] = ()
    rankings: list[RankedTrial] = field(default_factory=list)

    @property
    def complete_trials(self) -> list[ScoredTrial]:
        """Trials that used their budget or their patience."""
        return [trial for trial in self.trials if trial.is_complete]


def analyze(
    study: str,
    records: Sequence[TrialRecord],
    metric: str,
    *,
    maximized: bool,
    counts: Mapping[int, DocumentCounts],
    importances: Mapping[str, float],
    limits: Sequence[Limit] = (),
) -> Findings:
    """Analyze the trials of a study.

    Args:
        study: Name of the study.
        records: All trials of the study.
        metric: Name of the metric of the first objective.
        maximized: Whether a higher value of the metric is better.
        counts: Counts by document of each trial's best epoch, by trial number; trials without counts are missing.
        importances: Importance of the dimensions, from the ledger.
        limits: Limits that the winner has to satisfy.
    """
    scored = score_trials(records, metric, counts)
    sign = 1 if maximized else -1
    everything = scored
    ranked = rank_trials(records, metric, counts, maximized=maximized, limits=limits)
    scored = [t for t in scored if t.record.repeats is None and t.record.same_as is None]
    beyond = [t for t in scored if t.is_complete and describe_violations(limits, t.record.metrics)]
    winner, runner_up = (ranked[0] if ranked else None), (ranked[1] if len(ranked) > 1 else None)
    interval, corrected = score_winner(ranked)
    epochs = min((len(t.record.epochs) for t in scored if t.record.state == "pruned"), default=None)
    states: defaultdict[str, int] = defaultdict(int)
    for record in records:
        states[record.state] += 1
    return Findings(
        study=study,
        metric=metric,
        maximized=maximized,
        trials=everything,
        states=dict(states),
        winner=winner,
        interval=interval,
        corrected=corrected,
        runner_up=runner_up,
        margin=compare_trials(winner, runner_up) if winner is not None and runner_up is not None else None,
        architectures=_compare_groups_by(scored, lambda t: t.architecture, sign, epochs, reference=None),
        methods=_compare_groups_by(scored, lambda t: t.method, sign, epochs, reference=FULL),
        equal_epochs=epochs,
        trends=_compute_trends(scored, epochs),
        front=find_pareto_front([t for t in scored if t.is_complete]),
        history=_make_history(scored, sign),
        importances=dict(importances),
        beyond_limits=len(beyond),
        limits=tuple(limits),
        rankings=rank_records(records, metric, maximized=maximized, limits=limits),
    )


def compare_trials(first: ScoredTrial, second: ScoredTrial) -> Comparison | None:
    """Compare two trials document by document.

    Returns:
        The comparison; None without counts of the same documents.
    """
    if first.counts is None or second.counts is None or first.counts.documents_digest != second.counts.documents_digest:
        return None
    return compare(first.counts.counts, second.counts.counts)


def compare_with_single(together: ScoredTrial, corpus: str, single: ScoredTrial) -> Comparison | None:
    """Compare a model of several corpora with one of a single corpus, on that corpus's documents.

    Document ids differ between the two studies, so documents are matched by their order.

    Returns:
        The comparison; None without counts, or if the documents differ in their numbers of gold annotations.
    """
    if together.counts is None or single.counts is None:
        return None
    first, second = together.counts.for_corpus(corpus), single.counts.counts
    if not len(first) or first.shape != second.shape:
        return None
    if not np.array_equal(first[:, 0] + first[:, 2], second[:, 0] + second[:, 2]):
        return None
    return compare(first, second)


def _compare_groups_by(
    trials: Sequence[ScoredTrial],
    key: Callable[[ScoredTrial], str],
    sign: int,
    epochs: int | None,
    *,
    reference: str | None,
) -> list[GroupRow]:
    """Return one row per group, best group first; none if there is only one group."""
    groups: defaultdict[str, list[ScoredTrial]] = defaultdict(list)
    for trial in trials:
        groups[key(trial)].append(trial)
    if len(groups) < 2:
        return []
    complete = {name: [t for t in own if t.is_complete] for name, own in groups.items()}
    best = {name: max(complete[name] or own, key=lambda t: sign * t.score) for name, own in groups.items()}
    order = sorted(groups, key=lambda name: (not complete[name], -sign * best[name].score))
    reference_name = reference if reference is not None and reference in groups else order[0]
    rows = []
    for name in order:
        is_reference = name == reference_name
        both_complete = bool(complete[name] and complete[reference_name])
        divisor = best[reference_name].score if both_complete or is_reference else 0.0
        against = None if is_reference else compare_groups_of_studies(complete[name], complete[reference_name])
        rows.append(
            GroupRow(
                name,
                len(groups[name]),
                len(complete[name]),
                best[name],
                max((_get_comparable_score(t, epochs) for t in groups[name]), key=lambda score: sign * score),
                compute_interval(best[name]),
                best[name].score / divisor if divisor else None,
                is_reference,
                against,
            )
        )
    return rows


def _get_comparable_score(trial: ScoredTrial, epochs: int | None) -> float:
    """Return the score after a number of epochs; the final score if it is None, or no such epoch has a score."""
    score = trial.score if epochs is None else trial.score_after(epochs)
    return score if math.isfinite(score) else trial.score


def compare_groups_of_studies(first: Sequence[ScoredTrial], second: Sequence[ScoredTrial]) -> GroupComparison | None:
    """Compare the trials of two groups that have counts of the same documents.

    Returns:
        The comparison; None if a group has no such trial.
    """
    anchor = next((t for t in second if t.counts is not None), None)
    own, others = select_comparable(first, anchor), select_comparable(second, anchor)
    if not own or not others or not len(stack_counts(own)[0]):
        return None
    return compare_groups(stack_counts(own), stack_counts(others))


def _compute_trends(trials: Sequence[ScoredTrial], epochs: int | None) -> dict[str, Trend]:
    """Return the trend of the score with each numeric dimension, over the trials that have the dimension."""
    values: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for trial in trials:
        for path, value in trial.record.parameters.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                values[path].append((float(value), _get_comparable_score(trial, epochs)))
    found = {path: compute_trend([x for x, _ in pairs], [y for _, y in pairs]) for path, pairs in values.items()}
    return {path: result for path, result in sorted(found.items()) if result is not None}


def get_cost(trial: ScoredTrial, name: str) -> float:
    """Return a cost of a trial's model, one of ``COSTS``: seconds, MiB or number of parameters; NaN if unknown."""
    if name == "seconds_per_document":
        speed = trial.get_metric("documents_per_second")
        return 1 / speed if speed else math.nan
    return trial.get_metric(name)


def find_pareto_front(trials: Sequence[ScoredTrial]) -> list[ScoredTrial]:
    """Return the Pareto front of score and costs, best score first; trials with unknown costs are left out."""
    rows = [(t, np.array([-t.score, *(get_cost(t, name) for name in COSTS)])) for t in trials]
    known = [(t, v) for t, v in rows if np.isfinite(v).all()]
    front = [t for t, v in known if not any(bool((other <= v).all() and (other < v).any()) for _, other in known)]
    return sorted(front, key=lambda t: -t.score)


def _make_history(trials: Sequence[ScoredTrial], sign: int) -> list[tuple[int, float, float]]:
    ended = sorted((t for t in trials if t.record.ended is not None), key=lambda t: (t.record.ended, t.record.number))
    history, hours, best = [], 0.0, -math.inf
    for trial in ended:
        hours += trial.compute_seconds / 3600
        best = max(best, sign * trial.score if trial.is_complete else -math.inf)
        history.append((trial.record.number, hours, sign * best))
    return history
