"""Write constraints-hashed.txt: the packages of constraints.txt with the SHA-256 digests of their files.

The digests are those of the files that pip selects on Linux x86-64 with Python 3.11, 3.12 and 3.13, as the package
index publishes them; for torch, CPU builds only. pip downloads metadata only. Run it after a change of constraints.txt,
where pip finds the CPU build of torch:

    .venv/bin/python tools/hash_constraints.py

With ``--covers-this-platform`` it writes nothing and exits with 0 if the digests include files for this machine.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCE, TARGET = ROOT / "constraints.txt", ROOT / "constraints-hashed.txt"
VERSIONS = ("3.11", "3.12", "3.13")
COVERED = ("3.11",)
"""Versions of Python whose CPU build of torch has a digest; the index itself offers builds for CUDA only."""
GLIBC = range(34, 4, -1)
"""Minor versions of glibc whose wheels a current Linux can load."""
HEADER = """\
# Packages of constraints.txt with the SHA-256 digests of their files for Linux x86-64 and Python 3.11 to 3.13.
# Written by tools/hash_constraints.py. CI installs them by: pip install --require-hashes --no-deps -r {name}
"""


def read_pins(file: Path) -> dict[str, str]:
    """Return the version of each package of a constraints file, by the name that is written there."""
    lines = (line.strip().removesuffix("\\").strip() for line in file.read_text(encoding="utf-8").splitlines())
    pins = (line.split()[0].partition("==") for line in lines if line and not line.startswith(("#", "--hash")))
    return {name: version for name, _, version in pins}


def normalize(name: str) -> str:
    """Return a package's name as the index writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolve(pins: Iterable[str], version: str | None = None) -> list[dict[str, Any]]:
    """Return the files that pip would install, without installing them.

    Args:
        pins: Requirements, such as ``six==1.17.0``.
        version: A Python version, for which wheels are required; None for this interpreter.
    """
    with tempfile.TemporaryDirectory() as folder:
        requirements, report = Path(folder, "requirements.txt"), Path(folder, "report.json")
        requirements.write_text("\n".join(pins), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
        command += ["--report", str(report), "-r", str(requirements)]
        if version is not None:
            abi = f"cp{version.replace('.', '')}"
            tags = [f"manylinux_2_{minor}_x86_64" for minor in GLIBC]
            tags += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
            command += ["--target", folder, "--only-binary", ":all:", "--python-version", version]
            command += ["--implementation", "cp", "--abi", abi, "--abi", "abi3", "--abi", "none"]
            command += [word for tag in tags for word in ("--platform", tag)]
        subprocess.run(command, check=True)
        installed: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
    return installed


def collect_digests(reports: Iterable[Iterable[dict[str, Any]]]) -> dict[str, set[str]]:
    """Return the digests of the files in pip's reports, by normalized name of the package; only CPU builds of torch."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for item in chain.from_iterable(reports):
        if item["metadata"]["name"] != "torch" or "cpu" in item["metadata"]["version"]:
            found[normalize(item["metadata"]["name"])].add(item["download_info"]["archive_info"]["hashes"]["sha256"])
    return found


def is_wheel(item: dict[str, Any]) -> bool:
    """Return whether pip would install a package from a wheel."""
    return str(item["download_info"]["url"]).endswith(".whl")


def render(pins: dict[str, str], digests: dict[str, set[str]]) -> str:
    """Return the content of the hashed file."""
    lines = [HEADER.format(name=TARGET.name)]
    for name, version in pins.items():
        parts = [f"{name}=={version}", *(f"--hash=sha256:{digest}" for digest in sorted(digests[normalize(name)]))]
        lines.append(" \\\n    ".join(parts) + "\n")
    return "".join(lines)


def covers_this_platform() -> bool:
    """Return whether the hashed file has digests of files for this machine and this Python."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return sys.platform == "linux" and platform.machine() == "x86_64" and version in COVERED


def main() -> None:
    """Write the hashed file."""
    if "--covers-this-platform" in sys.argv[1:]:
        sys.exit(0 if covers_this_platform() else 1)
    pins = read_pins(SOURCE)
    here = resolve(f"{name}=={version}" for name, version in pins.items())
    built = {normalize(item["metadata"]["name"]) for item in here if not is_wheel(item)}
    wheels = [f"{name}=={version}" for name, version in pins.items() if normalize(name) not in built]
    digests = collect_digests([here, *(resolve(wheels, version) for version in VERSIONS)])
    TARGET.write_text(render(pins, digests), encoding="utf-8")
    print(f"{len(pins)} packages, {sum(map(len, digests.values()))} digests in {TARGET.name}")


if __name__ == "__main__":
    main()
