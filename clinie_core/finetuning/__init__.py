"""Fine-tuning methods: which weights move, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinie_core.table import Table

if TYPE_CHECKING:
    from clinie_core.finetuning.method import FineTuning

__all__ = ["FINETUNING"]

FINETUNING: Table[type[FineTuning]] = Table(
    "fine-tuning method",
    {
        "full": "clinie_core.finetuning.full:Full",
        "lora": "clinie_core.finetuning.lora:Lora",
        "ia3": "clinie_core.finetuning.ia3:Ia3",
    },
)
