"""Presets of published corpora: format, folders of the official splits, and number of documents.

The corpora are not distributed with clinie. Their layouts are taken from published descriptions and loaders, which
``docs/corpora.md`` lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from clinie_core.config import FrozenModel
from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.split_names import SPLITS
from clinie_core.errors import Problem, fail
from clinie_core.shown_ids import show_id

__all__ = ["PRESETS", "CorpusPreset", "load_preset"]

SHOWN_NAMES = 6
RELEASE_FILES = ("*.zip", "*.tar.gz", "*.tgz", "*.pdf", "README*", "LICENSE*", "SHA256SUMS.txt", "index.html")
"""Files without documents that are usually beside the documents of a release."""


class CorpusPreset(FrozenModel):
    """Layout and official splits of a published corpus.

    Args:
        title: Full name of the corpus.
        format: Name of the format in ``FORMATS``.
        layouts: For each official split, alternative lists of its folders or files, relative to the corpus. The
            first alternative that exists completely is read.
        documents: Number of documents of each official split.
        ignore: Patterns of further files of the release that are not read.
        dev_share: Share of the training documents that become the dev split, for corpora without an official one.
        scorer: Name of the scorer that counts as the corpus's shared task does; None if there is none.
    """

    title: str
    format: str
    layouts: dict[str, tuple[tuple[str, ...], ...]]
    documents: dict[str, int]
    ignore: tuple[str, ...] = ()
    dev_share: float = Field(default=0, ge=0, lt=1)
    scorer: str | None = None

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if self.format not in FORMATS:
            raise ValueError(f"unknown format {self.format}")
        if self.documents.keys() != self.layouts.keys() or not self.documents.keys() <= set(SPLITS):
            raise ValueError("layouts and documents need the same splits")
        if ("dev" in self.layouts) == bool(self.dev_share):
            raise ValueError("either layouts has dev, or dev_share is set")
        return self

    @property
    def ignored(self) -> list[str]:
        """All patterns of files that are not read."""
        return [*RELEASE_FILES, *self.ignore]

    def locate(self, root: Path) -> dict[str, list[str]]:
        """Return the existing folders or files by split, relative to the corpus; splits without any are left out."""
        found = {
            split: next((list(places) for places in alternatives if all((root / p).exists() for p in places)), None)
            for split, alternatives in self.layouts.items()
        }
        return {split: places for split, places in found.items() if places is not None}

    def find_missing(self, name: str, root: Path) -> list[Problem]:
        """Return one problem for all splits whose folders or files do not exist.

        Args:
            name: Name of the preset.
            root: Folder of the corpus.
        """
        located = self.locate(root)
        missing = [
            f"{' or '.join(' with '.join(places) for places in alternatives)} ({split})"
            for split, alternatives in self.layouts.items()
            if split not in located
        ]
        if not missing:
            return []
        names = sorted(child.name for child in root.iterdir()) if root.is_dir() else []
        shown = ", ".join(show_id(name) for name in names[:SHOWN_NAMES]) or "nothing"
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        found = f"{root} lacks {', '.join(missing)} of {name}; it contains {shown}{more}"
        remedy = "unpack the archives, correct the path, or name the folders in corpus.splits"
        return [Problem("corpus.preset", found, remedy=remedy)]

    def find_count_difference(self, name: str, documents: Mapping[str, int]) -> list[Problem]:
        """Return a warning if splits have other numbers of documents than the published corpus.

        Args:
            name: Name of the preset.
            documents: Number of documents of each split that was read.
        """
        found = dict(documents)
        if self.dev_share:  # the official training split consists of both
            both = [found.pop(split, None) for split in ("train", "dev")]
            if None not in both:
                found["train"] = sum(filter(None, both))
        differing = [
            split for split in self.documents if found.get(split, self.documents[split]) != self.documents[split]
        ]
        if not differing:
            return []
        expected, actual = (
            " and ".join(f"{counts[split]:,} {split}" for split in differing) for counts in (self.documents, found)
        )
        combined = " (train includes dev)" if self.dev_share and "train" in differing else ""
        text = f"{name}: expected {expected} documents, found {actual}{combined}"
        remedy = "check that all parts of the corpus are unpacked, and that no document was left out"
        return [Problem("corpus.preset", text, remedy=remedy, severity="warning")]


PRESETS: Mapping[str, CorpusPreset] = {
    "n2c2-2018": CorpusPreset(
        title="2018 n2c2 track 2, adverse drug events and medication extraction",
        format="brat",
        layouts={
            "train": (("training_20180910",),),
            "test": (("gold-standard-test-data/test",), ("gold-standard-test-data",), ("test",)),
        },
        documents={"train": 303, "test": 202},
        dev_share=0.1,
        scorer="n2c2-2018",
    ),
    "n2c2-2022": CorpusPreset(
        title="2022 n2c2 track 2, Social History Annotation Corpus (SHAC)",
        format="brat",
        layouts={split: ((split,), (f"SHAC/{split}",), (f"Annotations/{split}",)) for split in SPLITS},
        documents={"train": 3067, "dev": 447, "test": 891},
    ),
    "i2b2-2010": CorpusPreset(
        title="2010 i2b2/VA, concepts, assertions and relations",
        format="i2b2",
        layouts={
            "train": (("concept_assertion_relation_training_data",),),
            "test": (("reference_standard_for_test_data", "test_data"), ("reference_standard_for_test_data",)),
        },
        documents={"train": 170, "test": 256},
        ignore=("unannotated",),
        dev_share=0.1,
    ),
    "radgraph": CorpusPreset(
        title="RadGraph 1.0.0",
        format="radgraph",
        layouts={split: ((f"{split}.json",),) for split in SPLITS},
        documents={"train": 425, "dev": 75, "test": 100},
        ignore=("MIMIC-CXR_graphs.json", "CheXpert_graphs.json", "MODEL_*", "models"),
    ),
}


def load_preset(name: str, where: str = "corpus.preset") -> CorpusPreset:
    """Return a preset by name.

    Raises:
        InputError: If there is no preset of this name; the message lists all.
    """
    if name not in PRESETS:
        fail(where, f"unknown preset {name!r}", allowed=f"allowed: {', '.join(PRESETS)}")
    return PRESETS[name]
