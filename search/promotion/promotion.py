"""A promotion on a model registry, and the rollback of one.

The steps of a promotion, in this order:

1. Register the candidate as a version, and check its predictions on dev documents in a fresh process.
2. Set the alias ``challenger`` to that version.
3. Record in the model's history that the test split is about to be read; then read it.
4. Record the decision of the policy.
5. If the policy accepts the candidate, set the alias ``champion`` to its version.

No step holds more than one model in memory. Each step first looks whether it is already done. A promotion that was
killed therefore resumes when it is run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

import clinie_core
from clinie_core.config import FrozenModel
from clinie_core.data.document import Corpus
from clinie_core.errors import fail
from clinie_core.modeling.checkpoint import Checkpoint
from search.promotion.candidate import Candidate, Promotion
from search.promotion.card import FOLDS, SEEDS, render_model_card
from search.promotion.evidence import measure
from search.promotion.gate import Decision, Evidence, SeedScores, decide
from search.promotion.history import CHAMPION, HISTORY_DIGEST, Anchor, History
from search.promotion.model_files import EXTRACTOR
from search.promotion.model_page import update_model_page
from search.promotion.policy import Policy
from search.promotion.registration import (
    check_predictions,
    fetch_model_files,
    list_requirements,
    register_version,
    write_model,
)
from search.promotion.test_set_accesses import TEST_READ, count_accesses
from search.storage.relocation import Relocation
from search.storage.scratch import open_scratch_folder
from search.tracking.connection import fetch_artifacts, get_code_version

__all__ = ["HistoryBroken", "PromotionRun", "roll_back"]

CHALLENGER = "challenger"
CHECKED_DOCUMENTS = 8
"""Number of dev documents on which the registered model has to predict what the trained model predicts."""
PROMOTION_TAG = "clinie.promotion"


class HistoryBroken(RuntimeError):
    """The history of a registered model was changed by hand, so nothing is promoted on top of it."""


class _Attempt(FrozenModel):
    """Identity of a promotion; its digest is the key of the promotion's entries in the history."""

    name: str
    candidate: Candidate
    policy: Policy
    champion: str | None


@dataclass(frozen=True)
class PromotionRun:
    """One promotion: judge a candidate on the test split and make it champion if it passes the policy.

    Args:
        client: Client of the registry.
        home: Home folder of the study, for temporary files.
        name: Name of the registered model; it is created if it is missing.
        candidate: The candidate.
        corpus: Corpus with a ``dev`` split, which checks the registered model, and a ``test`` split.
        dev_metrics: Metrics of the trial on the dev split, by name.
        policy: The promotion policy.
        parent_run: Id of the study's MLflow run.
        dry_run: Decide without registering a version or moving an alias. The history still records that the test
            split was read.
        anchor: Stores the head of the history outside the registry.
        seeds: Dev scores of the candidate's configuration with all its seeds.
        accepted_fault: Reason for which the present faults of the history are accepted; None accepts none.
    """

    client: MlflowClient
    home: Path
    name: str
    candidate: Candidate
    corpus: Corpus
    dev_metrics: Mapping[str, float]
    policy: Policy
    parent_run: str
    dry_run: bool = False
    anchor: Anchor | None = None
    seeds: SeedScores | None = None
    accepted_fault: str | None = None
    history: History = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "history", History(self.client, self.name, self.anchor))

    def run(self) -> Promotion:
        """Run the promotion, or resume it after an earlier process was killed.

        Returns:
            The result; if the candidate is champion already, that of the earlier promotion.

        Raises:
            InputError: If the model cannot be written with the candidate's ``base``.
            PredictionsDiffer: If the registered model predicts differently from the trained model; it is not promoted.
            HistoryBroken: If the history of the registered model was changed by hand.
        """
        _record_interrupted_promotion(self.history)
        self._check_history()
        champion = self._find_champion()
        earlier = self._find_earlier_decision(champion)
        if earlier is not None:
            update_model_page(self.history)  # the process may have been killed before
            return Promotion(self.name, champion, self.candidate, True, True, earlier, dict(self.dev_metrics))
        key = self._compute_key(champion)
        version = None
        with open_scratch_folder(self.home) as scratch:
            folder = scratch / "extractor"
            trained = fetch_artifacts(Relocation.read(self.home).apply(self.candidate.checkpoint), scratch)
            checked = () if self.dry_run else self.corpus["dev"][:CHECKED_DOCUMENTS]
            reference = write_model(trained, self.candidate.base, folder, checked)
            if not self.dry_run:
                version = self._register(key, reference.checkpoint, folder)
                check_predictions(self.client, reference, f"models:/{self.name}/{version}")
                self.client.set_registered_model_alias(self.name, CHALLENGER, version)
            decision = self._decide(key, champion, folder)
        if version is not None:
            self._write_decision(version, reference.checkpoint, decision)
        if version is not None and decision.promote:
            self.client.set_registered_model_alias(self.name, CHAMPION, version)
            _record_interrupted_promotion(self.history)
            self.client.delete_registered_model_alias(self.name, CHALLENGER)
        if version is not None:
            update_model_page(self.history)
        promoted = decision.promote and version is not None
        return Promotion(self.name, version, self.candidate, promoted, False, decision, dict(self.dev_metrics))

    def _check_history(self) -> None:
        """Refuse a damaged history, or record that its faults are accepted."""
        faults = self.history.find_faults()
        if not faults:
            return
        if self.accepted_fault is None:
            raise HistoryBroken(
                f"history of model {self.name!r} is damaged: {'; '.join(faults)}; see `clinie history {self.name}`,"
                " and pass --accept-fault REASON if you know the cause"
            )
        self.history.append("fault_accepted", {"faults": faults, "reason": self.accepted_fault})

    def _find_champion(self) -> str | None:
        """Return the recorded champion, and restore its alias if that is missing or was moved.

        A recorded champion that was deleted is replaced by the latest one before it that exists.
        """
        existing = {str(version.version) for version in self.client.search_model_versions(f"name = '{self.name}'")}
        champions = [version for version in self.history.list_champions() if version in existing]
        champion = champions[-1] if champions else None
        if champion is not None and self.history.find_champion() != champion and not self.dry_run:
            self.client.set_registered_model_alias(self.name, CHAMPION, champion)
        return champion

    def _find_earlier_decision(self, champion: str | None) -> Decision | None:
        """Return the decision that made the candidate champion; None if it is not champion or in a dry run."""
        if self.dry_run or champion is None:
            return None
        tags = self.client.get_model_version(self.name, champion).tags
        if tags.get("clinie.candidate") != self.candidate.digest() or PROMOTION_TAG not in tags:
            return None
        entry = self.history.find("decision", tags[PROMOTION_TAG])
        return Decision.from_json(entry.content["decision"]) if entry is not None else None

    def _compute_key(self, champion: str | None) -> str:
        attempt = _Attempt(name=self.name, candidate=self.candidate, policy=self.policy, champion=champion)
        return attempt.digest()[:16]

    def _register(self, key: str, checkpoint: Checkpoint, folder: Path) -> str:
        """Return the version number of the candidate, which is registered first if it is missing."""
        self.history.create_model()
        tags = {
            **{f"clinie.{k}": str(v) for k, v in self.candidate.model_dump().items()},
            PROMOTION_TAG: key,
            "clinie.candidate": self.candidate.digest(),
            "clinie.version": clinie_core.__version__,
            "clinie.code": get_code_version(),
            "clinie.packages": " ".join(list_requirements(checkpoint.config.finetuning.name)),
            "clinie.dev_strict_f1": f"{checkpoint.metrics['strict_f1']:.4f}",
        }
        if self.seeds is not None and len(self.seeds.scores) > 1:
            tags[FOLDS if self.seeds.unit == "folds" else SEEDS] = str(self.seeds)
        versions = self.client.search_model_versions(f"name = '{self.name}'")
        registered = [v for v in versions if v.tags.get(PROMOTION_TAG) == key]
        if registered:
            version = str(registered[0].version)
        else:
            card = render_model_card(checkpoint, tags, None)
            version = register_version(
                self.client, folder, run_id=self.parent_run, name=self.name, tags=tags, description=card
            )
        entry = self.history.find("registered", key)
        if entry is None:
            entry = self.history.append("registered", {**self._describe(key), "version": version})
        self.client.set_model_version_tag(self.name, version, HISTORY_DIGEST, entry.digest)
        return version

    def _decide(self, key: str, champion: str | None, folder: Path) -> Decision:
        """Return the decision; read the test split only if the history has no decision for this promotion yet."""
        entry = self.history.find("decision", key)
        if entry is not None:
            return Decision.from_json(entry.content["decision"])
        read = self._record_read(key)
        evidence = measure(folder, self.corpus["test"])
        decision = decide(self.policy, evidence, self._measure_champion(champion), read=read, seeds=self.seeds)
        entry = self.history.append("decision", {**self._describe(key), "decision": decision.as_json()})
        return Decision.from_json(entry.content["decision"])

    def _record_read(self, key: str) -> int:
        """Record that the test split is about to be read, and return the 1-based index of this read."""
        digest = self.candidate.test_digest

        def describe_read() -> dict[str, object]:
            recorded = self.anchor.read_test_reads(digest) if self.anchor is not None else 0
            number = 1 + count_accesses(self.client, digest, recorded)
            return {**self._describe(key), "test_digest": digest, "read": number}

        # Promotions of other models read the same split: the index is determined while the registry is locked.
        entry = self.history.append_computed("read", key, describe_read)
        number = int(entry.content["read"])
        if self.anchor is not None:
            self.anchor.write_test_reads(digest, number)
        return number

    def _describe(self, key: str) -> dict[str, object]:
        return {"promotion": key, "study": self.candidate.study, "trial": self.candidate.trial}

    def _measure_champion(self, champion: str | None) -> Evidence | None:
        if champion is None:
            return None
        folder = fetch_model_files(f"{self.name}/{champion}") / EXTRACTOR
        return measure(folder, self.corpus["test"])

    def _write_decision(self, version: str, checkpoint: Checkpoint, decision: Decision) -> None:
        """Write the decision to the version's tags and card, and the test metrics to the study's run."""
        low, high = decision.interval
        tags = {
            TEST_READ: str(decision.read),
            "clinie.test_strict_f1": f"{decision.test['strict_f1']:.4f}",
            "clinie.test_strict_f1_interval": f"{low:.4f} to {high:.4f}",
            "clinie.gate": "passed" if decision.promote else "refused: " + "; ".join(decision.refusals),
        }
        for tag, value in tags.items():
            self.client.set_model_version_tag(self.name, version, tag, value)
        facts = self.client.get_model_version(self.name, version).tags
        card = render_model_card(checkpoint, facts, decision)
        self.client.update_model_version(self.name, version, card)
        metrics = [Metric(f"test/{k}", v, 0, int(version)) for k, v in decision.test.items()]
        self.client.log_batch(self.parent_run, metrics=metrics)


def _record_interrupted_promotion(history: History) -> None:
    """Record the promotion of the current champion, if the process was killed between alias and record."""
    champion = history.find_champion()
    if champion is None or champion == history.find_recorded_champion(history.read_entries()):
        return
    key = history.client.get_model_version(history.name, champion).tags.get(PROMOTION_TAG, "")
    decided = history.find("decision", key)
    if decided is not None and decided.content["decision"]["promote"] and history.find("promoted", key) is None:
        history.append("promoted", {"promotion": key, "version": champion})


def roll_back(client: MlflowClient, name: str) -> tuple[str, str]:
    """Make the previous champion of a registered model its champion again.

    Args:
        client: Client of the registry.
        name: Name of the registered model.

    Returns:
        The version that was champion, and the version that is champion now.

    Raises:
        InputError: If the model has no previous champion, or its version was deleted from the registry.
    """
    history = History(client, name)
    _record_interrupted_promotion(history)
    champions = history.list_champions()
    if len(champions) < 2:
        fail(
            "NAME",
            f"model {name!r} has no previous champion",
            allowed="a model with at least two promotions",
            remedy=f"see `clinie history {name}`",
        )
    before, now = champions[-1], champions[-2]
    try:
        client.get_model_version(name, now)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        fail("NAME", f"version {now} of {name}, the previous champion, was deleted from the registry")
    client.set_registered_model_alias(name, CHAMPION, now)
    history.append("rolled_back", {"version": now, "from": before})
    update_model_page(history)
    return before, now
