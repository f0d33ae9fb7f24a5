"""Seeded splits of documents, stratified by concept type, with each patient in one split."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clinie_core.data.document import Document
from clinie_core.errors import fail
from clinie_core.shown_ids import show_id

__all__ = ["Member", "find_group", "order_few_shot", "select_few_shot", "stratify"]

METADATA = "metadata:"


@dataclass(frozen=True)
class Member:
    """The properties of a document that a split depends on.

    Args:
        id: Id of the document.
        group: Patient of the document; the documents of a group are never separated.
        type_counts: Number of concepts of each type.
    """

    id: str
    group: str
    type_counts: Mapping[str, int]

    @classmethod
    def from_document(cls, document: Document, rule: str | None) -> Member:
        """Collect the properties of a document; see :func:`find_group` for the rule."""
        return cls(document.id, find_group(document, rule), Counter(c.type for c in document.concepts))


def find_group(document: Document, rule: str | None) -> str:
    """Return the patient that a document belongs to.

    Args:
        document: The document.
        rule: ``metadata:KEY``, or a regular expression over the id whose first group (or else whole
            match) is the patient; None treats each document as its own patient.

    Raises:
        InputError: If the rule does not apply to the document, since its patient could leak.
    """
    if rule is None:
        return document.id
    if rule.startswith(METADATA):
        key = rule.removeprefix(METADATA)
        if key not in document.metadata:
            fail(
                "group",
                f"document {show_id(document.id)} has no metadata {key!r}",
                allowed=", ".join(document.metadata) or "none",
            )
        return document.metadata[key]
    try:
        match = re.search(rule, document.id)
    except re.error as error:
        fail("group", f"not a regular expression: {error}", allowed="a pattern over document ids, or metadata:KEY")
    if match is None:
        fail(
            "group", f"document {show_id(document.id)} does not match {rule!r}", allowed="a pattern that fits every id"
        )
    return match[1] if match.re.groups else match[0]


def stratify(members: Iterable[Member], shares: Mapping[str, float], seed: int) -> dict[str, list[str]]:
    """Divide documents so that each part has its share of documents and of each concept type.

    This is iterative stratification (Sechidis et al. 2011, ECML PKDD) over groups instead of examples. Groups
    with the type that is rarest among the unassigned groups come first. Each group is assigned to the part
    with the largest deficit of that type.

    Args:
        members: The documents.
        shares: Share of each part; the shares sum to 1.
        seed: Seed of the split; the result does not depend on the order of the documents.

    Returns:
        The sorted ids of each part.
    """
    rng = random.Random(seed)
    groups: defaultdict[str, list[Member]] = defaultdict(list)
    for member in sorted(members, key=lambda m: m.id):
        groups[member.group].append(member)
    names = sorted(groups)
    rng.shuffle(names)
    types = {name: sum((Counter(m.type_counts) for m in groups[name]), Counter[str]()) for name in names}
    size = {name: len(groups[name]) for name in names}
    total = sum(types.values(), Counter[str]())
    remaining_counts = {
        part: {type_: share * count for type_, count in total.items()} for part, share in shares.items()
    }
    remaining_size = {part: share * sum(size.values()) for part, share in shares.items()}
    parts: dict[str, list[str]] = {part: [] for part in shares}
    unassigned = dict.fromkeys(names)

    def assign(name: str, part: str) -> None:
        parts[part] += [m.id for m in groups[name]]
        remaining_size[part] -= size[name]
        for type_, count in types[name].items():
            remaining_counts[part][type_] -= count
        del unassigned[name]

    holders: Counter[str] = Counter(type_ for name in names for type_ in types[name])
    while +holders:
        rarest = min(+holders, key=lambda t: (holders[t], t))
        with_it = [name for name in unassigned if rarest in types[name]]
        for name in sorted(with_it, key=lambda n: -types[n][rarest]):
            assign(name, max(shares, key=lambda p: (remaining_counts[p][rarest], remaining_size[p])))
            holders.subtract(types[name].keys())
    for name in sorted(unassigned, key=lambda n: -size[n]):  # groups without concepts fill the parts that are too small
        assign(name, max(shares, key=lambda p: remaining_size[p]))
    return {part: sorted(ids) for part, ids in parts.items()}


def order_few_shot(members: Sequence[Member], seed: int) -> list[str]:
    """Order documents so that each prefix is a few-shot sample; the samples are nested.

    The order is random, but documents with a type that has not yet occurred come first, rarest type first.
    Small samples thus cover as many types as possible.

    Args:
        members: The documents of the training split.
        seed: Seed of the order.

    Returns:
        The ids of all documents.
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
    """Return the first ``count`` documents by :func:`order_few_shot`, or all if there are fewer."""
    by_id = {document.id: document for document in documents}
    order = order_few_shot([Member.from_document(document, None) for document in documents], seed)
    return tuple(by_id[id_] for id_ in order[:count])
