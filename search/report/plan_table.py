"""Terminal table of a plan's configurations."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from clinie_core.config import TrialConfig
from search.config.description import describe_config
from search.study.sizes import ConfigurationSize

__all__ = ["build_plan_table"]

BOUND = "over: weights, gradients and optimizer state only; --simulate adds a training step's activations"


def build_plan_table(configs: Sequence[TrialConfig], sizes: Sequence[ConfigurationSize]) -> RenderableType:
    """Build a table of configurations with their numbers of parameters and estimated memory.

    Args:
        configs: The configurations.
        sizes: The size of each of them.
    """
    table = Table(header_style="bold", box=None, padding=(0, 2))
    table.add_column("configuration", overflow="fold")
    for column in ("batch", "at once", "parameters", "trained", "memory"):
        table.add_column(column, justify="right")
    for config, size in zip(configs, sizes, strict=True):
        is_bound = bool(size.note) or not size.is_simulated
        table.add_row(
            escape(describe_config(config)),
            str(config.batch_size),
            "" if size.micro_batch is None else str(size.micro_batch),
            f"{size.parameters:,}",
            "" if size.trainable is None else f"{size.trainable:,}",
            f"{'' if size.fits else 'too large: '}{'over ' if is_bound else ''}{size.memory_mb:,.0f} MiB",
        )
    notes = sorted({size.note for size in sizes if size.note})
    notes += [] if all(size.is_simulated for size in sizes) else [BOUND]
    if notes:
        table.caption, table.caption_justify = escape("\n".join(notes)), "left"
    return table
