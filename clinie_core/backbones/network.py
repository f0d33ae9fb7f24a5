"""Availability of the Hugging Face Hub: one bounded connection attempt per process, before libraries send requests.

The Hub's library retries failed requests for minutes. If the attempt fails, this process is switched to the library's
offline mode, as ``HF_HUB_OFFLINE`` does, and reads the local cache only.
"""

from __future__ import annotations

import logging
import socket
import threading
from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

__all__ = ["describe_outage", "silence_hub_libraries"]

PROBE_SECONDS = 3.0
"""Time for the connection attempt, name resolution included."""
PORTS = {"http": 80, "https": 443}
NOISY = ("huggingface_hub", "httpx", "httpx2", "filelock", "bitsandbytes")
"""Loggers whose warnings clinie replaces by its own messages, such as those of retried requests."""


def describe_outage() -> str:
    """Return why the Hub cannot be used; an empty string if it accepts connections.

    The address is that of ``HF_ENDPOINT``, or the proxy for it that the environment names. The result of the first
    attempt is kept until the process ends.
    """
    from huggingface_hub import constants

    silence_hub_libraries()
    if constants.is_offline_mode():
        return _failures.get(constants.ENDPOINT, "HF_HUB_OFFLINE is set")
    reason = _probe(constants.ENDPOINT)
    if not reason:
        return ""
    _failures[constants.ENDPOINT] = f"the Hub is unreachable ({reason})"
    constants.HF_HUB_OFFLINE = True
    return _failures[constants.ENDPOINT]


_failures: dict[str, str] = {}


def silence_hub_libraries() -> None:
    """Keep warnings and progress bars of the Hub's library, and of libraries that use it, off the terminal."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    disable_progress_bars()


@cache
def _probe(endpoint: str) -> str:
    """Return why no connection to the host of a URL is possible; an empty string if it is."""
    url = urlsplit(endpoint)
    host = url.hostname or ""
    proxy = None if proxy_bypass(url.netloc) else getproxies().get(url.scheme) or getproxies().get("all")
    if proxy:
        url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    address = (url.hostname or host, url.port or PORTS.get(url.scheme, 443))
    reasons: list[str] = []

    def attempt() -> None:
        try:
            socket.create_connection(address, PROBE_SECONDS).close()
        except OSError as error:
            reasons.append("unknown host" if isinstance(error, socket.gaierror) else error.strerror or "no answer")
        else:
            reasons.append("")

    # Name resolution has no time limit of its own.
    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return reasons[0] if reasons else f"no answer within {PROBE_SECONDS:g} s"
