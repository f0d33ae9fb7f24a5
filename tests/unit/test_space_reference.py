"""The reference of all keys of a space."""

from __future__ import annotations

import re

import pytest
import write_space_reference
from pydantic import Field

from clinie_core.config import FrozenModel
from clinie_core.finetuning import FINETUNING
from clinie_core.formulations import FORMULATIONS


def test_the_page_is_up_to_date() -> None:
    written = write_space_reference.PAGE.read_text(encoding="utf-8")
    assert written == write_space_reference.render_page(), "run: make reference"


def test_the_page_has_all_branches_and_tables_of_equal_width() -> None:
    page = write_space_reference.render_page()
    for part, registry in (("formulation", FORMULATIONS), ("finetuning", FINETUNING)):
        assert [name for name in registry if f"### `{part}.{name}`" not in page] == []
    for table in re.findall(r"(?:^\|.*\|\n)+", page, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


def test_a_key_without_a_description_is_an_error() -> None:
    class Block(FrozenModel):
        """Block of a space.

        Args:
            described: Number of
                things.
        """

        described: int = Field(default=1, ge=1)
        forgotten: int = 2

    assert write_space_reference.describe_key(Block, "described") == [
        "`described`",
        "Number of things.",
        "integer, at least 1",
        "`1`",
    ]
    with pytest.raises(SystemExit, match=r"Block\.forgotten has no description"):
        write_space_reference.describe_key(Block, "forgotten")
