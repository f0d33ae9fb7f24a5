"""First configurations of a study: winners of earlier studies of the same task, else defaults of each family.

Winners are selected by their dev scores. Studies that share documents are left out: their models may have been scored
on the same test split, and what was learned from it must not select the models of a new study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from pydantic import ValidationError

from search.config.portfolio import count_first_points, find_default_points
from search.config.search_space import SearchSpace
from search.config.space_file import SpaceFile
from search.ledger.records import TrialRecord, make_record
from search.ledger.stored_space import conceal_paths, read_stored_space
from search.ledger.winners import CORPUS_DIGEST, DOCUMENTS, CorpusIdentity, Winner

__all__ = ["FirstPoint", "find_first_points"]


@dataclass(frozen=True)
class FirstPoint:
    """A configuration to evaluate first.

    Args:
        values: Values of dimensions, by path; the others are drawn.
        source: Where it comes from: a trial of an earlier study, or the default portfolio.
    """

    values: Mapping[str, Any]
    source: str


def find_first_points(
    space: SearchSpace,
    storage: BaseStorage,
    corpus: CorpusIdentity | None = None,
    others: Sequence[Winner] = (),
) -> list[FirstPoint]:
    """Find the configurations that a new study evaluates first.

    Args:
        space: The space of the new study.
        storage: The ledger with the earlier studies.
        corpus: The corpus of the new study; None compares only the paths of corpora.
        others: Winners of studies that may not be in the ledger; those of a study in the ledger are ignored.

    Returns:
        Winners of earlier studies, the cheapest first. Without any, the default portfolio in its order, unless the
        space names points to evaluate first.
    """
    known = {summary.study_name for summary in storage.get_all_studies()} | {space.file.study}
    winners = [*_find_winners(space, storage, corpus), *(other for other in others if other.study not in known)]
    points = [
        FirstPoint(values, str(winner))
        for winner in sorted(winners, key=lambda winner: winner.seconds)
        if (values := space.fit_point(winner.values)) is not None
    ]
    if not points:
        return [FirstPoint(values, "default portfolio") for values in find_default_points(space)]
    return _without_duplicates(points)[: count_first_points(space)]


def _without_duplicates(points: Sequence[FirstPoint]) -> list[FirstPoint]:
    found: list[FirstPoint] = []
    for point in points:
        if all(point.values != other.values for other in found):
            found.append(point)
    return found


def _seconds(record: TrialRecord) -> float:
    return sum(metrics.get("seconds", 0.0) for metrics in record.epochs.values())


def _find_winners(space: SearchSpace, storage: BaseStorage, corpus: CorpusIdentity | None) -> Iterator[Winner]:
    """Yield the best complete trial of each earlier study of the same task and objective."""
    for summary in storage.get_all_studies():
        attributes = storage.get_study_user_attrs(summary._study_id)
        try:
            file = read_stored_space(attributes)
        except ValidationError:
            continue  # a study of another version of clinie
        if file.study == space.file.study or not _is_comparable(file, space.file):
            continue
        documents = frozenset(attributes.get(DOCUMENTS, ()))
        if corpus is not None and corpus.overlaps(CorpusIdentity(attributes.get(CORPUS_DIGEST, ""), documents)):
            continue
        trials = storage.get_all_trials(summary._study_id, deepcopy=False, states=(TrialState.COMPLETE,))
        sign = 1 if summary.directions[0] == optuna.study.StudyDirection.MAXIMIZE else -1
        trials = [trial for trial in trials if all(value <= 0 for value in trial.constraints.values())]
        best = max(trials, key=lambda trial: (sign * (trial.values or [0.0])[0], -trial.number), default=None)
        if best is not None:
            record = make_record(best)
            if record.config is not None:
                yield Winner(summary.study_name, record.number, record.config.flatten(), _seconds(record))


def _is_comparable(file: SpaceFile, new: SpaceFile) -> bool:
    """Return whether a study has the task and the objective of a new one, but another test split."""
    if file.task != new.task or file.objective[0] != new.objective[0]:
        return False
    paths = [{source.path for source in conceal_paths(space).corpus} for space in (file, new)]
    return not paths[0] & paths[1]
