"""Which examples go into which batch: sorted by length, shuffled again each epoch.

Batches of like length waste few computations on padding. The order depends on seed and epoch only,
so a resumed trial goes on with the batches that it would have had.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

__all__ = ["batch_by_length", "draw_epoch_batches", "sample_mixture"]

BATCHES_PER_POOL = 50


def draw_epoch_batches(lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Indexes of each training batch of one epoch.

    Examples are shuffled, sorted by length within pools of 50 batches, cut into batches, and the
    batches shuffled: like lengths meet, and still no two epochs are alike.

    Args:
        lengths: Length of each example in tokens.
        batch_size: Examples a batch; the last may be smaller.
        seed: The trial's seed.
        epoch: Number of the epoch, from 1.
    """
    draw = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    draw.shuffle(order)
    pool = batch_size * BATCHES_PER_POOL
    batches = [
        batch
        for at in range(0, len(order), pool)
        for batch in _chunk(sorted(order[at : at + pool], key=lambda i: lengths[i]), batch_size)
    ]
    draw.shuffle(batches)
    return batches


def sample_mixture(groups: Sequence[str], exponent: float, *, seed: int, epoch: int) -> list[int]:
    """Draw an epoch's examples from several groups: as many in all, but each group by its own share.

    A group of n examples has a share that grows with n to the power of ``exponent``. What a group has to
    give beyond its size is drawn again; what it need not give is left out for this epoch.

    Args:
        groups: The group of each example.
        exponent: 1 leaves all as it is, 0 gives every group the same.
        seed: The trial's seed.
        epoch: Number of the epoch, from 1.

    Source: Raffel et al. 2020 (JMLR 21), examples-proportional and temperature-scaled mixing.
    """
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    if exponent == 1 or len(members) < 2:
        return list(range(len(groups)))
    draw = random.Random(f"{seed}/{epoch}/mixing")
    weights = {group: len(own) ** exponent for group, own in members.items()}
    drawn = []
    for group, own in sorted(members.items()):
        wanted = max(1, round(len(groups) * weights[group] / sum(weights.values())))
        for _ in range(wanted // len(own)):
            drawn += own
        drawn += draw.sample(own, wanted % len(own))
    return drawn


def batch_by_length(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indexes of batches for prediction, longest first, each of at most ``batch_tokens`` padded tokens."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def _chunk(order: Sequence[int], size: int) -> list[list[int]]:
    return [list(order[at : at + size]) for at in range(0, len(order), size)]
