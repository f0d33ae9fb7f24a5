"""Counts by document of one metric, stored with a checkpoint so that trials can be compared later.

Two systems that predicted the same documents are compared document by document. The file contains only
numbers in the order of the split, and neither names nor texts of documents.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clinie_core.scoring.count_files import read_counts

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DocumentCounts"]

FILE = "document_counts.json"


@dataclass(frozen=True)
class DocumentCounts:
    """Counts by document of one system.

    Args:
        metric: The metric that the counts result in, such as ``strict_f1``.
        documents: Digest of the documents; only counts of the same documents can be compared.
        counts: True positives, false positives, false negatives, ``[documents, 3]``.
        corpora: The corpus of each document; empty for a single corpus.
    """

    metric: str
    documents_digest: str
    counts: NDArray[np.float64]
    corpora: tuple[str, ...] = ()

    def for_corpus(self, name: str) -> NDArray[np.float64]:
        """Return the counts of one corpus's documents, ``[documents, 3]``."""
        own: NDArray[np.float64] = self.counts[np.array([corpus == name for corpus in self.corpora], dtype=bool)]
        return own

    def write(self, folder: Path) -> None:
        """Write the counts into a checkpoint's folder."""
        content = {
            "metric": self.metric,
            "documents": self.documents_digest,
            "counts": self.counts.tolist(),
            "corpora": list(self.corpora),
        }
        (folder / FILE).write_text(json.dumps(content, separators=(",", ":")), encoding="ascii")

    @classmethod
    def read(cls, folder: Path) -> DocumentCounts:
        """Read the counts from a checkpoint's folder.

        Raises:
            InputError: If the folder has no counts.
        """
        content = read_counts(folder, FILE)
        counts = np.array(content["counts"], dtype=np.float64).reshape(-1, 3)
        return cls(content["metric"], content["documents"], counts, tuple(content["corpora"]))
