"""Open a page of a server in the user's browser as soon as the server answers."""

from __future__ import annotations

import os
import subprocess
import sys

__all__ = ["open_browser"]

WAIT_SECONDS = 60
PROGRAM = """
import sys, time, urllib.error, urllib.request, webbrowser
server, path, seconds = sys.argv[1:]
deadline = time.monotonic() + float(seconds)
while time.monotonic() < deadline:
    try:
        urllib.request.urlopen(server, timeout=2).close()
    except urllib.error.HTTPError:
        pass
    except OSError:
        time.sleep(0.2)
        continue
    webbrowser.open(server + path)
    break
"""


def open_browser(server: str, path: str) -> None:
    """Open a page in a browser once its server answers; no-op without a graphical display.

    The caller does not wait, so that it can become the server. Without a display, Python would start a text browser
    in the terminal.

    Args:
        server: Address of the server.
        path: Path of the page.
    """
    has_display = sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if has_display:
        command = [sys.executable, "-c", PROGRAM, server, path, str(WAIT_SECONDS)]
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
