"""The checks of ``clinie doctor``: package versions, open ports, Ray's token, disk, GPU, ledger and MLflow.

A check reports a finding and changes nothing.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil

from clinie_core.errors import InputError
from search.storage.home import LEDGER_VARIABLE, STORAGE_VARIABLE, Home, hide_password

__all__ = ["Finding", "run_checks"]

Standing = Literal["good", "warning", "bad"]
PACKAGES = ("ray", "mlflow", "optuna", "torch", "transformers", "peft", "safetensors")
LEAST_FREE_GB = 5.0
OURS = ("ray", "raylet", "gcs_server", "mlflow", "uvicorn", "gunicorn", "clinie")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, how it stands, and what to do if it is not good."""

    check: str
    standing: Standing
    found: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """The finding for ``--json``."""
        return asdict(self)


def run_checks(home: Home) -> Iterator[Finding]:
    """Look at everything.

    Args:
        home: The home folder, which need not exist yet.
    """
    yield from _versions(_installed())
    yield from _ports()
    yield _token(os.environ)
    yield _disk(home.root)
    yield _gpu()
    yield from _storage(home)


def _installed() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def _versions(installed: Mapping[str, str]) -> Iterator[Finding]:
    for package, number in installed.items():
        if not number:
            yield Finding(f"version of {package}", "bad", "not installed", "install clinie with its dependencies")
            continue
        yield Finding(f"version of {package}", "good", number)


def _ports() -> Iterator[Finding]:
    """What of ours listens where others can reach it."""
    open_ = []
    for process in psutil.process_iter(["name", "cmdline", "username"]):
        words = f"{process.info['name']} {' '.join(process.info['cmdline'] or [])}"
        name = "ray" if "/ray/" in words or words.startswith("ray::") else str(process.info["name"])
        if not any(own in words for own in OURS):
            continue
        try:
            connections = process.net_connections(kind="inet")
        except (psutil.AccessDenied, psutil.NoSuchProcess):  # another user's, or gone since
            continue
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN and not ipaddress.ip_address(connection.laddr.ip).is_loopback:
                open_.append((name, connection.laddr.ip, connection.laddr.port))
    rays = {entry for entry in open_ if "ray" in entry[0] or entry[0] == "gcs_server"}
    if rays:
        yield Finding(
            "open ports",
            "warning",
            f"Ray's processes listen on {len(rays)} ports that other machines reach",
            "they ask for its token; keep the machine behind a firewall",
        )
    for name, address, port in sorted(set(open_) - rays):
        words = f"{name} listens on {address}:{port}, which other machines reach"
        yield Finding("open ports", "warning", words, "bind it to 127.0.0.1")
    if not open_:
        yield Finding("open ports", "good", "nothing of Ray, MLflow or clinie listens beyond loopback")


def _token(environment: Mapping[str, str]) -> Finding:
    """Ray's token, by which a cluster knows its own."""
    if environment.get("RAY_AUTH_MODE", "token") != "token":
        found = f"RAY_AUTH_MODE is {environment['RAY_AUTH_MODE']}: anybody who reaches Ray can run code"
        return Finding("Ray's token", "bad", found, "unset RAY_AUTH_MODE, or set it to token")
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named).expanduser() if named else Path.home() / ".ray" / "auth_token"
    if not file.is_file():
        if named:
            return Finding("Ray's token", "bad", f"there is no file {file}", "write it, as cluster.yaml shows")
        return Finding("Ray's token", "good", "a local Ray gets one of its own for each search")
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        return Finding("Ray's token", "bad", f"{file} has mode {mode:o}: others can read it", f"chmod 600 {file}")
    return Finding("Ray's token", "good", f"{file}, mode {mode:o}")


def _disk(root: Path) -> Finding:
    place = next(folder for folder in (root, *root.parents) if folder.is_dir())
    free = shutil.disk_usage(place).free / 1e9
    used = sum(f.stat().st_size for f in root.rglob("*") if f.is_file()) / 1e9 if root.is_dir() else 0.0
    words = f"{free:.0f} GB free, {used:.1f} GB used in {root}"
    if free < LEAST_FREE_GB:
        return Finding("disk", "bad", words, f"free some: a search wants at least {LEAST_FREE_GB:g} GB")
    return Finding("disk", "good", words)


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        cuda = (
            f"torch {torch.__version__} is built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
        )
        return Finding("GPU", "good", f"none; trials train on the CPU ({cuda})")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    kind = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
    return Finding("GPU", "good", f"{len(names)}: {', '.join(names)}; {kind}")


def _object_storage(url: str) -> Finding:
    from search.storage.trial_store import open_file_system

    try:
        files, path = open_file_system(url)
        files.get_file_info(path)
    except (InputError, OSError) as error:
        found = error.problems[0].found if isinstance(error, InputError) else f"{url} does not answer"
        return Finding("object storage", "bad", found, f"mend {STORAGE_VARIABLE} and the AWS variables")
    return Finding("object storage", "good", f"{url} answers")


def _storage(home: Home) -> Iterator[Finding]:
    from search.ledger.ledger import open_storage, study_names
    from search.tracking.connection import connect, require_reachable

    if home.storage is not None:
        yield _object_storage(home.storage)
    if home.ledger is not None:
        try:
            count = len(study_names(home))
        except InputError as error:
            yield Finding("ledger", "bad", error.problems[0].found, f"start the database, or mend {LEDGER_VARIABLE}")
        else:
            yield Finding("ledger", "good", f"{count} studies in {hide_password(home.ledger)}")
    elif home.ledger_file.exists():
        open_storage(home)
        yield Finding("ledger", "good", f"{len(study_names(home))} studies in {home.ledger_file}")
    else:
        yield Finding("ledger", "good", f"no study in {home.root} yet")
    if home.server is None and not home.root.is_dir():
        yield Finding("MLflow", "good", f"{home.root} is not there yet; a search makes it")
        return
    shown = hide_password(home.tracking_uri)
    try:
        require_reachable(connect(home))
    except InputError:
        yield Finding("MLflow", "bad", f"does not answer at {shown}", "start the server, or give its --tracking-uri")
        return
    yield Finding("MLflow", "good", f"answers at {shown}")
