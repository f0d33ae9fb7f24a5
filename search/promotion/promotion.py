"""A promotion from start to end; killed at any point, it goes on from there when it is run again.

Order: the candidate becomes a version (alias ``challenger``), is checked in a fresh process on dev documents,
the read of the test split is recorded, the split is read, the decision is recorded, and only then the alias
``champion`` moves. Every step looks first whether it was done.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

import clinie_core
from clinie_core.config import FrozenModel
from clinie_core.data.document import Corpus
from clinie_core.errors import fail
from clinie_core.inference.extractor import Extractor
from search.ledger.records import TrialRecord
from search.promotion.card import render_model_card
from search.promotion.evidence import measure
from search.promotion.gate import Decision, Evidence, decide
from search.promotion.history import CHAMPION, HISTORY_DIGEST, History
from search.promotion.policy import Policy
from search.promotion.registration import (
    EXTRACTOR,
    Base,
    check_predictions,
    fetch_model_files,
    list_requirements,
    register,
    write_model,
)
from search.promotion.test_set_accesses import count_accesses
from search.tracking.connection import code_version, fetch_artifacts

__all__ = ["Candidate", "HistoryBroken", "Promotion", "promote", "rollback"]

CHALLENGER = "challenger"
PROBES = 8
ID = "clinie.promotion"


class HistoryBroken(RuntimeError):
    """A model's record does not hold together; nothing is promoted on top of it."""


class Candidate(FrozenModel):
    """What is to be promoted, by what can be compared: equal candidates are one promotion.

    Args:
        study: The study.
        trial: Its trial.
        config_digest: Of the trial's configuration.
        checkpoint: Where its checkpoint is.
        corpus: What the corpus is called.
        corpus_digest: Of the splits that were searched.
        space_digest: Of the space.
        test_digest: Of the test split.
        base: What becomes of the backbone.
    """

    study: str
    trial: int
    config_digest: str
    checkpoint: str
    corpus: str
    corpus_digest: str
    space_digest: str
    test_digest: str
    base: Base


@dataclass(frozen=True)
class Promotion:
    """What a promotion came to.

    Args:
        name: The registered model.
        version: The candidate's version; None in a dry run.
        candidate: What was judged.
        promoted: Whether it is champion now.
        already: Whether it was champion before, so that nothing was read or changed.
        decision: What the policy said, on the test split.
        dev: The trial's scores on dev.
    """

    name: str
    version: str | None
    candidate: Candidate
    promoted: bool
    already: bool
    decision: Decision
    dev: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """The promotion for ``--json``."""
        return {**asdict(self), "candidate": self.candidate.model_dump(mode="json")}


def promote(
    client: MlflowClient,
    candidate: Candidate,
    record: TrialRecord,
    corpus: Corpus,
    *,
    name: str,
    policy: Policy,
    parent_run: str,
    dry_run: bool = False,
) -> Promotion:
    """Judge a trial by the policy on the locked test split, and make it champion if it keeps every rule.

    Args:
        client: The registry.
        candidate: What is promoted.
        record: The trial.
        corpus: Its ``dev`` split, which checks the registered model, and its ``test`` split.
        name: The registered model's name.
        policy: The rules.
        parent_run: The study's run.
        dry_run: Say what would happen; the read of the test split is recorded all the same.

    Raises:
        InputError: If the model cannot be written as asked.
        PredictionsDiffer: If the registered model predicts otherwise than the trial's; nothing is promoted.
        HistoryBroken: If the model's record was tampered with.
    """
    history = History(client, name)
    _finish_alias(history)
    faults = history.faults()
    if faults:
        raise HistoryBroken(f"the record of {name} does not hold: {'; '.join(faults)}")
    champion = history.champion()
    own = None if dry_run else _find_existing_version(client, name, champion, candidate)
    decided = history.find("decision", own) if own is not None else None
    if decided is not None:
        decision = Decision.from_json(decided.content["decision"])
        return Promotion(name, champion, candidate, True, True, decision, record.metrics)
    key = _key(name, candidate, policy, champion)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "extractor"
        trained = Extractor.load(fetch_artifacts(candidate.checkpoint, Path(scratch)))
        extractor = write_model(trained, candidate.base, folder)
        version = None
        if not dry_run:
            version = _register_candidate(client, history, candidate, key, extractor, folder, parent_run)
            check_predictions(client, extractor, f"models:/{name}/{version}", corpus["dev"][:PROBES])
            client.set_registered_model_alias(name, CHALLENGER, version)
        decision = _decide(client, history, candidate, key, policy, champion, extractor, folder, corpus)
    if version is not None:
        _say(client, name, version, extractor, decision)
        client.log_batch(parent_run, metrics=_test_metrics(decision, int(version)))
    if version is not None and decision.promote:
        client.set_registered_model_alias(name, CHAMPION, version)
        _finish_alias(history)
        client.delete_registered_model_alias(name, CHALLENGER)
    promoted = decision.promote and version is not None
    return Promotion(name, version, candidate, promoted, False, decision, record.metrics)


class _Attempt(FrozenModel):
    """What makes a promotion one and the same: the model, the candidate, the rules, and whom it challenges."""

    name: str
    candidate: Candidate
    policy: Policy
    champion: str | None


def _key(name: str, candidate: Candidate, policy: Policy, champion: str | None) -> str:
    return _Attempt(name=name, candidate=candidate, policy=policy, champion=champion).digest()[:16]


def _find_existing_version(client: MlflowClient, name: str, champion: str | None, candidate: Candidate) -> str | None:
    """The promotion by which the candidate became champion, if it is."""
    if champion is None:
        return None
    tags = client.get_model_version(name, champion).tags
    return tags.get(ID) if tags.get("clinie.candidate") == candidate.digest() else None


def _finish_alias(history: History) -> None:
    """Record a promotion that moved the alias and was then cut off."""
    champion = history.champion()
    if champion is None or champion == history.last_champion(history.entries()):
        return
    key = history.client.get_model_version(history.name, champion).tags.get(ID, "")
    decided = history.find("decision", key)
    if decided is not None and decided.content["decision"]["promote"] and history.find("promoted", key) is None:
        history.append("promoted", {"promotion": key, "version": champion})


def _register_candidate(
    client: MlflowClient,
    history: History,
    candidate: Candidate,
    key: str,
    extractor: Extractor,
    folder: Path,
    parent_run: str,
) -> str:
    """The candidate's version, made where it is not there."""
    name = history.name
    history.ensure()
    tags = {
        **{f"clinie.{k}": str(v) for k, v in candidate.model_dump().items()},
        ID: key,
        "clinie.candidate": candidate.digest(),
        "clinie.version": clinie_core.__version__,
        "clinie.code": code_version(),
        "clinie.packages": " ".join(list_requirements()),
        "clinie.dev_strict_f1": f"{extractor.checkpoint.metrics['strict_f1']:.4f}",
    }
    there = [v for v in client.search_model_versions(f"name = '{name}'") if v.tags.get(ID) == key]
    if there:
        version = str(there[0].version)
    else:
        card = render_model_card(extractor.checkpoint, tags, None)
        version = register(client, folder, run_id=parent_run, name=name, tags=tags, description=card)
    entry = history.find("registered", key)
    if entry is None:
        content = {"promotion": key, "version": version, "study": candidate.study, "trial": candidate.trial}
        entry = history.append("registered", content)
    client.set_model_version_tag(name, version, HISTORY_DIGEST, entry.digest)
    return version


def _decide(
    client: MlflowClient,
    history: History,
    candidate: Candidate,
    key: str,
    policy: Policy,
    champion: str | None,
    extractor: Extractor,
    folder: Path,
    corpus: Corpus,
) -> Decision:
    """The decision, taken and recorded where it was not; the read of the test split is recorded before it happens."""
    decided = history.find("decision", key)
    if decided is not None:
        return Decision.from_json(decided.content["decision"])
    entry = history.find("read", key)
    if entry is None:
        reads = 1 + count_accesses(client, candidate.test_digest)
        content = {
            "promotion": key,
            "study": candidate.study,
            "trial": candidate.trial,
            "test_digest": candidate.test_digest,
            "read": reads,
        }
        entry = history.append("read", content)
    read = int(entry.content["read"])
    challenger = measure(extractor, folder, corpus["test"])
    decision = decide(policy, challenger, _champion_evidence(history.name, champion, corpus), read=read)
    content = {"promotion": key, "study": candidate.study, "trial": candidate.trial, "decision": decision.as_json()}
    history.append("decision", content)
    return decision


def _champion_evidence(name: str, champion: str | None, corpus: Corpus) -> Evidence | None:
    if champion is None:
        return None
    folder = fetch_model_files(f"{name}/{champion}") / EXTRACTOR
    return measure(Extractor.load(folder), folder, corpus["test"])


def _say(client: MlflowClient, name: str, version: str, extractor: Extractor, decision: Decision) -> None:
    """Write the decision onto the version."""
    low, high = decision.interval
    said: Mapping[str, str] = {
        "clinie.test_strict_f1": f"{decision.test['strict_f1']:.4f}",
        "clinie.test_strict_f1_interval": f"{low:.4f} to {high:.4f}",
        "clinie.gate": "passed" if decision.promote else "refused: " + "; ".join(decision.refusals),
    }
    for tag, value in said.items():
        client.set_model_version_tag(name, version, tag, value)
    facts = client.get_model_version(name, version).tags
    client.update_model_version(name, version, render_model_card(extractor.checkpoint, facts, decision))


def _test_metrics(decision: Decision, step: int) -> list[Any]:
    return [mlflow.entities.Metric(f"test_{k}", v, 0, step) for k, v in decision.test.items()]


def rollback(client: MlflowClient, name: str) -> tuple[str, str]:
    """Make the champion before this one champion again.

    Returns:
        The version that was champion and the one that is.

    Raises:
        InputError: If there was none before it.
    """
    history = History(client, name)
    _finish_alias(history)
    champions = history.champions()
    if len(champions) < 2:
        fail("NAME", f"{name} had no champion before the present one", allowed="a model that had one")
    before, now = champions[-1], champions[-2]
    try:
        client.get_model_version(name, now)
    except MlflowException:
        fail("NAME", f"version {now} of {name}, the champion before, is not in the registry any more")
    client.set_registered_model_alias(name, CHAMPION, now)
    history.append("rolled_back", {"version": now, "from": before})
    return before, now
