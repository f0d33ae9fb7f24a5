"""Injects a fault into the processes of a search: kills a process, raises an error, or waits for the test.

Python imports this module at the start of every process whose PYTHONPATH contains its folder. The driver and Ray's
processes inherit the environment variable ``CLINIE_FAULT``, a JSON object with these keys:

- ``at``: function at which the fault happens, as ``module:Class.method``;
- ``after``: whether the fault happens after the call instead of before it;
- ``count``: 1-based count of the call, over all processes;
- ``folder_name``: count only calls whose first argument is a path of this name;
- ``victim``: process to kill: a pattern of its title, ``driver``, or ``raylet``;
- ``folder``: folder for the files that the processes and the test exchange;
- ``raise``: instead of a victim, type of an error that this and all later calls raise. Its message is the text of the
  note that is the first argument;
- ``unscrubbed``: whether failure reasons include the message of any error;
- ``asks``: instead of a victim, a list of objects with ``at``, ``after``, ``count`` and ``sign``. At each place the
  process writes a file named after the sign and waits until the test writes one with the suffix ``.done``.
"""

from __future__ import annotations

import builtins
import functools
import importlib.abc
import importlib.util
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

TRACED = "clinie_core.training.trainer:Trainer.train_epoch"
FAULT: dict[str, Any] = json.loads(os.environ.get("CLINIE_FAULT", "null"))
FOLDER = Path(FAULT["folder"]) if FAULT else Path()
os.environ.setdefault("CLINIE_FAULT_DRIVER", str(os.getpid()))


def tick(name: str, line: str = ".") -> int:
    """Add a line to a file that all processes share and return its 1-based number."""
    handle = os.open(FOLDER / name, os.O_APPEND | os.O_CREAT | os.O_RDWR)
    os.write(handle, f"{line}\n".encode())
    seen = os.pread(handle, 1 << 20, 0).count(b"\n")
    os.close(handle)
    return seen


def kill() -> None:
    """Kill the victim, from any process of the search."""
    import psutil

    if FAULT["victim"] == "raylet":  # that of the node that trains, among the nodes that the test lists
        nodes = [psutil.Process(int(pid)) for pid in (FOLDER / "nodes").read_text().split()]
        family = [process for node in nodes for process in node.children(recursive=True)]
        for worker in [process for process in family if "RayTrainWorker" in " ".join(process.cmdline())]:
            raylet = worker.parent()
            assert raylet is not None
            tick("killed", raylet.name())
            raylet.kill()
        return
    driver = int(os.environ["CLINIE_FAULT_DRIVER"])
    if FAULT["victim"] == "driver":
        os.kill(driver, signal.SIGKILL)
        return
    for process in psutil.Process(driver).children(recursive=True):
        title = " ".join(process.cmdline()) or process.name()
        if re.search(FAULT["victim"], title):
            tick("killed", title)
            process.kill()


def ask(sign: str) -> None:
    """Write a sign and wait until the test has run its action."""
    (FOLDER / sign).touch()
    while not (FOLDER / f"{sign}.done").exists():
        time.sleep(0.05)


def patch(module: ModuleType, name: str, *, traced: bool) -> None:
    """Wrap a function of a module, so that the fault happens at its calls.

    Args:
        module: The imported module.
        name: Name of the function within it, such as ``Class.method``.
        traced: Whether to list the calls in the file ``epochs`` instead.
    """
    if name == "failure_reason":
        module.failure_reason = lambda error, *, allow_text: str(error)  # type: ignore[attr-defined]
        return
    owner: Any = module
    *classes, last = name.split(".")
    for part in classes:
        owner = getattr(owner, part)
    original = getattr(owner, last)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if traced:
            tick("epochs", f"{args[0].config.digest()} {args[1]}")
            return original(*args, **kwargs)
        place = f"{module.__name__}:{name}"
        asks = [a for a in FAULT.get("asks", ()) if a["at"] == place]
        if asks:
            number = tick(f"calls-{place}")
            due = [a for a in asks if a["count"] == number]
            for sign in (a["sign"] for a in due if not a["after"]):
                ask(sign)
            result = original(*args, **kwargs)
            for sign in (a["sign"] for a in due if a["after"]):
                ask(sign)
            return result
        if "folder_name" in FAULT and args[0].name != FAULT["folder_name"]:
            return original(*args, **kwargs)
        number = tick("calls")
        if "raise" in FAULT:
            if number >= FAULT["count"]:
                raise getattr(builtins, FAULT["raise"])(f"cannot read {args[0].text}")
            return original(*args, **kwargs)
        hit = number == FAULT["count"]
        if hit and not FAULT["after"]:
            kill()
        result = original(*args, **kwargs)
        if hit and FAULT["after"]:
            kill()
        return result

    setattr(owner, last, wrapped)


class Patching(importlib.abc.MetaPathFinder):
    """Import hook that wraps functions after their module is imported."""

    def __init__(self, wanted: dict[str, list[tuple[str, bool]]]) -> None:
        self.wanted = wanted

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in self.wanted:
            return None
        functions = self.wanted.pop(name)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            for function, traced in functions:
                patch(module, function, traced=traced)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if FAULT:
    asked: dict[str, list[tuple[str, bool]]] = {}
    places = [(TRACED, True), *((place["at"], False) for place in FAULT.get("asks", [FAULT]))]
    places += [("search.pool.worker:failure_reason", False)] if FAULT.get("unscrubbed") else []
    for place, is_trace in dict.fromkeys(places):
        module_name, _, function_name = place.partition(":")
        asked.setdefault(module_name, []).append((function_name, is_trace))
    sys.meta_path.insert(0, Patching(asked))
