"""Options that several commands share, and how commands print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

__all__ = ["AsJson", "Command", "HomeFolder", "Overrides", "SpaceName", "StudyName", "console", "print_json"]

HomeFolder = Annotated[
    Path,
    typer.Option("--home", envvar="CLINIE_HOME", help="Folder of ledger, MLflow database, artifacts and checkpoints."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
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


def console() -> Console:
    """Where results for people go."""
    return Console(highlight=False)


def print_json(value: Any) -> None:
    """Print a result as one JSON object on standard output."""
    json.dump(value, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
