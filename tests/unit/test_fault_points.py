"""Every function at which the fault tests inject a fault exists, also after a renaming."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

FAULTS = Path(__file__).parent.parent / "faults"
PLACE = re.compile(r'"((?:search|clinie_core)(?:\.\w+)+:[\w.]+)"')
PLACES = sorted({place for file in FAULTS.rglob("*.py") for place in PLACE.findall(file.read_text(encoding="utf-8"))})


def test_places_are_found() -> None:
    assert len(PLACES) > 10


@pytest.mark.parametrize("place", PLACES)
def test_the_function_exists(place: str) -> None:
    module, _, name = place.partition(":")
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)
