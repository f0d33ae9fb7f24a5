"""Search for planted words in files, names of files and output."""

from __future__ import annotations

from collections.abc import Iterable, Set
from pathlib import Path

__all__ = ["find_words"]


def find_words(planted: Set[bytes], folders: Iterable[Path], printed: str = "") -> set[str]:
    """Return the places that contain one of the words.

    Args:
        planted: The words, in lower case.
        folders: Folders to search at any depth; names and contents of their files are searched.
        printed: Output of a program.

    Returns:
        Paths of files, and ``printed`` for the output.
    """
    files = [file for folder in folders for file in folder.rglob("*")]
    found = {str(file) for file in files if any(word in str(file).lower().encode() + _read(file) for word in planted)}
    return found | ({"printed"} if any(word in printed.lower().encode() for word in planted) else set())


def _read(file: Path) -> bytes:
    """Return the content of a file in lower case; other processes may remove it, or not let us read it."""
    try:
        return file.read_bytes().lower() if file.is_file() else b""
    except OSError:
        return b""
