"""Removal of the generation settings that a published model contains.

``generate`` adds the settings of ``generation_config.json`` to those that it receives. A repetition penalty, a list of
forbidden words or a forced token changes the answers: an answer copies text of the note, and repeats its own format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["remove_generation_settings"]

SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def remove_generation_settings(model: PreTrainedModel) -> None:
    """Remove all generation settings of a model except its special tokens, in place.

    Args:
        model: A pretrained model; one that cannot generate has no such settings.
    """
    from transformers import GenerationConfig

    published = getattr(model, "generation_config", None)
    if published is not None:
        model.generation_config = GenerationConfig(**{name: getattr(published, name) for name in SPECIAL_TOKENS})
