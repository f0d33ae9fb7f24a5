"""Commands that prepare backbones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.cli.options import AsJson, Command, console, print_json

app = typer.Typer(help="Prepare backbones.", no_args_is_help=True)


def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder, or name of a repository on the Hub.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to; it must be empty or not exist.")],
    as_json: AsJson = False,
) -> None:
    """Convert pickled weights (pytorch_model.bin) to safetensors, in an isolated process.

    Code in the files is not executed. The licence of the source applies to the converted weights, too.
    """
    from clinie_core.backbones.pickle_conversion import convert_pickled_model

    files = convert_pickled_model(source, output)
    if as_json:
        print_json({"folder": str(output), "files": files})
        return
    console().print(f"{len(files)} files in {output}; the licence of {source} applies to them", soft_wrap=True)


for command in (Command(convert, "Backbones"),):
    app.command(name=command.name, help=command.help)(command.function)
