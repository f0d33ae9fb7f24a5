"""Terminal table of a plan's configurations."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from clinie_core.config import TrialConfig
from search.config.resources import Resources
from search.report.settings import separate_settings
from search.report.terminal import print_table
from search.report.text_table import Column, TextTable
from search.study.pair_sizes import PairSize
from search.study.sizes import ConfigurationSize

__all__ = ["print_pair_table", "print_plan_table"]

BOUND = "over: weights, gradients and optimizer state only; --simulate adds a training step's activations"
BATCH = "batch_size"


def print_pair_table(console: Console, pairs: Sequence[PairSize], *, wide: bool = False) -> None:
    """Print a table of the largest trials for each backbone and fine-tuning method.

    Args:
        console: The console to print to.
        pairs: Their sizes.
        wide: Show all columns in full, in lines of any length.
    """
    columns = [*map(Column, ("backbone", "method", "class", "parameters", "trained", "memory", "trials at once"))]
    rows = [
        [p.backbone, p.method, p.resources.name, *_describe_size(p.size), _describe_at_once(p.resources, p.at_once)]
        for p in pairs
    ]
    console.print("largest trials of each backbone and method", style="dim")
    print_table(console, TextTable(columns, rows), wide=wide)
    _print_notes(console, [pair.size for pair in pairs])


def _describe_at_once(own: Resources, at_once: int | None) -> str:
    """Return how many trials can run at once; on an unknown GPU cluster, how many share a GPU or which GPUs one has."""
    if at_once or not own.gpu_share:
        return "unknown" if at_once is None else str(at_once)
    return f"{round(1 / own.gpu_share)} per GPU" if own.gpus_per_trial <= 1 else f"1 per {own.gpus_per_trial:g} GPUs"


def _describe_size(size: ConfigurationSize) -> list[str]:
    """Return the cells with the parameters, the trained parameters and the memory."""
    is_bound = bool(size.note) or not size.is_simulated
    return [
        f"{size.parameters:,}",
        "" if size.trainable is None else f"{size.trainable:,}",
        f"{'' if size.fits else 'too large: '}{'over ' if is_bound else ''}{size.memory_mb:,.0f} MiB",
    ]


def _print_notes(console: Console, sizes: Sequence[ConfigurationSize]) -> None:
    """Print what the estimates leave out."""
    notes = sorted({size.note for size in sizes if size.note})
    notes += [] if all(size.is_simulated for size in sizes) else [BOUND]
    for note in notes:
        console.print(note, style="dim", markup=False)


def print_plan_table(
    console: Console,
    configs: Sequence[TrialConfig],
    classes: Sequence[Resources],
    sizes: Sequence[ConfigurationSize],
    *,
    wide: bool = False,
) -> None:
    """Print a table of configurations with their numbers of parameters and estimated memory.

    Args:
        console: The console to print to.
        configs: The configurations.
        classes: The resource class of each of them.
        sizes: The size of each of them.
        wide: Show all columns in full, in lines of any length.
    """
    settings = separate_settings(configs)
    if settings.description:
        console.print(settings.description, style="dim", markup=False)
    shown = [] if BATCH in settings.names else [BATCH]
    has_classes = len({own.name for own in classes}) > 1
    own_columns = [*shown, *(["class"] if has_classes else []), "at once", "parameters", "trained", "memory"]
    rows = []
    for config, own, values, size in zip(configs, classes, settings.rows, sizes, strict=True):
        row = [
            *(str(config.batch_size) for _ in shown),
            *([own.name] if has_classes else []),
            "" if size.micro_batch is None else str(size.micro_batch),
            *_describe_size(size),
        ]
        rows.append([*values, *row])
    print_table(console, TextTable([*settings.columns, *map(Column, own_columns)], rows), wide=wide)
    _print_notes(console, sizes)
