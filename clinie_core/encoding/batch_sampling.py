"""Assignment of examples to batches: grouped by length, reshuffled each epoch.

Batches of similar lengths need little padding. The order depends on seed and epoch only, so a resumed
trial trains on the same batches as an uninterrupted one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

__all__ = ["batch_by_length", "draw_epoch_batches", "sample_mixture"]

BATCHES_PER_POOL = 50


def draw_epoch_batches(lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Draw the training batches of one epoch.

    Examples are shuffled, sorted by length within pools of 50 batches, and divided into batches; then the
    batches are shuffled. Batches thus have similar lengths and differ between epochs.

    Args:
        lengths: Length of each example in tokens.
        batch_size: Number of examples per batch; the last batch may be smaller.
        seed: The trial's seed.
        epoch: 1-based number of the epoch.

    Returns:
        The example indices of each batch.
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
    """Draw the examples of one epoch from several groups by temperature-scaled mixing.

    The total number of examples stays the same. The share of a group of n examples is proportional to n to
    the power of ``exponent``. A group with a larger share than size repeats examples; a group with a smaller
    share omits some in this epoch.

    Args:
        groups: The group of each example.
        exponent: 1 keeps the proportions, 0 gives every group the same share.
        seed: The trial's seed.
        epoch: 1-based number of the epoch.

    Returns:
        Indices of the drawn examples.

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


def batch_by_length(
    lengths: Sequence[int], batch_tokens: int, *, generated: int = 0, cached_tokens: int | None = None
) -> list[list[int]]:
    """Divide examples into prediction batches, longest examples first.

    Args:
        lengths: Length of each example in tokens.
        batch_tokens: Largest number of padded tokens in a batch of more than one example.
        generated: Number of tokens that are generated for each example.
        cached_tokens: Largest number of padded and generated tokens in such a batch; None for no limit.

    Returns:
        The example indices of each batch.
    """
    batches: list[list[int]] = []

    def has_room(batch: list[int]) -> bool:
        rows, longest = len(batch) + 1, lengths[batch[0]]
        cached = rows * (longest + generated)
        return rows * longest <= batch_tokens and (cached_tokens is None or cached <= cached_tokens)

    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and has_room(batches[-1]):
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def _chunk(order: Sequence[int], size: int) -> list[list[int]]:
    return [list(order[at : at + size]) for at in range(0, len(order), size)]
