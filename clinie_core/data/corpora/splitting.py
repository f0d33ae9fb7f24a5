"""Splits of documents: seeded, stratified by concept type, a patient's documents always together."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clinie_core.data.document import Document
from clinie_core.errors import fail

__all__ = ["Member", "find_group", "order_few_shot", "select_few_shot", "stratify"]

METADATA = "metadata:"


@dataclass(frozen=True)
class Member:
    """What a split needs to know of a document.

    Args:
        id: The document.
        group: Its patient: documents of one group are never parted.
        types: How often each concept type occurs in it.
    """

    id: str
    group: str
    type_counts: Mapping[str, int]

    @classmethod
    def from_document(cls, document: Document, rule: str | None) -> Member:
        """A document's member; see :func:`find_group` for the rule."""
        return cls(document.id, find_group(document, rule), Counter(c.type for c in document.concepts))


def find_group(document: Document, rule: str | None) -> str:
    """The patient that a document belongs to.

    Args:
        document: The document.
        rule: ``metadata:KEY``, or a regular expression over the id whose first group (or else whole
            match) is the patient; None takes each document for a patient of its own.

    Raises:
        InputError: If the rule does not fit the document: a patient could leak.
    """
    if rule is None:
        return document.id
    if rule.startswith(METADATA):
        key = rule.removeprefix(METADATA)
        if key not in document.metadata:
            fail(
                "group",
                f"document {document.id} has no metadata {key!r}",
                allowed=", ".join(document.metadata) or "none",
            )
        return document.metadata[key]
    try:
        match = re.search(rule, document.id)
    except re.error as error:
        fail("group", f"not a regular expression: {error}", allowed="a pattern over document ids, or metadata:KEY")
    if match is None:
        fail("group", f"document {document.id} does not match {rule!r}", allowed="a pattern that fits every id")
    return match[1] if match.re.groups else match[0]


def stratify(members: Iterable[Member], shares: Mapping[str, float], seed: int) -> dict[str, list[str]]:
    """Divide documents so that each part has its share of documents and of each concept type.

    Iterative stratification (Sechidis et al. 2011, ECML PKDD) over groups instead of examples:
    the type that fewest groups still have is dealt out first, each group to the part that lacks
    most of that type.

    Args:
        members: The documents.
        shares: Part to its share of the whole; they sum to 1.
        seed: Equal seeds divide equal documents alike, whatever their order.

    Returns:
        Part to the ids in it, sorted.
    """
    draw = random.Random(seed)
    groups: defaultdict[str, list[Member]] = defaultdict(list)
    for member in sorted(members, key=lambda m: m.id):
        groups[member.group].append(member)
    names = sorted(groups)
    draw.shuffle(names)
    types = {name: sum((Counter(m.type_counts) for m in groups[name]), Counter[str]()) for name in names}
    size = {name: len(groups[name]) for name in names}
    total = sum(types.values(), Counter[str]())
    wanted = {part: {type_: share * count for type_, count in total.items()} for part, share in shares.items()}
    room = {part: share * sum(size.values()) for part, share in shares.items()}
    parts: dict[str, list[str]] = {part: [] for part in shares}
    open_ = dict.fromkeys(names)

    def give(name: str, part: str) -> None:
        parts[part] += [m.id for m in groups[name]]
        room[part] -= size[name]
        for type_, count in types[name].items():
            wanted[part][type_] -= count
        del open_[name]

    holders: Counter[str] = Counter(type_ for name in names for type_ in types[name])
    while +holders:
        rarest = min(+holders, key=lambda t: (holders[t], t))
        with_it = [name for name in open_ if rarest in types[name]]
        for name in sorted(with_it, key=lambda n: -types[n][rarest]):
            give(name, max(shares, key=lambda p: (wanted[p][rarest], room[p])))
            holders.subtract(types[name].keys())
    for name in sorted(open_, key=lambda n: -size[n]):  # groups without a concept fill up what is short
        give(name, max(shares, key=lambda p: room[p]))
    return {part: sorted(ids) for part, ids in parts.items()}


def order_few_shot(members: Sequence[Member], seed: int) -> list[str]:
    """An order of documents whose every beginning is a fair few-shot sample; shorter ones lie in longer ones.

    The order is random, but a document that shows a type not yet seen comes before one that shows
    nothing new, rarest type first, so that five documents do not all lack a type.

    Args:
        members: The documents of the training split.
        seed: Equal seeds order equal documents alike.
    """
    pool = sorted(members, key=lambda m: m.id)
    random.Random(seed).shuffle(pool)
    documents_with = Counter(type_ for member in pool for type_ in member.type_counts)
    unseen = set(documents_with)
    order: list[str] = []
    while unseen and pool:
        rarest = min(unseen, key=lambda t: (documents_with[t], t))
        chosen = max(
            (m for m in pool if rarest in m.type_counts),
            key=lambda m: len(unseen & m.type_counts.keys()),
        )
        pool.remove(chosen)
        order.append(chosen.id)
        unseen -= chosen.type_counts.keys()
    return order + [m.id for m in pool]


def select_few_shot(documents: Sequence[Document], count: int, seed: int) -> tuple[Document, ...]:
    """The first ``count`` documents of :func:`order_few_shot`; all where there are no more."""
    by_id = {document.id: document for document in documents}
    order = order_few_shot([Member.from_document(document, None) for document in documents], seed)
    return tuple(by_id[id_] for id_ in order[:count])
