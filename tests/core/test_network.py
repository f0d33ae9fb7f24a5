"""The Hub's availability is determined by one connection attempt."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from huggingface_hub import constants, is_offline_mode

from clinie_core.backbones.network import describe_outage


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket that accepts connections, as the address of the Hub."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


def test_the_hub_is_asked_once_per_process(listener: socket.socket) -> None:
    assert [describe_outage() for _ in range(3)] == ["", "", ""]
    listener.accept()[0].close()
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):  # no second connection waits
        listener.accept()


def test_an_unreachable_hub_switches_the_library_offline(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener.close()
    assert describe_outage() == "the Hub is unreachable (Connection refused)"
    assert is_offline_mode()
    assert describe_outage() == "the Hub is unreachable (Connection refused)"


def test_offline_mode_needs_no_connection(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert describe_outage() == "HF_HUB_OFFLINE is set"
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_a_proxy_is_asked_instead_of_the_hub(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", constants.ENDPOINT)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
    assert describe_outage() == ""
    listener.accept()[0].close()
