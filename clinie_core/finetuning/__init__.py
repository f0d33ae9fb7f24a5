"""Fine-tuning methods: the weights that are trained, one module for each family."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from clinie_core.registry import Registry

if TYPE_CHECKING:
    from clinie_core.finetuning.method import FineTuning

__all__ = ["FINETUNING"]

# PEFT and transformers import bitsandbytes if it is installed; it warns about a package that downloads code.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

FINETUNING: Registry[type[FineTuning]] = Registry(
    "fine-tuning method",
    {
        "full": "clinie_core.finetuning.full:Full",
        "head_only": "clinie_core.finetuning.scales:HeadOnly",
        "lora": "clinie_core.finetuning.lora:Lora",
        "rslora": "clinie_core.finetuning.lora:RsLora",
        "dora": "clinie_core.finetuning.lora:Dora",
        "pissa": "clinie_core.finetuning.pissa:Pissa",
        "adalora": "clinie_core.finetuning.lora:AdaLora",
        "qlora": "clinie_core.finetuning.qlora:QLora",
        "ia3": "clinie_core.finetuning.scales:Ia3",
        "vera": "clinie_core.finetuning.factored:Vera",
        "loha": "clinie_core.finetuning.factored:LoHa",
        "lokr": "clinie_core.finetuning.factored:LoKr",
        "oft": "clinie_core.finetuning.factored:Oft",
        "bottleneck": "clinie_core.finetuning.bottleneck:Bottleneck",
        "prompt_tuning": "clinie_core.finetuning.prompts:PromptTuning",
        "p_tuning": "clinie_core.finetuning.prompts:PTuning",
        "prefix_tuning": "clinie_core.finetuning.prompts:PrefixTuning",
        "norm_tuning": "clinie_core.finetuning.scales:NormTuning",
        "bitfit": "clinie_core.finetuning.scales:BitFit",
    },
)
