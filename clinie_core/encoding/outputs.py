"""Outputs of task heads as NumPy arrays, as formulations decode them."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["HeadOutput", "TransitionScores"]

HeadOutput: TypeAlias = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.int64]
"""Output for one example; the head's documentation states its shape."""


class TransitionScores(NamedTuple):
    """Learned scores of a conditional random field.

    Attributes:
        start: Scores of the first label, ``[labels]``.
        between: Scores of neighbouring labels, ``[from, to]``.
        end: Scores of the last label, ``[labels]``.
    """

    start: NDArray[np.float32]
    between: NDArray[np.float32]
    end: NDArray[np.float32]
