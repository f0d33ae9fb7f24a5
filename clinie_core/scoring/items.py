"""Counting modes that compare gold with predicted annotations of any kind.

Each annotation is converted to an :data:`Item`: a type, labels that must be equal, and text ranges that
must be equal or overlap. The modes are

* ``strict``: type, labels and ranges are equal;
* ``lenient``: equal type and labels and an overlap of at least one character in every range. Each prediction
  matches at most one annotation, and further predictions that overlap a matched annotation are ignored.
  :mod:`clinie_core.scoring.n2c2_2018` counts as the script of 2018 n2c2 track 2 does, which differs;
* ``overlap``: the same condition, counted by a maximum one-to-one matching, which is symmetric in gold and
  prediction;
* ``partial`` and ``type``: SemEval-2013 task 9.1 (Segura-Bedmar et al. 2013), as nervaluate counts them.
  ``partial`` compares boundaries only, with half a point for an overlap; ``type`` compares types of
  overlapping concepts. Both ignore types when they match concepts.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property

from clinie_core.scoring.scores import ALL_TYPES, Triple

__all__ = [
    "MODES",
    "ByType",
    "Item",
    "ItemCounter",
    "ItemSets",
    "OverlapIndex",
    "build_counts",
    "count_types",
    "group_by_labels",
]

Item = tuple[tuple[int, ...], str, tuple[str, ...]]
"""Start and end of each range that must match; the type that is counted; labels that must be equal
(the types of a relation's ends, an attribute's value). A plain tuple for speed."""
ByType = dict[str, Triple]


class ItemSets:
    """Gold and predicted items of one document, with cached sets that several modes share.

    Args:
        gold: Annotated items, in the order of the document.
        predicted: Predicted items, in the order of the document.
    """

    def __init__(self, gold: Iterable[Item], predicted: Iterable[Item]) -> None:
        self.ordered_gold = tuple(gold)
        self.ordered_predicted = tuple(predicted)
        self.gold = frozenset(self.ordered_gold)
        self.predicted = frozenset(self.ordered_predicted)

    @cached_property
    def exact(self) -> frozenset[Item]:
        """Items that are both annotated and predicted."""
        return self.gold & self.predicted

    @cached_property
    def unmatched(self) -> frozenset[Item]:
        """Predicted items without an identical gold item."""
        return self.predicted - self.exact

    @cached_property
    def exact_types(self) -> Counter[str]:
        """Number of exact matches of each type."""
        return count_types(self.exact)

    @cached_property
    def gold_types(self) -> Counter[str]:
        """Number of gold items of each type."""
        return count_types(self.gold)


ItemCounter = Callable[[ItemSets], ByType]


class OverlapIndex:
    """Items sorted by position, to find overlapping items by binary search."""

    def __init__(self, items: Iterable[Item]) -> None:
        self.items = sorted(items)
        first = [ranges[:2] or (0, 1) for ranges, _, _ in self.items]
        self._starts = [start for start, _ in first]
        self._longest = max((end - start for start, end in first), default=1)

    def find_overlapping(self, item: Item) -> list[Item]:
        """Return the items that overlap the given one in every range, in order."""
        ranges = item[0]
        if not ranges:
            return self.items
        begin = bisect_right(self._starts, ranges[0] - self._longest)
        stop = bisect_left(self._starts, ranges[1])
        near = [other for other in self.items[begin:stop] if other[0][1] > ranges[0]]
        for i in range(2, len(ranges), 2):
            near = [o for o in near if o[0][i] < ranges[i + 1] and ranges[i] < o[0][i + 1]]
        return near


def count_types(items: Iterable[Item]) -> Counter[str]:
    """Count the items of each type."""
    return Counter([type_ for _, type_, _ in items])


def build_counts(tp: Counter[str], fp: Counter[str], gold: Counter[str]) -> ByType:
    """Build the counts by type from true positives, false positives and annotations."""
    return {t: (tp[t], fp[t], gold[t] - tp[t]) for t in {*gold, *fp}}


def _count_strict(items: ItemSets) -> ByType:
    return build_counts(items.exact_types, count_types(items.unmatched), items.gold_types)


def group_by_labels(items: Iterable[Item]) -> defaultdict[tuple[str, tuple[str, ...]], list[Item]]:
    """Group items by type and labels, since only items of one group can match."""
    groups: defaultdict[tuple[str, tuple[str, ...]], list[Item]] = defaultdict(list)
    for item in items:
        groups[item[1:]].append(item)
    return groups


def _count_lenient(items: ItemSets) -> ByType:
    # Exact predictions match first, so that a lenient score is never below the strict one.
    gold, exact, others = items.gold, items.exact, items.unmatched
    tp, fp, matched = Counter(items.exact_types), Counter[str](), set[Item]()
    types = {type_ for _, type_, _ in others}
    index = {key: OverlapIndex(group) for key, group in group_by_labels(g for g in gold if g[1] in types).items()}
    for item in sorted(others):
        over = index[item[1:]].find_overlapping(item) if item[1:] in index else []
        free = next((g for g in over if g not in exact and g not in matched), None)
        if free is not None:
            matched.add(free)
            tp[item[1]] += 1
        elif not over:
            fp[item[1]] += 1
    return build_counts(tp, fp, items.gold_types)


def _count_overlap(items: ItemSets) -> ByType:
    gold, predicted = group_by_labels(items.gold), group_by_labels(items.predicted)
    tp = Counter[str]()
    for key in gold.keys() & predicted.keys():
        tp[key[0]] += _match_maximum(OverlapIndex(gold[key]), predicted[key])
    return build_counts(tp, count_types(items.predicted) - tp, items.gold_types)


def _match_maximum(gold: OverlapIndex, predicted: list[Item]) -> int:
    """Return the size of a maximum one-to-one matching of overlapping items."""
    import numpy as np
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    number = {item: i for i, item in enumerate(gold.items)}
    pairs = [(number[g], j) for j, p in enumerate(predicted) for g in gold.find_overlapping(p)]
    if len({i for i, _ in pairs}) == len(pairs) == len({j for _, j in pairs}):
        return len(pairs)
    rows, columns = zip(*pairs, strict=True)
    graph = csr_array((np.ones(len(pairs)), (rows, columns)), shape=(len(gold.items), len(predicted)))
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())


def _count_semeval(items: ItemSets, *, by_type: bool) -> ByType:
    """Match each prediction in order with the best unmatched annotation, else the first that it overlaps."""
    gold, predicted = items.gold, items.predicted
    index, taken, points = OverlapIndex(gold), set[Item](), 0.0
    for item in sorted(predicted):
        over = [g for g in index.find_overlapping(item) if g not in taken]
        if not over:
            continue
        if by_type:
            same = [g for g in over if g[1] == item[1]]
            best = (
                min(same, key=lambda g: _boundary_distance(g, item), default=None)
                if len(same) > 1
                else next(iter(same), None)
            )
            points += best is not None
        else:
            best = next((g for g in over if g[0] == item[0]), None)
            points += 1 if best is not None else 0.5
        taken.add(best or over[0])
    return {ALL_TYPES: (points, len(predicted) - points, len(gold) - points)} if gold or predicted else {}


def _boundary_distance(a: Item, b: Item) -> int:
    return sum(abs(x - y) for x, y in zip(a[0], b[0], strict=True))


MODES: dict[str, ItemCounter] = {
    "strict": _count_strict,
    "lenient": _count_lenient,
    "overlap": _count_overlap,
    "partial": lambda items: _count_semeval(items, by_type=False),
    "type": lambda items: _count_semeval(items, by_type=True),
}
