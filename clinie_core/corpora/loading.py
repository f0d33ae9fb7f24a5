"""A corpus from its folders: splits, merged types, and what a user should know before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from clinie_core.config import Frozen
from clinie_core.corpora import READERS
from clinie_core.document import Corpus
from clinie_core.errors import ErrorList, InputError, Problem

__all__ = [
    "CorpusSource",
    "corpus_stats",
    "corpus_warnings",
    "discover_splits",
    "load_corpus",
    "representation_counts",
]

SPLITS = ("train", "dev", "test")
USUAL_NAMES = {"train": ("train",), "dev": ("dev", "devel", "valid", "validation"), "test": ("test",)}


class CorpusSource(Frozen):
    """Where a corpus is and how it is read.

    Args:
        path: Folder of the corpus.
        format: A row of ``READERS``.
        splits: Split name (train, dev, test) to the subfolder that holds it.
        merge_types: New concept type to the types that become it; ``"*"`` stands for all.
    """

    path: str
    format: str = "brat"
    splits: dict[str, str] = Field(default_factory=lambda: {name: name for name in SPLITS})
    merge_types: dict[str, list[str]] = Field(default_factory=dict)


def load_corpus(source: CorpusSource, splits: tuple[str, ...] | None = None, *, merge: bool = True) -> Corpus:
    """Read splits of a corpus.

    Args:
        source: Where it is.
        splits: Which splits to read, all that the source names if left out; the others are not opened.
        merge: Whether ``merge_types`` is applied.

    Raises:
        InputError: With all problems of all files: a missing folder, a split without documents, one
            document id in two splits, and whatever the reader found.
    """
    errors = ErrorList()
    reader = READERS.load(source.format, "corpus.format")()
    root = Path(source.path)
    if not root.is_dir():
        errors.add("corpus.path", f"no folder {source.path}", "a folder", "check the path, or pass corpus.path=FOLDER")
        errors.raise_if_any()
    for split in source.splits:
        if split not in SPLITS:
            errors.add(f"corpus.splits.{split}", "unknown split", "train, dev and test")
    read = {}
    for split in source.splits if splits is None else splits:
        if split not in source.splits:
            errors.add("corpus.splits", f"no {split} split is named", "", f"add {split}: FOLDER")
            continue
        folder = root / source.splits[split]
        try:
            read[split] = reader.read_all(folder) if folder.is_dir() else ()
        except InputError as error:
            errors.extend(error.problems)
            continue
        if not read[split]:
            errors.add(f"corpus.splits.{split}", f"no documents in {folder}", reader.example)
    errors.extend(_shared_ids(read))
    errors.raise_if_any()
    corpus = Corpus(read)
    return corpus.merged(source.merge_types) if merge and source.merge_types else corpus


def _shared_ids(splits: Mapping[str, tuple[object, ...]]) -> list[Problem]:
    """A document in two splits would be trained on and scored on."""
    seen: dict[str, str] = {}
    problems = []
    for split, documents in splits.items():
        for document in documents:
            id_ = str(getattr(document, "id", ""))
            if seen.setdefault(id_, split) != split:
                problems.append(
                    Problem(
                        f"corpus.splits.{split}", f"document {id_} is also in {seen[id_]}", "", "keep it in one split"
                    )
                )
    return problems


def corpus_warnings(corpus: Corpus) -> list[Problem]:
    """What does not stop a search but spoils its scores: types that training never sees."""
    trained = corpus.type_counts("train")
    return [
        Problem(
            f"corpus.splits.{split}",
            f"type {type_} occurs {count} times here and never in train",
            "",
            "it can never be predicted; merge it or move documents",
        )
        for split in ("dev", "test")
        for type_, count in sorted(corpus.type_counts(split).items())
        if type_ not in trained
    ]


def discover_splits(folder: Path, format_: str = "brat") -> CorpusSource:
    """A corpus by its folder alone: subfolders with a split's usual name, else all of it as train.

    Args:
        folder: Folder of the corpus.
        format_: A row of ``READERS``.
    """
    found = {split: name for split, names in USUAL_NAMES.items() for name in names if (folder / name).is_dir()}
    return CorpusSource(path=str(folder), format=format_, splits=found or {"train": "."})


def representation_counts(corpus: Corpus) -> dict[str, int]:
    """How many concepts there are, and how many a model of flat, continuous concepts cannot represent."""
    concepts = [(doc, c) for docs in corpus.splits.values() for doc in docs for c in doc.concepts]
    shared = 0
    for docs in corpus.splits.values():
        for doc in docs:
            reach = 0
            for concept in sorted(doc.concepts, key=lambda c: (c.start, -c.end)):
                shared += concept.start < reach
                reach = max(reach, concept.end)
    return {
        "in all": len(concepts),
        "discontinuous": sum(len(c.spans) > 1 for _, c in concepts),
        "overlapping an earlier one": shared,
    }


def corpus_stats(corpus: Corpus) -> dict[str, dict[str, Any]]:
    """Counts by split: documents, characters, and concepts, relations and attributes by type."""
    return {
        split: {
            "documents": len(documents),
            "characters": sum(len(document.text) for document in documents),
            "concepts": dict(sorted(corpus.type_counts(split).items())),
            "relations": dict(sorted(Counter(r.type for d in documents for r in d.relations).items())),
            "attributes": dict(sorted(Counter(a.type for d in documents for a in d.attributes).items())),
        }
        for split, documents in corpus.splits.items()
    }
