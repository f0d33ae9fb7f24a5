"""Seeds of independent random streams."""

from __future__ import annotations

__all__ = ["derive_seed"]


def derive_seed(seed: int, number: int) -> int:
    """Return the seed of one of many independent streams.

    The sum of both numbers would give seed 13 of trial 1 and seed 14 of trial 0 the same stream.

    Args:
        seed: Seed of the study, at least 0.
        number: Number of the stream, for example of a trial.
    """
    import numpy as np

    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
