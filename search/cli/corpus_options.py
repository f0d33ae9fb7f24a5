"""Options of all commands that read a corpus, and the corpus that they describe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from search.cli.options import Offsets, OnError, resolve_format

if TYPE_CHECKING:
    from clinie_core.data.corpora.discovery import CorpusFiles
    from clinie_core.data.corpora.loading import CorpusSource
    from clinie_core.data.document import Document
    from clinie_core.errors import Problem

__all__ = ["CorpusOptions", "Format", "Ignore", "Preset", "expand_corpus_options", "find_corpus_files", "read_items"]

CorpusPath = Annotated[Path, typer.Argument(metavar="PATH", help="Folder, file, zip or tar archive of the corpus.")]
Format = Annotated[
    str, typer.Option("--format", help="Format of the corpus; `clinie data formats` lists all. auto: detect it.")
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore",
        metavar="PATTERN",
        help="Files that are not read, such as README.md or '*.pdf'; repeatable. Any other unread file is an error.",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="Published corpus whose format and official splits are used: n2c2-2018, n2c2-2022, i2b2-2010 or radgraph.",
    ),
]
BareTagType = Annotated[
    str, typer.Option("--bare-tag-type", metavar="TYPE", help="Concept type of token tags without a type, B and I.")
]
Result = TypeVar("Result")


@dataclass(frozen=True)
class CorpusOptions:
    """Values of the options of a command that reads a corpus; the fields are the command's parameters."""

    path: CorpusPath
    format_: Format = "auto"
    preset: Preset = None
    ignore: Ignore = None
    offsets: Offsets = "verify"
    on_error: OnError = "stop"
    bare_tag_type: BareTagType = "ENTITY"

    @contextmanager
    def open(self, *, quiet: bool) -> Iterator[CorpusSource]:
        """Open the corpus; an archive is unpacked within this context.

        Args:
            quiet: Whether not to print the detected format.

        Raises:
            InputError: If the format cannot be detected or contradicts the preset.
        """
        from clinie_core.data.corpora.archive import unpack
        from clinie_core.data.corpora.loading import discover_splits

        with unpack(self.path) as folder:
            name = self.format_
            if self.preset is None:
                name = resolve_format(folder, name, self.ignore or (), quiet=quiet)
            yield discover_splits(folder, name, self.ignore or (), self.preset).model_copy(
                update={"offsets": self.offsets, "on_error": self.on_error, "bare_tag_type": self.bare_tag_type}
            )


def expand_corpus_options(function: Callable[..., Result]) -> Callable[..., Result]:
    """Return a command with the fields of :class:`CorpusOptions` instead of its first parameter.

    Args:
        function: Function whose first parameter is a ``CorpusOptions``.
    """
    _, *others = inspect.signature(function, eval_str=True).parameters.values()
    shared = inspect.signature(CorpusOptions, eval_str=True).parameters.values()
    names = {parameter.name for parameter in shared}

    def command(**values: Any) -> Result:
        options = CorpusOptions(**{name: values.pop(name) for name in names})
        return function(options, **values)

    # Typer reads the options from the signature. Keyword-only parameters can follow others with a default.
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*shared, *others)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    return command


def find_corpus_files(source: CorpusSource) -> CorpusFiles:
    """Find the files of a corpus.

    Raises:
        InputError: If the path or the format does not exist.
    """
    from clinie_core.data.corpora.loading import check_source, find_files
    from clinie_core.errors import ErrorList

    errors = ErrorList()
    errors.extend(check_source(source))
    errors.raise_if_any()
    return find_files(source)


def read_items(source: CorpusSource, files: CorpusFiles) -> Iterator[tuple[str, Document | Problem]]:
    """Yield each document and each problem of a corpus, with its split."""
    from clinie_core.data.corpora.loading import read_split

    for split in files.splits:
        for item in read_split(source, split, files):
            yield split, item
