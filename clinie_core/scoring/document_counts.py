"""Counts of each document behind one metric, kept with a checkpoint so that trials can be compared later.

Two systems that predicted the same documents are compared document by document; the numbers alone say
nothing of the documents, which stand in their split's order without name or text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clinie_core.errors import fail

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DocumentCounts"]

FILE = "document_counts.json"


@dataclass(frozen=True)
class DocumentCounts:
    """Counts of one system.

    Args:
        metric: What they add up to, such as ``strict_f1``.
        documents: Digest of the documents; only counts of the same documents can be compared.
        counts: True positives, false positives, false negatives, ``[documents, 3]``.
        corpora: The corpus of each document, where there are several; else nothing.
    """

    metric: str
    documents_digest: str
    counts: NDArray[np.float64]
    corpora: tuple[str, ...] = ()

    def for_corpus(self, name: str) -> NDArray[np.float64]:
        """The counts of one corpus's documents, ``[documents, 3]``."""
        own: NDArray[np.float64] = self.counts[np.array([corpus == name for corpus in self.corpora], dtype=bool)]
        return own

    def write(self, folder: Path) -> None:
        """Write them into a checkpoint's folder."""
        content = {
            "metric": self.metric,
            "documents": self.documents_digest,
            "counts": self.counts.tolist(),
            "corpora": list(self.corpora),
        }
        (folder / FILE).write_text(json.dumps(content, separators=(",", ":")), encoding="ascii")

    @classmethod
    def read(cls, folder: Path) -> DocumentCounts:
        """Read them from a checkpoint's folder.

        Raises:
            InputError: If it has none.
        """
        file = folder / FILE
        if not file.is_file():
            fail(str(folder), f"no {FILE} here", allowed="a checkpoint that a search has kept")
        content = json.loads(file.read_text(encoding="ascii"))
        counts = np.array(content["counts"], dtype=np.float64).reshape(-1, 3)
        return cls(content["metric"], content["documents"], counts, tuple(content["corpora"]))
