"""Document ids and file names in messages and results: as they are, or as hashes.

Ids are often names of files, which can contain patient numbers or names. The hashes are keyed, because all numbers of
a hospital can be tried in seconds. The same key gives the same hash for the same id in every message and result.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

__all__ = ["hash_ids", "hide_file_names", "read_key", "register_files", "show_id"]

DIGITS = 12
KEPT = frozenset(
    "train training dev devel development valid validation test testing txt text ann concept rel ast".split()
)
"""Names of folders that say what a file is for; they are shown."""
_key: bytes | None = None
_roots: dict[Path, Path] = {}


def hash_ids(key: bytes | None) -> None:
    """Show ids and names of files as hashes from now on, in this process.

    Args:
        key: The key; None shows them as they are.
    """
    global _key
    _key = key


def read_key() -> bytes:
    """Return this user's key, which is created at first use, in ``clinie/ids-key`` of the folder for settings.

    The folder is that of ``XDG_CONFIG_HOME``, or ``~/.config``.

    Raises:
        OSError: If the file cannot be read or created.
    """
    file = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "clinie" / "ids-key"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as created:
            created.write(secrets.token_hex(32))
    except FileExistsError:
        pass
    return file.read_bytes()


def show_id(id_: str) -> str:
    """Return a document's id for a message or a result: the id, or the hash of each part between slashes."""
    return id_ if _key is None else "/".join(_hash(part) for part in id_.split("/"))


def register_files(files: Iterable[Path], root: Path) -> None:
    """Note the files of a corpus, whose names :func:`hide_file_names` replaces.

    Args:
        files: The files.
        root: Their common folder, which the user has named and which is shown.
    """
    if _key is not None:
        _roots.update(dict.fromkeys(files, root))


def hide_file_names(text: str) -> str:
    """Replace the names of registered files in a text by hashes; a name without suffix is an id."""
    if _key is None:
        return text
    named = [file for file in _roots if _split_suffix(file.name)[0] in text]
    for file in sorted(named, key=lambda file: -len(str(file))):
        text = text.replace(str(file), f"{_roots[file]}/{_hide(file)}")
    for file in sorted(
        named, key=lambda file: -len(file.name)
    ):  # without the folder, also names of missing files such as the text of a document
        text = _replace_word(file.relative_to(_roots[file]).as_posix(), _hide(file), text)
        stem = _split_suffix(file.name)[0]
        text = _replace_word(f"{stem}.", f"{_hash(stem)}.", text)
    return text


def _replace_word(word: str, other: str, text: str) -> str:
    return re.sub(rf"(?<![\w-]){re.escape(word)}", lambda _: other, text)


def _hide(file: Path) -> str:
    """Return the path of a registered file below its root, with hashes."""
    stem, suffix = _split_suffix(file.name)
    folders = file.relative_to(_roots[file]).parts[:-1]
    return "/".join([*(_hash(folder) for folder in folders), _hash(stem) + suffix])


def _split_suffix(name: str) -> tuple[str, str]:
    plain = name.removesuffix(".gz")
    stem, dot, suffix = plain.rpartition(".")
    return (stem, f"{dot}{suffix}{name[len(plain) :]}") if stem else (plain, name[len(plain) :])


def _hash(part: str) -> str:
    if _key is None or part.casefold() in KEPT:
        return part
    return f"id-{hmac.new(_key, part.encode(errors='surrogatepass'), hashlib.sha256).hexdigest()[:DIGITS]}"
