"""Dropout of a loaded backbone, which its modules have read from the configuration when they were built."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["set_dropout"]

DROPOUT_NAMES = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob"),  # BERT family
    *("attn_pdrop", "resid_pdrop", "embd_pdrop"),  # GPT-2
    *("attention_dropout", "hidden_dropout", "embedding_dropout", "mlp_dropout"),  # Llama, GPT-NeoX, ModernBERT
)


def set_dropout(model: PreTrainedModel, probability: float) -> None:
    """Set the dropout of hidden states and attention of a model, in place.

    Some modules hold a copy of the configuration's value: ``nn.Dropout`` and the attention of most architectures.
    ModernBERT has ``nn.Identity`` instead of a dropout of zero. All are found by comparison with a model without
    weights that is built with the new value.

    Args:
        model: The model.
        probability: The dropout probability.
    """
    import torch

    config = copy.deepcopy(model.config)
    names = [name for name in DROPOUT_NAMES if hasattr(config, name)]
    for name in names:
        setattr(config, name, probability)
    with torch.device("meta"):
        expected = dict(type(model)(config).named_modules())
    for path, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Identity | torch.nn.Dropout) and path in expected:
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, expected[path])
            continue
        own = vars(module)
        for name, value in vars(expected.get(path, module)).items():
            if isinstance(value, float) and name in own:
                setattr(module, name, value)
        if "config" in own:
            for name in names:
                setattr(module.config, name, probability)
