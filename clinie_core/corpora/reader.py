"""What every reader does: a folder to documents, or to a list of what is wrong with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from clinie_core.document import Document
from clinie_core.errors import ErrorList, Problem

__all__ = ["Reader", "read_text"]


class Reader(ABC):
    """Base of all readers; a subclass is one row of ``READERS``."""

    example: ClassVar[str]
    """One line that says what a folder of this format holds."""

    @abstractmethod
    def read(self, folder: Path) -> Iterator[Document | Problem]:
        """Read a folder, one document at a time in the order of their ids.

        Yields:
            A document, or a problem that names file and line and quotes no text.
        """

    def read_all(self, folder: Path) -> tuple[Document, ...]:
        """Read a folder in whole.

        Raises:
            InputError: With all problems of the folder.
        """
        errors, documents = ErrorList(), []
        for item in self.read(folder):
            if isinstance(item, Problem):
                errors.extend([item])
            else:
                documents.append(item)
        errors.raise_if_any()
        return tuple(documents)


def read_text(file: Path) -> str | Problem:
    """Read a file as UTF-8 without touching its line ends, which offsets count."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            return stream.read()
    except UnicodeDecodeError as error:
        return Problem(
            str(file), f"broken UTF-8 at byte {error.start}", "UTF-8", "convert the file, for example by iconv"
        )
    except OSError as error:
        return Problem(str(file), f"cannot be read: {error.strerror}")
