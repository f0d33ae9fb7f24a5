"""Paths of the corpora of a home folder's studies, which are stored in files that only their owner can read.

The ledger can be a database that several people use, and a path can name a hospital or a patient. The ledger therefore
contains a digest of the path. The file of this name in the folder ``corpus-paths`` of the home folder holds the path:
relative to the home folder if the corpus is in it, so that both can be moved together.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["conceal_path", "find_path", "get_path_file", "is_concealed", "link_path", "record_path"]

FOLDER = "corpus-paths"
PREFIX = "sha256:"
DIGITS = 32


def conceal_path(path: str) -> str:
    """Return the digest that represents an absolute path in the ledger."""
    return PREFIX + hashlib.sha256(os.fsencode(path)).hexdigest()[:DIGITS]


def is_concealed(path: str) -> bool:
    """Return whether a stored path is a digest; earlier versions of clinie stored the path itself."""
    return path.startswith(PREFIX) and len(path) == len(PREFIX) + DIGITS


def get_path_file(root: Path, digest: str) -> Path:
    """Return the file of a home folder that holds the path of a digest."""
    return root / FOLDER / digest.removeprefix(PREFIX)


def record_path(root: Path, path: str) -> None:
    """Store an absolute path in a home folder.

    Args:
        root: The home folder.
        path: The path.
    """
    link_path(root, conceal_path(path), path)


def link_path(root: Path, digest: str, path: str) -> None:
    """Store an absolute path in a home folder as that of a digest.

    Args:
        root: The home folder.
        digest: The digest, which may be that of the corpus' path on another machine.
        path: The path.
    """
    file = get_path_file(root, digest)
    file.parent.mkdir(exist_ok=True)
    inside = Path(path).is_relative_to(root)
    content = os.fsencode(str(Path(path).relative_to(root)) if inside else path)
    part = file.with_name(f"{file.name}.{os.getpid()}.new")
    part.write_bytes(content + b"\n")
    part.replace(file)


def find_path(root: Path, digest: str) -> str | None:
    """Return the absolute path of a digest; None if the home folder has not stored it."""
    try:
        content = get_path_file(root, digest).read_bytes()
    except OSError:
        return None
    return str(root / os.fsdecode(content.rstrip(b"\r\n")))
