"""Comparison of two versions of a document item by item, independent of annotation ids.

It measures the loss of a conversion from the document that is read back, not from a format's specification.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from itertools import accumulate

from clinie_core.data.document import Document

__all__ = ["count_differences"]

ADDITIONS_ALLOWED = ("sections", "metadata")
"""Kinds of items that a format may add to a document."""
Place = tuple[tuple[int, int], ...]


def count_differences(before: Document, after: Document) -> Counter[str]:
    """Count the items of each kind that differ between two versions of a document.

    Ids of annotations are ignored, since many formats renumber them. If the texts differ only in white space,
    offsets are compared after removing white space.

    Args:
        before: The original document.
        after: The document read back.

    Returns:
        Number of lost or changed items by kind (``text``, ``concepts``, ``relations``, ...); kinds without
        a difference are omitted.
    """
    found: Counter[str] = Counter()
    found["document ids"] = int(before.id != after.id)
    exact = before.text == after.text
    if not exact:
        same_words = "".join(before.text.split()) == "".join(after.text.split())
        found["text (white space)" if same_words else "text"] = 1
    ours, theirs = _collect_items(before, exact=exact), _collect_items(after, exact=exact)
    for kind in ours:
        lost = (ours[kind] - theirs[kind]).total()
        added = (theirs[kind] - ours[kind]).total() - lost
        found[kind] = lost
        if kind not in ADDITIONS_ALLOWED:
            found[f"{kind} that were not there"] = added
    return +found


def _collect_items(document: Document, *, exact: bool) -> dict[str, Counter[Hashable]]:
    place = _keep_offsets if exact else _count_visible_characters(document.text)
    concepts: dict[str, Hashable] = {
        c.id: (c.type, place(tuple((s.start, s.end) for s in c.spans))) for c in document.concepts
    }
    relations: dict[str, Hashable] = {
        r.id: (r.type, concepts.get(r.head), concepts.get(r.tail)) for r in document.relations
    }
    linked = {r.id: (r.type, r.head, r.tail) for r in document.entity_relations}
    targets: Mapping[str, Hashable] = concepts | relations | linked
    attributes: dict[str, Hashable] = {a.id: (a.type, targets.get(a.target), a.value) for a in document.attributes}
    known: Mapping[str, Hashable] = {**targets, **attributes}
    return {
        "concepts": Counter(concepts.values()),
        "relations": Counter(relations.values()),
        "attributes": Counter(attributes.values()),
        "normalizations": Counter(
            (known.get(n.target), n.database, n.reference, n.name) for n in document.normalizations
        ),
        "equivalences": Counter((e.type, frozenset(known.get(m) for m in e.members)) for e in document.equivalences),
        "notes": Counter((n.type, known.get(n.target), " ".join(n.text.split())) for n in document.notes),
        "document-level relations": Counter(linked.values()),
        "sections": Counter((s.type, place(((s.span.start, s.span.end),))) for s in document.sections),
        "metadata": Counter(document.metadata.items()),
    }


def _keep_offsets(spans: Place) -> Place:
    return spans


def _count_visible_characters(text: str) -> Callable[[Place], Place]:
    """Return a function that converts offsets to counts of characters that are not white space."""
    before = [0, *accumulate(not c.isspace() for c in text)]
    return lambda spans: tuple((before[start], before[end]) for start, end in spans)
