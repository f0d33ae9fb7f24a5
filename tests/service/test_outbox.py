"""The outbox delivers events in order and exactly once, whatever fails."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.tracking.outbox import Event, Outbox


class Away(Exception):
    """The server is unavailable."""


class Server:
    """A server that accepts events unless it is unavailable; a connection can break after an event was accepted."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.taken: list[int] = []

    def deliver(self, event: Event, again: bool) -> None:
        call = self.calls.pop(0) if self.calls else "takes"
        if call == "away":
            raise Away
        if not (again and event["n"] in self.taken):
            self.taken.append(event["n"])
        if call == "cut off":
            raise Away


def outbox(folder: Path, server: Server) -> Outbox:
    return Outbox(folder / "outbox.jsonl", server.deliver, lambda error: isinstance(error, Away))


@given(
    calls=st.lists(st.sampled_from(["takes", "away", "cut off"]), max_size=30),
    restarts=st.sets(st.integers(0, 9), max_size=3),
)
def test_everything_arrives_once_and_in_order(calls: list[str], restarts: set[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server()
        server.calls = list(calls)
        box = outbox(Path(folder), server)
        for n in range(10):
            if n in restarts:
                box = outbox(Path(folder), server)
            box.put({"n": n})
        server.calls = []
        assert box.flush()
        assert server.taken == list(range(10))
        assert list(Path(folder).iterdir()) == []


def test_a_truncated_line_is_dropped_and_the_next_one_is_complete(tmp_path: Path) -> None:
    server = Server()
    server.calls = ["away"] * 2
    box = outbox(tmp_path, server)
    box.put({"n": 0})
    with (tmp_path / "outbox.jsonl").open("ab") as file:
        file.write(b'{"n": 1')
    again = outbox(tmp_path, server)
    again.put({"n": 2})
    assert again.flush()
    assert server.taken == [0, 2]


def test_an_event_that_the_server_rejects_is_not_stored(tmp_path: Path) -> None:
    def wrong(event: Event, again: bool) -> None:
        raise ValueError("no such run")

    box = Outbox(tmp_path / "outbox.jsonl", wrong, lambda error: isinstance(error, Away))
    with pytest.raises(ValueError, match="no such run"):
        box.put({"n": 0})
    assert not (tmp_path / "outbox.jsonl").exists()
