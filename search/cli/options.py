"""Options that several commands share, and helpers for their output."""

from __future__ import annotations

import inspect
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

if TYPE_CHECKING:
    from clinie_core.errors import Problem

__all__ = [
    "DEFAULT_HOME",
    "AllowText",
    "AsJson",
    "ClusterAddress",
    "Command",
    "HomeFolder",
    "Ids",
    "Offsets",
    "OnError",
    "Overrides",
    "Overwrite",
    "Quiet",
    "SpaceName",
    "StudyName",
    "TrackingUri",
    "Wide",
    "console",
    "print_json",
    "print_notices",
    "resolve_format",
]

HomeFolder = Annotated[
    Path,
    typer.Option(
        "--home", envvar="CLINIE_HOME", help="Folder for the ledger, MLflow database, artifacts and checkpoints."
    ),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        envvar="CLINIE_TRACKING_URI",
        help="URL of an MLflow server or database. Default: the one recorded with the study, or a database in the"
        " home folder.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
AllowText = Annotated[
    bool,
    typer.Option("--allow-text", help="Let failure reasons quote error messages, which may contain patient text."),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print the result and errors only, without progress and warnings.")
]
ClusterAddress = Annotated[
    str | None,
    typer.Option("--address", help="URL of a cluster's Ray dashboard, for a search submitted to that cluster."),
]
Wide = Annotated[bool, typer.Option("--wide", help="Show all columns of tables in full, in lines of any length.")]


def _set_display_of_ids(value: str) -> str:
    from clinie_core.errors import fail
    from clinie_core.shown_ids import hash_ids, read_key

    try:
        hash_ids(read_key() if value == "hash" else None)
    except OSError as error:
        remedy = "set XDG_CONFIG_HOME to a folder that you can write"
        fail("--ids", f"the key {error.filename} cannot be read or created: {error.strerror}", remedy=remedy)
    return value


Ids = Annotated[
    Literal["plain", "hash"],
    typer.Option(
        "--ids",
        envvar="CLINIE_IDS",
        callback=_set_display_of_ids,
        is_eager=True,
        help="hash: messages and results show hashes instead of document ids and file names.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files of the same name.")]
SpaceName = Annotated[
    str, typer.Argument(metavar="SPACE", help="YAML file of a space, or a name from `clinie spaces`.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY.PATH=VALUE", help="Changes to the space, such as budget.trials=4 or space.batch_size=16."
    ),
]
Offsets = Annotated[
    Literal["verify", "trust"],
    typer.Option(help="verify: the mention in a file must equal the text at its offsets. trust: it is ignored."),
]
OnError = Annotated[
    Literal["stop", "skip", "trim"],
    typer.Option(
        help="stop: a fault is an error. skip: leave out faulty annotations, and documents that cannot be read."
        " trim: also cut concepts at the end of the text and white space at their boundaries."
    ),
]
StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="Name of a study; `clinie status` lists all studies.")]

DEFAULT_HOME = Path("clinie-home")


@dataclass(frozen=True)
class Command:
    """A command of ``clinie``.

    Args:
        function: Function that implements the command; a trailing underscore is not part of the command's name,
            and other underscores become hyphens.
        panel: Panel of ``clinie --help`` that lists the command.
    """

    function: Callable[..., Any]
    panel: str

    @property
    def name(self) -> str:
        """Name of the command on the command line."""
        return self.function.__name__.removesuffix("_").replace("_", "-")

    @property
    def help(self) -> str:
        """Help text: the function's docstring with one line per paragraph, which Typer wraps to the terminal."""
        paragraphs = inspect.cleandoc(self.function.__doc__ or "").split("\n\n")
        return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def console() -> Console:
    """Return the console for results, on standard output."""
    return Console(highlight=False)


def print_json(value: Any) -> None:
    """Print a result as one JSON object on standard output."""
    json.dump(value, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")


def resolve_format(path: Path, format_: str, ignore: Sequence[str], *, quiet: bool) -> str:
    """Return the name of a corpus' format, detected if it is ``auto``.

    Args:
        path: Folder or file of the corpus.
        format_: Name of the format, or ``auto``.
        ignore: Patterns of files that are not read.
        quiet: Whether not to print what was detected.

    Raises:
        InputError: If the format cannot be detected.
    """
    from clinie_core.data.corpora.detection import AUTO, detect

    if format_ != AUTO or not path.exists():
        return format_
    detection = detect(path, ignore)
    if not quiet:
        console().print(str(detection), soft_wrap=True, markup=False)
    return detection.format


def print_notices(notices: Sequence[Problem]) -> None:
    """Print the warnings of a corpus, and the parts that were skipped or trimmed, with their counts."""
    from rich.markup import escape

    out = console()
    for notice in notices:
        out.print(f"[yellow]{notice.severity}[/yellow] {escape(str(notice))}", soft_wrap=True)
    counts = Counter(notice.severity for notice in notices if notice.severity != "warning")
    if counts:
        out.print(", ".join(f"{count:,} problems {severity}" for severity, count in sorted(counts.items())))
