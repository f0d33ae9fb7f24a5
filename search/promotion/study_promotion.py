"""Promotion of a trial of a study, with everything that the ledger records about both."""

from __future__ import annotations

from clinie_core.data.corpora.loading import load_corpora
from clinie_core.errors import fail
from search.config.objectives import describe_violations
from search.config.space_file import SpaceFile
from search.ledger.ledger import Ledger
from search.ledger.records import TrialRecord
from search.ledger.storage import open_storage
from search.ledger.stored_space import conceal_paths, locate_corpora, read_stored_space
from search.promotion.candidate import Candidate, Promotion
from search.promotion.gate import SeedScores
from search.promotion.history import Head
from search.promotion.policy import Policy, read_policy
from search.promotion.promotion import PromotionRun
from search.promotion.registration import Base
from search.storage.home import Home
from search.tracking.connection import connect

__all__ = ["promote_study"]

HEAD = "promotion.head."
READS = "promotion.test_reads."
"""Prefixes of the study attributes that record the history of the models that the study promoted."""


def promote_study(
    home: Home,
    study: str,
    *,
    name: str,
    trial: int | None = None,
    policy: Policy | None = None,
    base: Base = "whole",
    dry_run: bool = False,
    accept_fault: str | None = None,
) -> Promotion:
    """Judge a trial of a study on the test split and make it ``NAME@champion`` if it passes the promotion policy.

    Every promotion that reads the test split is recorded, including dry runs, and lowers the significance level of
    the next one.

    Args:
        home: Home folder of the study, with the MLflow server that the study uses.
        study: Name of the study.
        name: Name of the registered model.
        trial: 0-based number of the trial; None for the best one.
        policy: The promotion policy; None for the policy that comes with clinie.
        base: ``whole`` stores the backbone beside the adapter, ``merged`` merges both into one set of weights, and
            ``pinned`` leaves the backbone out and records its commit and the sha256 of its weights.
        dry_run: Decide without registering a version.
        accept_fault: Reason for which the present faults of the history are accepted; None refuses a damaged history.

    Returns:
        The result. ``decision.promote`` is False if the policy refuses the trial.

    Raises:
        InputError: If the trial is not finished, its checkpoint was deleted, or the model cannot be stored as asked.
        PredictionsDiffer: If the registered model predicts differently from the trained one; it is not promoted.
        HistoryBroken: If the history of the registered model was changed by hand.
    """
    ledger = Ledger.open(open_storage(home), study)
    attributes = ledger.attributes
    file = read_stored_space(attributes)
    record = _find_trial(ledger, study, trial)
    corpus = load_corpora(locate_corpora(file, home).corpus, ("dev", "test"))
    candidate = _make_candidate(record, study, base, file, str(attributes["corpus_digest"]), corpus.digest("test"))
    return PromotionRun(
        client=connect(home),
        home=home.root,
        name=name,
        candidate=candidate,
        corpus=corpus,
        dev_metrics=record.metrics,
        policy=policy or read_policy(None),
        parent_run=str(attributes["parent_run"]),
        dry_run=dry_run,
        anchor=_LedgerAnchor(ledger),
        seeds=_find_seeds(ledger, record),
        accepted_fault=accept_fault,
    ).run()


class _LedgerAnchor:
    """Head of a model's history and number of test reads, as attributes of a study in the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def read_head(self, model: str) -> Head | None:
        """Return the head that this study has recorded for a model; None if it has not promoted one."""
        return Head.parse(self._ledger.attributes.get(f"{HEAD}{model}"))

    def write_head(self, model: str, head: Head) -> None:
        """Record the head of a model's history."""
        self._ledger.set_attribute(f"{HEAD}{model}", str(head))

    def read_test_reads(self, test_digest: str) -> int:
        """Return the recorded number of reads of a test split."""
        return int(self._ledger.attributes.get(f"{READS}{test_digest}", 0))

    def write_test_reads(self, test_digest: str, number: int) -> None:
        """Record the number of reads of a test split."""
        self._ledger.set_attribute(f"{READS}{test_digest}", number)


def _find_trial(ledger: Ledger, study: str, trial: int | None) -> TrialRecord:
    records = ledger.records()
    record = ledger.best() if trial is None else next((r for r in records if r.number == trial), None)
    limits = ", ".join(map(str, ledger.limits))
    if trial is None and record is None and any(r.state == "complete" for r in records):
        found = f"no finished trial of study {study!r} satisfies its limits"
        fail("limits", found, allowed=limits, remedy=f"see `clinie status {study}`, or search again with other limits")
    if record is not None and (beyond := describe_violations(ledger.limits, record.metrics)):
        fail(f"trial {record.number}", f"beyond a limit of its study: {beyond}", allowed="a trial within the limits")
    if record is not None and record.repeats is not None and record.config is not None and record.config.fold:
        run = f"the run of trial {record.repeats} on fold {record.config.fold}"
        remedy = f"use trial {record.repeats}"
        fail(f"trial {record.number}", run, allowed="a trial on the first fold", remedy=remedy)
    if record is None or record.config is None:
        found = f"study {study!r} has no finished trial" if trial is None else f"study {study!r} has no trial {trial}"
        fail("study", found, allowed="a finished trial", remedy=f"see `clinie status {study}`")
    return record


def _find_seeds(ledger: Ledger, record: TrialRecord) -> SeedScores | None:
    """Return the dev scores of a trial's configuration; None if the trial is not complete."""
    ranked = next((trial for trial in ledger.rank() if trial.record.number == record.number), None)
    return SeedScores(ledger.metrics[0], ranked.scores, ranked.unit) if ranked is not None else None


def _make_candidate(
    record: TrialRecord, study: str, base: Base, file: SpaceFile, corpus_digest: str, test_digest: str
) -> Candidate:
    if record.config is None or record.checkpoint is None:
        fail(
            f"trial {record.number}",
            "its checkpoint was deleted",
            allowed="one of the best trials (`budget.checkpoints` of the space is the number of stored checkpoints)",
            remedy=f"train it again: clinie repeat {study} {record.number}",
        )
    return Candidate(
        study=study,
        trial=record.number,
        config_digest=record.config.digest(),
        checkpoint=record.checkpoint,
        corpus=file.corpus_title,
        corpus_digest=corpus_digest,
        space_digest=conceal_paths(file).digest(),
        test_digest=test_digest,
        base=base,
    )
