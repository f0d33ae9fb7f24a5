"""Options that several commands share, and how commands print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from search.storage.home import Home

__all__ = [
    "AllowText",
    "AsJson",
    "ClusterAddress",
    "Command",
    "HomeFolder",
    "Overrides",
    "SpaceName",
    "StudyName",
    "TrackingUri",
    "console",
    "home_of_study",
    "print_json",
]

HomeFolder = Annotated[
    Path,
    typer.Option("--home", envvar="CLINIE_HOME", help="Folder of ledger, MLflow database, artifacts and checkpoints."),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        envvar="CLINIE_TRACKING_URI",
        help="URL of an MLflow server or database; a database in the home folder if left out. A study remembers it.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
AllowText = Annotated[
    bool, typer.Option("--allow-text", help="Let failure reasons quote what failed; they may then hold patients' text.")
]
ClusterAddress = Annotated[
    str | None,
    typer.Option("--address", help="URL of the Ray dashboard, for a submitted search."),
]
SpaceName = Annotated[
    str, typer.Argument(metavar="SPACE", help="A space: a YAML file, or a name from `clinie spaces`.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY.PATH=VALUE]...", help="Changes to the space, such as budget.trials=4 or space.batch_size=16."
    ),
]
StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="A study's name; `clinie status` lists them.")]

DEFAULT_HOME = Path("clinie-home")


@dataclass(frozen=True)
class Command:
    """A command and the panel of ``clinie --help`` that shows it."""

    function: Callable[..., Any]
    panel: str

    @property
    def name(self) -> str:
        """Its name on the command line."""
        return self.function.__name__.removesuffix("_")


def home_of_study(home: Path, study: str, server: str | None) -> Home:
    """A home folder with the MLflow that a study of it was recorded in.

    Args:
        home: The folder.
        study: The study's name.
        server: What the user gave; the study's own if left out.

    Raises:
        InputError: If there is no such folder or study.
    """
    from search.ledger.ledger import Ledger, open_storage
    from search.storage.home import Home

    remembered = Ledger.open(open_storage(Home.open(home)), study).attributes.get("server")
    return Home.open(home, server or remembered)


def console() -> Console:
    """Where results for people go."""
    return Console(highlight=False)


def print_json(value: Any) -> None:
    """Print a result as one JSON object on standard output."""
    json.dump(value, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
