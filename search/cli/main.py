"""The program ``clinie``: puts the commands together and maps errors to exit codes.

Exit codes: 0 done, 1 the job failed or was stopped, 2 the input is wrong. Nothing heavy is imported
before a command needs it, so ``--help`` and a wrong space answer at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from clinie_core import __version__
from clinie_core.errors import InputError
from search.cli import checks, data, jobs, models, promotions, reports, studies

__all__ = ["app", "main"]

FAILURES = {"StudyFailed", "PredictionsDiffer", "TransferFailed", "HistoryBroken", "LedgerUnavailable", "DiskFull"}
"""Errors that say in one line what failed; named, since importing them would import everything."""

app = typer.Typer(
    name="clinie",
    help="""Find the best clinical information-extraction model for your own notes and hardware.

    A [bold]space[/bold] (a YAML file) says what to try: backbones, fine-tuning methods, their ranges.
    A [bold]study[/bold] is one search over a space; each of its [bold]trials[/bold] trains one
    configuration and is scored on the dev split. Promoting a study registers its best trial as a
    model, which then predicts.

    [dim]clinie data synth corpus[/dim] writes a corpus to play with, [dim]clinie plan quickstart[/dim]
    shows what a search would try, [dim]clinie search quickstart[/dim] runs it,
    [dim]clinie promote quickstart --name my-model[/dim] registers the winner,
    [dim]clinie predict --model my-model@champion note.txt[/dim] uses it and [dim]clinie ui[/dim] opens MLflow.

    Everything is kept in the [bold]--home[/bold] folder. Exit codes: 0 done, 1 failed or stopped, 2 wrong input.
    """,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
)
app.add_typer(data.app, name="data")


def print_version(requested: bool) -> None:
    """Print the version and exit if ``--version`` is given."""
    if requested:
        sys.stdout.write(f"clinie {__version__}\n")
        raise typer.Exit


@app.callback()
def define_options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Define the options of ``clinie`` itself."""


for command in (
    *studies.COMMANDS,
    *reports.COMMANDS,
    *promotions.COMMANDS,
    *models.COMMANDS,
    *checks.COMMANDS,
    *jobs.COMMANDS,
):
    app.command(rich_help_panel=command.panel, name=command.name)(command.function)


def main() -> None:
    """Run the command line; errors that a user can mend are printed as lines, without a traceback."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        app()
    except InputError as error:
        for line in str(error).splitlines():
            errors.print(f"[bold red]error[/bold red] {_escaped(line)}")
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("stopped")
        sys.exit(1)
    except RuntimeError as error:
        if type(error).__name__ not in FAILURES:
            raise
        errors.print(f"[bold red]failed[/bold red] {_escaped(str(error))}")
        sys.exit(1)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
