"""Recognition of split names as whole words of file and folder names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import lru_cache

__all__ = ["SPLITS", "find_split"]

SPLITS = ("train", "dev", "test")
SPLIT_NAMES = {
    "train": ("train", "training"),
    "dev": ("dev", "devel", "development", "val", "valid", "validation"),
    "test": ("test", "testing"),
}
SPLIT_OF = {
    f"{name}{end}": split for split, names in SPLIT_NAMES.items() for name in names for end in ("", "set", "sets")
}
LETTERS = re.compile(r"[^\W\d_]+")


@lru_cache(maxsize=65536)
def find_split(name: str) -> str | None:
    """Return the split that a file or folder name contains as a whole word, in any letter case.

    Args:
        name: A name without suffix, such as ``CDR_TrainingSet``, ``dev-2`` or ``Test``.

    Returns:
        The split; None if the name contains no split's name, or those of several splits.
    """
    found = {SPLIT_OF[word] for word in _split_words(name) if word in SPLIT_OF}
    return found.pop() if len(found) == 1 else None


def _split_words(name: str) -> Iterator[str]:
    """Yield each run of letters and, if it is in camel case, its words, in lower case."""
    for run in LETTERS.findall(name):
        yield run.casefold()
        starts = [0, *(i for i in range(1, len(run)) if _begins_word(run, i)), len(run)]
        for start, end in itertools.pairwise(starts):
            yield run[start:end].casefold()


def _begins_word(run: str, at: int) -> bool:
    return run[at].isupper() and (run[at - 1].islower() or run[at + 1 : at + 2].islower())
