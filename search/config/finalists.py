"""Finalists: the best configurations, which run again with other seeds or on the other folds of the corpus."""

from __future__ import annotations

from pydantic import Field

from clinie_core.config import Fold, FrozenModel
from search.config.seeds import derive_seed

__all__ = ["CrossValidation", "Finalists"]


class Finalists(FrozenModel):
    """Further runs of the best configurations with other seeds, after all other trials.

    Args:
        trials: Number of configurations.
        seeds: Number of seeds of each, with that of its first run.
    """

    trials: int = Field(default=3, ge=1)
    seeds: int = Field(default=3, ge=2)

    @property
    def most_runs(self) -> int:
        """Largest number of further runs of all finalists."""
        return self.trials * (self.seeds - 1)

    def choose_run(self, seed: int, run: int) -> tuple[int, Fold | None]:
        """Return the seed and the fold of a further run.

        Args:
            seed: Seed of the finalist's first run.
            run: 1-based number of the further run.
        """
        return derive_seed(seed, run), None


class CrossValidation(Finalists):
    """Further runs of the best configurations on the other folds; ``seeds`` is the number of folds.

    Args:
        fold: The first fold.
    """

    fold: Fold

    def choose_run(self, seed: int, run: int) -> tuple[int, Fold | None]:
        """See :meth:`Finalists.choose_run`; the seed does not change."""
        return seed, self.fold.model_copy(update={"index": run})
