"""Assignment of the files of a published corpus to its splits, as a preset describes them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from clinie_core.data.corpora.corpus_format import CorpusFormat
from clinie_core.data.corpora.discovery import CorpusFiles, SplitFiles, find_named_files
from clinie_core.data.corpora.files import is_ignored, list_files, open_binary
from clinie_core.data.corpora.presets import CorpusPreset
from clinie_core.data.corpora.split_names import SPLITS
from clinie_core.errors import InputError, Problem

__all__ = ["find_preset_files"]


def find_preset_files(
    format_: CorpusFormat, root: Path, preset: CorpusPreset, ignore: Sequence[str] = ()
) -> CorpusFiles:
    """Find the files of the official splits.

    Files outside these splits result in a warning, unless the preset or the user ignores them.

    Args:
        format_: The format.
        root: Folder of the corpus.
        preset: The preset of the corpus.
        ignore: Patterns of files to ignore, besides those of the preset.
    """
    patterns = [*preset.ignored, *ignore]
    places = preset.locate(root)
    result = find_named_files(format_, root, places, patterns)
    _separate_names(result.splits)
    result.problems += _find_other_files(root, [Path(root, p) for split in places.values() for p in split], patterns)
    if preset.dev_share and "train" in result.splits:
        train = result.splits["train"]
        result.splits["dev"] = _hold_out(train, preset.dev_share)
        result.splits = {split: result.splits[split] for split in SPLITS if split in result.splits}
    return result


def _find_other_files(root: Path, places: Sequence[Path], patterns: Sequence[str]) -> list[Problem]:
    """Return a warning if the corpus has files that belong to no split and are not known."""
    try:
        files = list_files(root)
    except InputError as error:
        return list(error.problems)
    others = [
        file
        for file in files
        if not is_ignored(file.relative_to(root), patterns)
        and not any(place == file or place in file.parents for place in places)
    ]
    if not others:
        return []
    more = f", like {len(others) - 1} other files" if len(others) > 1 else ""
    found = f"not read, since it is outside the splits of the preset{more}"
    return [Problem(str(others[0]), found, remedy="pass --ignore, or set corpus.ignore in a space", severity="warning")]


def _separate_names(splits: Mapping[str, SplitFiles]) -> None:
    """Add the split to the names of different documents that have the same name in several splits.

    Documents with equal texts keep their name, so that they are reported as being in two splits.
    """
    mains: defaultdict[str, dict[str, Path]] = defaultdict(dict)
    for split, files in splits.items():
        for group in files.groups:
            mains[group.name][split] = group.main
    repeated = {name for name, files in mains.items() if len(files) > 1 and len(set(map(_hash, files.values()))) > 1}
    for split, files in splits.items():
        files.groups = [
            replace(group, name=f"{split}/{group.name}") if group.name in repeated else group for group in files.groups
        ]


def _hash(file: Path) -> bytes:
    with open_binary(file) as stream:
        return hashlib.sha256(stream.read()).digest()


def _hold_out(train: SplitFiles, share: float) -> SplitFiles:
    """Move a share of the documents, those whose ids have the smallest SHA-256, from the training to the dev split.

    The choice depends on nothing but the ids, so that it is the same on each machine.
    """
    ordered = sorted(train.groups, key=lambda group: hashlib.sha256(group.name.encode()).digest())
    count = max(1, round(share * len(ordered))) if len(ordered) > 1 else 0
    held_out = {group.name for group in ordered[:count]}
    dev = SplitFiles([group for group in train.groups if group.name in held_out])
    train.groups = [group for group in train.groups if group.name not in held_out]
    return dev
