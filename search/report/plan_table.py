"""Terminal table of a plan's configurations."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from clinie_core.config import TrialConfig
from search.report.settings import separate_settings
from search.report.terminal import print_table
from search.report.text_table import Column, TextTable
from search.study.sizes import ConfigurationSize

__all__ = ["print_plan_table"]

BOUND = "over: weights, gradients and optimizer state only; --simulate adds a training step's activations"
BATCH = "batch_size"


def print_plan_table(
    console: Console, configs: Sequence[TrialConfig], sizes: Sequence[ConfigurationSize], *, wide: bool = False
) -> None:
    """Print a table of configurations with their numbers of parameters and estimated memory.

    Args:
        console: The console to print to.
        configs: The configurations.
        sizes: The size of each of them.
        wide: Show all columns in full, in lines of any length.
    """
    settings = separate_settings(configs)
    if settings.description:
        console.print(settings.description, style="dim", markup=False)
    shown = [] if BATCH in settings.names else [BATCH]
    columns = [*settings.columns, *map(Column, (*shown, "at once", "parameters", "trained", "memory"))]
    rows = []
    for config, values, size in zip(configs, settings.rows, sizes, strict=True):
        is_bound = bool(size.note) or not size.is_simulated
        row = [
            *(str(config.batch_size) for _ in shown),
            "" if size.micro_batch is None else str(size.micro_batch),
            f"{size.parameters:,}",
            "" if size.trainable is None else f"{size.trainable:,}",
            f"{'' if size.fits else 'too large: '}{'over ' if is_bound else ''}{size.memory_mb:,.0f} MiB",
        ]
        rows.append([*values, *row])
    print_table(console, TextTable(columns, rows), wide=wide)
    notes = sorted({size.note for size in sizes if size.note})
    notes += [] if all(size.is_simulated for size in sizes) else [BOUND]
    for note in notes:
        console.print(note, style="dim", markup=False)
