"""Counting modes of the evaluation script of 2018 n2c2 track 2.

Predictions are read in order. A prediction that touches an annotation which an earlier prediction touched is
left out of all counts, even if it also touches another annotation. Otherwise it is a true positive if it
touches an annotation, and a false positive if it touches none. False negatives are the annotations minus
the true positives. An annotation is touched by a prediction of the same type and labels whose ranges are
equal (``strict``) or overlap in at least one character (``lenient``).

A prediction that touches several annotations is therefore one true positive, and the other annotations can
no longer be matched. Unlike in :mod:`clinie_core.scoring.items`, duplicates count, a lenient score can be
below the strict one, and the lenient score depends on the order of the predictions.

Source: Henry et al. 2020, JAMIA 27(1), and its script ``track2-evaluate-ner.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from clinie_core.scoring.items import (
    ByType,
    Item,
    ItemCounter,
    ItemSets,
    OverlapIndex,
    build_counts,
    count_types,
    group_by_labels,
)

__all__ = ["MODES"]


def _count_strict(items: ItemSets) -> ByType:
    gold = items.gold
    return _count_first_touches(items, lambda item: (item,) if item in gold else ())


def _count_lenient(items: ItemSets) -> ByType:
    index = {key: OverlapIndex(group) for key, group in group_by_labels(items.gold).items()}
    return _count_first_touches(items, lambda item: index[item[1:]].find_overlapping(item) if item[1:] in index else ())


def _count_first_touches(items: ItemSets, find_touched: Callable[[Item], Iterable[Item]]) -> ByType:
    tp, fp, matched = Counter[str](), Counter[str](), set[Item]()
    for item in items.ordered_predicted:
        touched = frozenset(find_touched(item))
        if not touched:
            fp[item[1]] += 1
        elif matched.isdisjoint(touched):
            tp[item[1]] += 1
        matched |= touched
    return build_counts(tp, fp, count_types(items.ordered_gold))


MODES: dict[str, ItemCounter] = {"strict": _count_strict, "lenient": _count_lenient}
