"""Splits are complete, seeded and stratified, and each patient is in one split."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinie_core.data.corpora.splitting import Member, find_group, order_few_shot, stratify
from clinie_core.data.document import Document
from clinie_core.errors import InputError

types = st.dictionaries(st.sampled_from(["Drug", "ADE", "Dose", "Rare"]), st.integers(1, 5), max_size=4)
member = st.tuples(st.integers(0, 30), types)


def members_of(rows: list[tuple[int, dict[str, int]]]) -> list[Member]:
    return [Member(f"d{i:03d}", f"p{patient}", counts) for i, (patient, counts) in enumerate(rows)]


@given(rows=st.lists(member, min_size=1, max_size=60), seed=st.integers(0, 5))
def test_each_document_and_each_patient_is_in_one_part(rows: list[tuple[int, dict[str, int]]], seed: int) -> None:
    members = members_of(rows)
    parts = stratify(members, {"train": 0.7, "dev": 0.15, "test": 0.15}, seed)
    assert sorted(i for ids in parts.values() for i in ids) == sorted(m.id for m in members)
    part_of = {id_: part for part, ids in parts.items() for id_ in ids}
    for patient in {m.group for m in members}:
        assert len({part_of[m.id] for m in members if m.group == patient}) == 1
    assert stratify(list(reversed(members)), {"train": 0.7, "dev": 0.15, "test": 0.15}, seed) == parts


def test_parts_contain_their_share_of_each_type() -> None:
    members = [Member(f"d{i:03d}", f"d{i:03d}", {"Drug": 3, **({"ADE": 1} if i % 20 == 0 else {})}) for i in range(200)]
    parts = stratify(members, {"train": 0.8, "dev": 0.1, "test": 0.1}, seed=1)
    assert {part: len(ids) for part, ids in parts.items()} == {"train": 160, "dev": 20, "test": 20}
    rare = Counter(part for part, ids in parts.items() for id_ in ids if int(id_[1:]) % 20 == 0)
    assert rare == {"train": 8, "dev": 1, "test": 1}


@given(rows=st.lists(member, min_size=1, max_size=40), seed=st.integers(0, 5))
def test_few_shot_order_covers_every_type_early(rows: list[tuple[int, dict[str, int]]], seed: int) -> None:
    members = members_of(rows)
    order = order_few_shot(members, seed)
    assert sorted(order) == sorted(m.id for m in members)
    kinds = {type_ for m in members for type_ in m.type_counts}
    seen = {type_ for m in members if m.id in order[: len(kinds)] for type_ in m.type_counts}
    assert seen == kinds


def test_patient_is_found_by_metadata_or_id() -> None:
    document = Document("p17_n3", "x", metadata={"patient": "17"})
    assert find_group(document, None) == "p17_n3"
    assert find_group(document, r"^p(\d+)_") == "17"
    assert find_group(document, "metadata:patient") == "17"
    with pytest.raises(InputError, match="does not match"):
        find_group(document, "^q")
    with pytest.raises(InputError, match="has no metadata 'ward'"):
        find_group(document, "metadata:ward")
