"""Lists of document ids for splits, cross-validation and few-shot subsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from clinie_core.data.corpora.loading import LIST_SUFFIX
from clinie_core.data.corpora.splitting import Member, order_few_shot, stratify
from clinie_core.errors import fail
from clinie_core.output_files import check_output_files, stage_folder, write_output

__all__ = ["write_split_lists"]


def write_split_lists(
    members: Sequence[Member],
    folder: Path,
    *,
    dev: float,
    test: float,
    folds: int,
    shots: str,
    seed: int,
    overwrite: bool = False,
) -> dict[str, int]:
    """Divide documents into splits and write a list of ids for each.

    Args:
        members: The documents.
        folder: Target folder of the lists.
        dev: Share of the dev split.
        test: Share of the test split.
        folds: Number of cross-validation folds, each a folder with ``train`` and ``dev``; 0 for one split.
        shots: Sizes of nested few-shot training lists, such as ``5,10,20``.
        seed: Seed of the split.
        overwrite: Replace existing lists.

    Returns:
        Number of ids by list.

    Raises:
        InputError: If shares, folds or sizes are invalid for the corpus, or a list exists; nothing is written then.
    """
    if folds == 1 or folds > len({m.group for m in members}):
        fail("--folds", f"found {folds}", allowed=f"2 to {len({m.group for m in members})}, the number of patients")
    if dev + test >= 1:
        fail("--dev, --test", f"together {dev + test:g}", allowed="less than 1, so that training has documents")
    lists: dict[str, list[str]] = {}
    if folds:
        parts = stratify(members, {str(fold): 1 / folds for fold in range(folds)}, seed)
        for fold, ids in parts.items():
            lists[f"fold-{fold}/dev"] = ids
            lists[f"fold-{fold}/train"] = sorted(i for other, rest in parts.items() if other != fold for i in rest)
    else:
        shares = {"train": 1 - dev - test, "dev": dev, "test": test}
        lists |= stratify(members, {name: share for name, share in shares.items() if share > 0}, seed)
    lists |= _build_few_shot_lists(members, lists, shots, seed)
    check_output_files(*(folder / f"{name}{LIST_SUFFIX}" for name in lists), overwrite=overwrite)
    with stage_folder(folder) as part:
        for name, ids in lists.items():
            write_output(part / f"{name}{LIST_SUFFIX}", "".join(f"{id_}\n" for id_ in ids))
    return {f"{name}{LIST_SUFFIX}": len(ids) for name, ids in lists.items()}


def _build_few_shot_lists(
    members: Sequence[Member], lists: Mapping[str, Sequence[str]], shots: str, seed: int
) -> dict[str, list[str]]:
    if not shots:
        return {}
    sizes = shots.replace(",", " ").split()
    if not all(size.isdecimal() and len(size) < 10 and int(size) > 0 for size in sizes):
        fail("--shots", "not a list of numbers", allowed="such as 5,10,20")
    found: dict[str, list[str]] = {}
    for name in [name for name in lists if name.endswith("train")]:
        training = set(lists[name])
        order = order_few_shot([m for m in members if m.id in training], seed)
        if max(map(int, sizes)) > len(order):
            fail("--shots", f"found {max(map(int, sizes))}", allowed=f"at most the {len(order)} documents of {name}")
        found |= {f"{name}-{size}": order[: int(size)] for size in sizes}
    return found
