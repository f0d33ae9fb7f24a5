"""The candidate of a promotion, and the result of the promotion."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from clinie_core.config import FrozenModel
from search.promotion.gate import Decision
from search.promotion.registration import Base

__all__ = ["Candidate", "Promotion"]


class Candidate(FrozenModel):
    """Identity of a trial that is to be promoted; equal candidates belong to the same promotion.

    Args:
        study: Name of the study.
        trial: 0-based number of the trial in its study.
        config_digest: Digest of the trial's configuration.
        checkpoint: URI of the trial's checkpoint.
        corpus: Title of the corpus.
        corpus_digest: Digest of the splits that the study trains and selects on.
        space_digest: Digest of the search space.
        test_digest: Digest of the test split.
        base: How the registered model stores its backbone.
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
    """Result of a promotion.

    Args:
        name: Name of the registered model.
        version: Version number of the candidate; None in a dry run.
        candidate: The candidate.
        promoted: Whether the candidate is champion now.
        already: Whether the candidate was champion before, so that the test split was not read and nothing changed.
        decision: Decision of the policy on the test split.
        dev: Metrics of the trial on the dev split, by name.
    """

    name: str
    version: str | None
    candidate: Candidate
    promoted: bool
    already: bool
    decision: Decision
    dev: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return the promotion as JSON values."""
        return {**asdict(self), "candidate": self.candidate.model_dump(mode="json")}
