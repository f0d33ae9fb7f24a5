"""Attributes of trials share equal values."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from search.ledger.sharing import MAX_BLOCKS, SharedValues

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(st.lists(values, max_size=10))
def test_shared_values_equal_those_that_were_read(read: list[Any]) -> None:
    shared = SharedValues()
    assert [json.dumps(shared.share(value)) for value in read] == [json.dumps(value) for value in read]


def test_equal_blocks_are_one_object_also_after_many_others() -> None:
    shared = SharedValues()
    text = '{"config": {"backbone": {"name": "tiny", "layers": [1, 2]}, "seed": %d}}'
    first = shared.share(json.loads(text % 0))["config"]["backbone"]
    for seed in range(1, 2 * MAX_BLOCKS):
        assert shared.share(json.loads(text % seed))["config"]["backbone"] is first
