"""What every fine-tuning method keeps; a new row of the table is tested without a new test."""

from __future__ import annotations

import pytest

from clinie_core.errors import ErrorList
from clinie_core.finetuning import FINETUNING
from search.config.domains import parse_domain


@pytest.mark.parametrize("name", FINETUNING)
class TestFineTuningMethod:
    def test_its_shipped_ranges_are_legal_and_hold_a_learning_rate(self, name: str) -> None:
        row = FINETUNING.load(name)
        assert "learning_rate" in row.ranges
        assert set(row.ranges) <= set(row.model_fields)
        errors = ErrorList()
        corners = {key: parse_domain(value, key, errors).corners for key, value in row.ranges.items()}
        errors.raise_if_any()
        first = {key: values[0] for key, values in corners.items()}
        for key, values in corners.items():
            for value in values:
                row.model_validate(first | {key: value})

    def test_its_docstring_says_what_it_is(self, name: str) -> None:
        assert (FINETUNING.load(name).__doc__ or "").strip()
