"""Folds of the train and dev documents, for cross-validation on small corpora."""

from __future__ import annotations

from clinie_core.config import Fold
from clinie_core.data.corpora.splitting import Member, stratify
from clinie_core.data.document import Corpus
from clinie_core.errors import fail

__all__ = ["POOLED", "select_fold"]

KEY = "corpus.folds"
POOLED = ("train", "dev")
"""Splits that are divided into folds."""


def select_fold(corpus: Corpus, fold: Fold | None) -> Corpus:
    """Return a corpus whose dev split is one fold of its train and dev documents, and whose train split is the rest.

    The folds are stratified by concept type. They do not depend on the present division into train and dev, so that
    each fold can be selected from the result.

    Args:
        corpus: The corpus; its other splits do not change.
        fold: The fold; None returns the corpus.

    Raises:
        InputError: If there are fewer documents, or patients, than folds.
    """
    if fold is None:
        return corpus
    documents = {document.id: document for split in POOLED for document in corpus[split]}
    members = [Member.from_document(document, fold.group) for document in documents.values()]
    groups = len({member.group for member in members})
    if groups < fold.number:
        noun = "documents" if fold.group is None else "patients"
        fail(KEY, f"{fold.number} folds of {groups} {noun} in train and dev", allowed=f"at most {groups}")
    parts = stratify(members, {str(index): 1 / fold.number for index in range(fold.number)}, fold.seed)
    if not all(parts.values()):
        fail(KEY, f"one of {fold.number} folds would be empty", remedy="use fewer folds")
    dev = set(parts[str(fold.index)])
    ordered = sorted(documents)
    splits = {
        "train": tuple(documents[id_] for id_ in ordered if id_ not in dev),
        "dev": tuple(documents[id_] for id_ in ordered if id_ in dev),
    }
    return Corpus({**corpus.splits, **splits}, corpus.notices)
