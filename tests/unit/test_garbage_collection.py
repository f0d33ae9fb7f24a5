"""Suspended garbage collection at the start of a process."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from clinie_core.garbage_collection import suspend_collection


class Node:
    """Object that can be part of a reference cycle."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def collection() -> Iterator[None]:
    """Undo the exclusion of objects from collection."""
    yield
    gc.enable()
    gc.unfreeze()


def test_collection_is_suspended_within_the_context_only() -> None:
    with suspend_collection():
        assert not gc.isenabled()
        with suspend_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_later_collections_skip_the_objects_that_were_loaded() -> None:
    with suspend_collection():
        loaded = Node()
    assert gc.get_freeze_count() > 0
    old, new = weakref.ref(loaded), weakref.ref(Node())
    del loaded
    gc.collect()
    assert old() is not None
    assert new() is None


def test_collection_is_restored_after_an_error() -> None:
    with pytest.raises(ValueError, match="unreadable"), suspend_collection():
        raise ValueError("unreadable")
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_collection_stays_disabled_if_the_caller_has_disabled_it() -> None:
    gc.disable()
    with suspend_collection():
        pass
    assert not gc.isenabled()
