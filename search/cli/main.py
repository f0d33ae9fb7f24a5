"""The program ``clinie``: registers the commands and maps errors to exit codes.

Exit codes: 0 success, 1 failed or stopped, 2 invalid input. Heavy packages are imported only by the commands that use
them, so that ``--help`` and the check of a space are fast.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from clinie_core import __version__
from clinie_core.errors import InputError
from search.cli import backbones, checks, control, data, jobs, ledger, models, promotions, reports, studies, watch
from search.cli.failures import find_storage_fault
from search.storage.permissions import restrict_new_files

__all__ = ["app", "main"]

FAILURES = {
    "DiskFull",
    "HistoryBroken",
    "LeaseLost",
    "LedgerUnavailable",
    "PredictionsDiffer",
    "RegistryLocked",
    "StudyFailed",
    "TransferFailed",
}
"""Names of errors whose message is one line for the user; importing their classes would import heavy packages."""

app = typer.Typer(
    name="clinie",
    help="""Find the best clinical information-extraction model for your own notes.

    A [bold]space[/bold] is a YAML file that lists the backbones, fine-tuning methods
    and parameter ranges to try. A [bold]study[/bold] is one search over a space. Each
    of its [bold]trials[/bold] trains one configuration and scores it on the dev split.
    Promoting a study registers its best trial as a model for predictions.

    First steps:

    clinie data synth corpus                           write a synthetic corpus
    clinie plan quickstart corpus.path=corpus          show what a search tries
    clinie search quickstart corpus.path=corpus        run the search
    clinie promote quickstart --name my-model          register the best trial
    clinie predict --model my-model@champion note.txt  use the model
    clinie ui                                          open MLflow

    All files are stored in the [bold]--home[/bold] folder.
    Exit codes: 0 success, 1 failed or stopped, 2 invalid input.
    """,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
)
app.add_typer(backbones.app, name="backbones", rich_help_panel="Models")
app.add_typer(data.app, name="data", rich_help_panel="Corpora")
app.add_typer(ledger.app, name="ledger", rich_help_panel="Cluster")


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
    *control.COMMANDS,
    *watch.COMMANDS,
    *reports.COMMANDS,
    *promotions.COMMANDS,
    *models.COMMANDS,
    *checks.COMMANDS,
    *jobs.COMMANDS,
):
    app.command(rich_help_panel=command.panel, name=command.name, help=command.help)(command.function)


def main() -> None:
    """Run the command line; print errors that the user can correct as lines, without a traceback."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        restrict_new_files()
        app()
    except InputError as error:
        for line in str(error).splitlines():
            errors.print(f"[bold red]error[/bold red] {_escape(line)}")
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("stopped")
        sys.exit(1)
    except Exception as error:
        if isinstance(error, RuntimeError) and type(error).__name__ in FAILURES:
            errors.print(f"[bold red]failed[/bold red] {_escape(str(error))}")
            sys.exit(1)
        fault = find_storage_fault(error)
        if fault is None:
            raise
        problem, is_outage = fault
        errors.print(f"[bold red]{'failed' if is_outage else 'error'}[/bold red] {_escape(str(problem))}")
        sys.exit(1 if is_outage else 2)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
