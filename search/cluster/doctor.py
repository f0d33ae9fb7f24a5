"""The checks of ``clinie doctor``: package versions, open ports, Ray's token, disk, GPU, ledger and MLflow.

A check reports findings and changes nothing.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil

from clinie_core.errors import InputError
from search.cluster.capacity import read_available_capacity
from search.cluster.devices import find_unused_gpus, resolve_resources
from search.config.resources import Resources
from search.storage.home import LEDGER_VARIABLE, STORAGE_VARIABLE, Home, hide_password

__all__ = ["Finding", "is_loopback", "run_checks"]

Status = Literal["good", "warning", "bad"]
PACKAGES = ("ray", "mlflow", "optuna", "torch", "transformers", "peft", "safetensors")
MIN_FREE_GB = 5.0
CHECKED_PROGRAMS = ("ray", "raylet", "gcs_server", "mlflow", "uvicorn", "gunicorn", "clinie")


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Args:
        check: Name of the check.
        status: ``good``, ``warning`` or ``bad``.
        found: Observation, without passwords.
        remedy: Suggested action; empty if the status is good.
    """

    check: str
    status: Status
    found: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the finding as a JSON value."""
        return asdict(self)


def run_checks(home: Home, resources: Sequence[Resources] | None = None) -> Iterator[Finding]:
    """Run all checks.

    Args:
        home: The home folder, which need not exist.
        resources: The resource classes of a space, to compare with this machine or the cluster; None for no comparison.

    Yields:
        The findings, in the order of the checks.
    """
    yield from _check_versions(_find_versions())
    yield from _check_ports()
    yield _check_token(os.environ)
    yield _check_disk(home.root)
    if home.root.is_dir():
        yield _check_permissions(home.root)
    yield _check_gpu()
    if resources is not None:
        try:
            yield _check_resources(resources, read_available_capacity(Path.cwd()).count_gpus())
        except ConnectionError:
            found = f"no cluster answers at {os.environ['RAY_ADDRESS']}"
            yield Finding("resources", "bad", found, "start the cluster, or unset RAY_ADDRESS")
    yield from _check_storage(home)


def _find_versions() -> dict[str, str]:
    """Return the installed version of each package; an empty string if it is not installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def _check_versions(installed: Mapping[str, str]) -> Iterator[Finding]:
    for package, number in installed.items():
        if number:
            yield Finding(f"version of {package}", "good", number)
        else:
            yield Finding(f"version of {package}", "bad", "not installed", "install clinie with its dependencies")


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach an address; an IPv6 address may contain one of IPv4."""
    ip = ipaddress.ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def _check_ports() -> Iterator[Finding]:
    """Find processes of Ray, MLflow and clinie that listen on an interface other than loopback."""
    listening = []
    for process in psutil.process_iter(["name", "cmdline", "username"]):
        command = f"{process.info['name']} {' '.join(process.info['cmdline'] or [])}"
        name = "ray" if "/ray/" in command or command.startswith("ray::") else str(process.info["name"])
        if not any(program in command for program in CHECKED_PROGRAMS):
            continue
        try:
            connections = process.net_connections(kind="inet")
        except (psutil.AccessDenied, psutil.NoSuchProcess):  # another user's process, or one that has just ended
            continue
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN and not is_loopback(connection.laddr.ip):
                listening.append((name, connection.laddr.ip, connection.laddr.port))
    of_ray = {entry for entry in listening if "ray" in entry[0] or entry[0] == "gcs_server"}
    if of_ray:
        yield Finding(
            "open ports",
            "warning",
            f"Ray listens on {len(of_ray)} ports that other machines can reach",
            "Ray requires its token there; still, keep the machine behind a firewall",
        )
    for name, address, port in sorted(set(listening) - of_ray):
        found = f"{name} listens on {address}:{port}, which other machines can reach"
        yield Finding("open ports", "warning", found, "bind it to 127.0.0.1")
    if not listening:
        yield Finding("open ports", "good", "Ray, MLflow and clinie listen on loopback only")


def _check_token(environment: Mapping[str, str]) -> Finding:
    """Check the token that authenticates clients of a Ray cluster."""
    if environment.get("RAY_AUTH_MODE", "token") != "token":
        found = f"RAY_AUTH_MODE is {environment['RAY_AUTH_MODE']}: everyone who can reach Ray can run code"
        return Finding("Ray's token", "bad", found, "unset RAY_AUTH_MODE, or set it to token")
    path = environment.get("RAY_AUTH_TOKEN_PATH")
    file = Path(path).expanduser() if path else Path.home() / ".ray" / "auth_token"
    if not file.is_file():
        if path:
            return Finding("Ray's token", "bad", f"no file {file}", "create it as cluster.yaml does")
        return Finding("Ray's token", "good", "none; each search creates one for its local Ray")
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        return Finding("Ray's token", "bad", f"{file} has mode {mode:o}: other users can read it", f"chmod 600 {file}")
    return Finding("Ray's token", "good", f"{file}, mode {mode:o}")


def _check_disk(root: Path) -> Finding:
    existing = next(folder for folder in (root, *root.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free / 1e9
    used = sum(f.stat().st_size for f in root.rglob("*") if f.is_file()) / 1e9 if root.is_dir() else 0.0
    found = f"{free:.0f} GB free, {used:.1f} GB used in {root}"
    if free < MIN_FREE_GB:
        return Finding("disk", "bad", found, f"free disk space: a search needs at least {MIN_FREE_GB:g} GB")
    return Finding("disk", "good", found)


def _check_permissions(root: Path) -> Finding:
    """Check that only the owner can read the home folder."""
    mode = stat.S_IMODE(root.stat().st_mode)
    mask = stat.S_IROTH | stat.S_IXOTH | stat.S_IWOTH | stat.S_IRGRP | stat.S_IXGRP | stat.S_IWGRP
    if not mode & mask:
        return Finding("permissions", "good", f"{root} has mode {mode:o}")
    found = f"{root} has mode {mode:o}: other users can read it"
    return Finding("permissions", "warning", found, f"chmod -R go= {root}")


def _check_gpu() -> Finding:
    import torch

    from clinie_core.modeling.precision import detect_precision

    if not torch.cuda.is_available():
        cuda = torch.version.cuda
        build = f"torch {torch.__version__} is built for CUDA {cuda}" if cuda else "a CPU build of torch"
        return Finding("GPU", "good", f"none; trials train on the CPU ({build})")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    precision = str(detect_precision("auto", torch.device("cuda", 0)).dtype).removeprefix("torch.")
    return Finding("GPU", "good", f"{len(names)}: {', '.join(names)}; {precision}")


def _check_resources(resources: Sequence[Resources], gpus: float) -> Finding:
    """Check that a space uses the GPUs that are available."""
    for warning in find_unused_gpus(resources, gpus, "SPACE"):
        return Finding("resources", "warning", warning.found, "set resources.gpus_per_worker to 1, a fraction, or auto")
    used = (f"{resolve_resources(own, gpus).gpus_per_worker:g}" for own in resources)
    return Finding("resources", "good", f"{gpus:g} GPUs available, {' or '.join(dict.fromkeys(used))} per worker")


def _check_object_storage(url: str) -> Finding:
    from search.storage.trial_store import open_file_system

    try:
        files, path = open_file_system(url)
        files.get_file_info(path)
    except (InputError, OSError) as error:
        found = error.problems[0].found if isinstance(error, InputError) else f"{url} does not answer"
        return Finding("object storage", "bad", found, f"correct {STORAGE_VARIABLE} and the AWS variables")
    return Finding("object storage", "good", f"{url} answers")


def _check_storage(home: Home) -> Iterator[Finding]:
    """Check object storage, ledger and MLflow."""
    from search.ledger.storage import open_storage
    from search.ledger.studies import list_study_names
    from search.tracking.connection import connect, require_reachable

    if home.storage is not None:
        yield _check_object_storage(home.storage)
    if home.ledger is not None:
        try:
            count = len(list_study_names(home))
        except InputError as error:
            yield Finding("ledger", "bad", error.problems[0].found, f"start the database, or correct {LEDGER_VARIABLE}")
        else:
            yield Finding("ledger", "good", f"{count} studies in {hide_password(home.ledger)}")
    elif home.ledger_file.exists():
        open_storage(home)
        yield Finding("ledger", "good", f"{len(list_study_names(home))} studies in {home.ledger_file}")
    else:
        yield Finding("ledger", "good", f"no study in {home.root} yet")
    if home.server is None and not home.root.is_dir():
        yield Finding("MLflow", "good", f"{home.root} does not exist yet; a search creates it")
        return
    shown = hide_password(home.tracking_uri)
    try:
        require_reachable(connect(home))
    except InputError:
        yield Finding("MLflow", "bad", f"does not answer at {shown}", "start the server, or pass its --tracking-uri")
        return
    yield Finding("MLflow", "good", f"answers at {shown}")
