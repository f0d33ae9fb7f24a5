"""Contract of fine-tuning methods, tested for every row of the registry."""

from __future__ import annotations

import re

import pytest

from clinie_core.errors import ErrorList
from clinie_core.finetuning import FINETUNING
from search.config.domains import parse_domain


@pytest.mark.parametrize("name", FINETUNING)
class TestFineTuningMethod:
    def test_its_default_ranges_are_valid_and_contain_a_learning_rate(self, name: str) -> None:
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

    def test_its_docstring_describes_exactly_its_own_parameters(self, name: str) -> None:
        row = FINETUNING.load(name)
        arguments = (row.__doc__ or "").partition("Args:")[2]
        parameters = {field for field in row.__annotations__ if field in row.model_fields}
        assert set(re.findall(r"^ +(\w+): ", arguments, re.MULTILINE)) == parameters
