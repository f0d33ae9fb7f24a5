"""How two lists of annotations are counted against each other, whatever kind of annotation it is.

Every kind becomes an :class:`Item`: a type, labels that must be equal, and stretches of text that
must be equal or overlap. The ways of counting ("modes") are

* ``strict``: type, labels and stretches are equal;
* ``lenient``: as the scorer of 2018 n2c2 track 2 counts (Henry et al. 2020, JAMIA 27(1)): equal type
  and labels and an overlap of at least one character in every stretch; further predictions on an
  annotation that is already found are dropped, and one prediction finds one annotation at most;
* ``overlap``: the same condition, counted by the largest set of pairs in which nothing occurs twice,
  so that gold and prediction can change places;
* ``partial`` and ``type``: as SemEval-2013 task 9.1 (Segura-Bedmar et al. 2013) and nervaluate count
  concepts: boundaries alone, half a point for an overlap; type alone, given an overlap. Both look
  across types.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clinie_core.scoring.scores import ALL, Counts

__all__ = ["MODES", "Item", "ItemCounter"]

Stretch = tuple[int, int]
ByType = dict[str, Counts]
ItemCounter = Callable[[Sequence["Item"], Sequence["Item"]], ByType]


@dataclass(frozen=True, order=True, slots=True)
class Item:
    """An annotation as scores see it.

    Args:
        stretches: First to last character of each part that must match.
        type: What it is counted under.
        labels: What else must be equal: the types of a relation's ends, an attribute's value.
    """

    stretches: tuple[Stretch, ...]
    type: str
    labels: tuple[str, ...] = ()

    def overlaps(self, other: Item) -> bool:
        """Whether every stretch shares a character with the other's."""
        return all(a[0] < b[1] and b[0] < a[1] for a, b in zip(self.stretches, other.stretches, strict=True))


def _strict(gold: Sequence[Item], predicted: Sequence[Item]) -> ByType:
    found = Counter(item.type for item in set(gold) & set(predicted))
    wanted, given = Counter(item.type for item in set(gold)), Counter(item.type for item in set(predicted))
    return {t: Counts(found[t], given[t] - found[t], wanted[t] - found[t]) for t in wanted | given}


def _grouped(
    gold: Sequence[Item], predicted: Sequence[Item], count: Callable[[list[Item], list[Item]], Counts]
) -> ByType:
    """Count items of equal type and labels against each other."""
    groups: defaultdict[tuple[str, tuple[str, ...]], tuple[list[Item], list[Item]]] = defaultdict(lambda: ([], []))
    for side, items in enumerate((gold, predicted)):
        for item in sorted(set(items)):
            groups[item.type, item.labels][side].append(item)
    total: defaultdict[str, Counts] = defaultdict(Counts)
    for (type_, _), (ours, theirs) in groups.items():
        total[type_] += count(ours, theirs)
    return dict(total)


def _official(gold: list[Item], predicted: list[Item]) -> Counts:
    exact = set(gold) & set(predicted)
    found, fp = set(exact), 0
    # Exact predictions have taken their own annotation; a lenient score is then never below a strict one.
    for item in predicted:
        if item in exact:
            continue
        over = [g for g in gold if g.overlaps(item)]
        free = next((g for g in over if g not in found), None)
        if free is not None:
            found.add(free)
        fp += not over
    return Counts(len(found), fp, len(gold) - len(found))


def _matched(gold: list[Item], predicted: list[Item]) -> Counts:
    import numpy as np
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    pairs = [(i, j) for i, g in enumerate(gold) for j, p in enumerate(predicted) if g.overlaps(p)]
    tp = 0
    if pairs:
        rows, columns = zip(*pairs, strict=True)
        graph = csr_array((np.ones(len(pairs)), (rows, columns)), shape=(len(gold), len(predicted)))
        tp = int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
    return Counts(tp, len(predicted) - tp, len(gold) - tp)


def _semeval(gold: Sequence[Item], predicted: Sequence[Item], *, by_type: bool) -> ByType:
    """Each prediction in order takes the best annotation that is free, or else the first it overlaps."""
    free, points = sorted(gold), 0.0
    for item in sorted(predicted):
        over = [g for g in free if g.overlaps(item)]
        if by_type:
            same = [g for g in over if g.type == item.type]
            best = min(same, key=lambda g: _distance(g, item), default=None)
            points += best is not None
        else:
            best = next((g for g in over if g.stretches == item.stretches), None)
            points += 1 if best is not None else 0.5 if over else 0
        if over:
            free.remove(best or over[0])
    return {ALL: Counts(points, len(predicted) - points, len(gold) - points)} if gold or predicted else {}


def _distance(a: Item, b: Item) -> int:
    return sum(abs(x[0] - y[0]) + abs(x[1] - y[1]) for x, y in zip(a.stretches, b.stretches, strict=True))


MODES: dict[str, ItemCounter] = {
    "strict": _strict,
    "lenient": lambda gold, predicted: _grouped(gold, predicted, _official),
    "overlap": lambda gold, predicted: _grouped(gold, predicted, _matched),
    "partial": lambda gold, predicted: _semeval(gold, predicted, by_type=False),
    "type": lambda gold, predicted: _semeval(gold, predicted, by_type=True),
}
