"""Winners of earlier studies, and the corpora on which they were found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clinie_core.data.document import Corpus

__all__ = ["CORPUS_DIGEST", "DOCUMENTS", "CorpusIdentity", "Winner"]

CORPUS_DIGEST, DOCUMENTS = "corpus_digest", "documents"
"""Attributes of a study in the ledger: the digest of its corpus, and the sample of its documents."""
SAMPLE_SIZE = 24
DIGEST_LENGTH = 12


@dataclass(frozen=True)
class CorpusIdentity:
    """Digests of a corpus, which show whether it shares documents with another one.

    Two studies of one corpus may have other types or other splits, so that the dev split of one is in the test split of
    the other. The digest of the corpus differs then, but those of its documents do not.

    Args:
        digest: Digest of texts and annotations.
        documents: Digests of the texts of some documents: the lowest ones, so that two samples of one set are equal.
    """

    digest: str
    documents: frozenset[str]

    @classmethod
    def from_corpus(cls, corpus: Corpus) -> CorpusIdentity:
        """Return the identity of the splits that a search reads."""
        texts = {document.text.strip() for documents in corpus.splits.values() for document in documents}
        digests = sorted(hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH] for text in texts)
        return cls(corpus.digest(), frozenset(digests[:SAMPLE_SIZE]))

    def overlaps(self, other: CorpusIdentity) -> bool:
        """Return whether the corpora are equal, or share a document of their samples."""
        return self.digest == other.digest or bool(self.documents & other.documents)


@dataclass(frozen=True)
class Winner:
    """The best complete trial of an earlier study.

    Args:
        study: Name of the study.
        trial: Number of the trial.
        values: Its settings by path, as in :meth:`clinie_core.config.TrialConfig.flatten`.
        seconds: Seconds of its training.
        is_in_mlflow: Whether it comes from MLflow and not from the ledger of the new study.
    """

    study: str
    trial: int
    values: Mapping[str, Any]
    seconds: float
    is_in_mlflow: bool = False

    def __str__(self) -> str:
        return f"winner of study {self.study!r}{' in MLflow' if self.is_in_mlflow else ''}, trial {self.trial}"
