"""Counts of representable concepts that plans keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from search.config.validation import validate_space
from search.study import cached_limits
from search.study.cached_limits import read_or_measure_limits


def test_kept_counts_equal_measured_ones_and_depend_on_the_corpus(
    write_space: Callable[[Mapping[str, Any]], Path],
    space_content: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLINIE_CACHE", str(tmp_path / "cache"))
    validated = validate_space(str(write_space(space_content)), plan_only=True)
    assert validated.corpus is not None
    measured = read_or_measure_limits(validated.space, validated.corpus)
    monkeypatch.setattr(cached_limits, "measure_limits", None)  # a second measurement would fail
    kept = read_or_measure_limits(validated.space, validated.corpus)
    assert kept == measured
    assert str(kept[0][0]) == str(measured[0][0])
    with pytest.raises(TypeError):
        read_or_measure_limits(validated.space, validated.corpus.restrict_types({"Drug"}, ()))
