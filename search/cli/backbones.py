"""Commands that prepare backbones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.cli.options import AsJson, Command, Overrides, SpaceName, console, print_json

app = typer.Typer(help="Prepare backbones.", no_args_is_help=True)


def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder, or name of a repository on the Hub.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to; it must be empty or not exist.")],
    as_json: AsJson = False,
) -> None:
    """Convert pickled weights (pytorch_model.bin) to safetensors, in an isolated process.

    Code in the files is not executed. The process has no network, if the system permits network namespaces, and limits
    on memory, CPU time and the size of files. The licence of the source applies to the converted weights, too.
    """
    from clinie_core.backbones.pickle_conversion import convert_pickled_model

    done = convert_pickled_model(source, output)
    if as_json:
        print_json({"folder": str(output), "files": done.files, "without_network": done.without_network})
        return
    console().print(f"{len(done.files)} files in {output}; the licence of {source} applies to them", soft_wrap=True)
    if not done.without_network:
        console().print("This system does not permit a network namespace: only Python's sockets were refused.")


def fetch(
    space: SpaceName,
    overrides: Overrides = None,
    *,
    to: Annotated[Path, typer.Option("--to", help="Folder to write to; it may contain other fetched backbones.")],
    as_json: AsJson = False,
) -> None:
    """Download all backbones of a space into a folder, for machines without internet.

    Each is fixed to one commit. Only safetensors, tokenizers, configurations and licences are downloaded. After
    an interruption, the next call downloads what is missing. Set CLINIE_BACKBONES to the folder where the search runs.
    """
    from clinie_core.backbones.fetching import fetch_backbones
    from search.config.parsing import Faults, parse_dimensions
    from search.config.space_reading import read_space_file

    file, where = read_space_file(space, overrides or ())
    faults = Faults(where)
    sources = list(parse_dimensions(file, faults).backbones.values())
    faults.raise_if_any()
    fetched = []
    for backbone in fetch_backbones(sources, to, f"{where}: space.backbone"):
        fetched.append(backbone)
        if not as_json:
            gate = "gated" if backbone.gated else "not gated"
            console().print(
                f"{backbone.name} at commit {backbone.commit[:12]}: {len(backbone.files)} files,"
                f" {backbone.size / 1e9:,.2f} GB; licence {backbone.licence or 'not stated'}, {gate}",
                soft_wrap=True,
            )
    local = sorted(source.name for source in sources if source.hub is None and source.folder is not None)
    if as_json:
        print_json({"folder": str(to), "backbones": [backbone.model_dump(mode="json") for backbone in fetched]})
        return
    for name in local:
        console().print(f"{name}: a local folder, which is not fetched", soft_wrap=True)
    console().print(f"set CLINIE_BACKBONES={to.resolve()} where the search runs", soft_wrap=True)


def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of fetched backbones.")],
    as_json: AsJson = False,
) -> None:
    """Compare all files of a folder of fetched backbones with its manifest."""
    from clinie_core.backbones.manifest import Manifest
    from clinie_core.errors import InputError

    manifest = Manifest.read(folder, "FOLDER")
    problems = list(manifest.check(folder))
    if problems:
        raise InputError(problems)
    files = sum(len(backbone.files) for backbone in manifest.backbones)
    size = sum(backbone.size for backbone in manifest.backbones)
    if as_json:
        print_json({"folder": str(folder), "backbones": len(manifest.backbones), "files": files, "bytes": size})
        return
    console().print(f"{len(manifest.backbones)} backbones, {files} files, {size / 1e9:,.2f} GB: all files are correct")


for command in (Command(convert, "Backbones"), Command(fetch, "Backbones"), Command(verify, "Backbones")):
    app.command(name=command.name, help=command.help)(command.function)
