"""A small space for tests of the driver, without a corpus and without training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.config.search_space import SearchSpace
from search.config.space_file import SpaceFile
from search.config.validation import build_space


def build_small_space(study: str, dimensions: Mapping[str, Any] | None = None, **changes: Any) -> SearchSpace:
    """Return a space whose only dimension is the learning rate, unless others are added.

    Args:
        study: Name of the study.
        dimensions: Entries of the block ``space`` to add.
        **changes: Keys of the space file to add or replace.
    """
    content: dict[str, Any] = {
        "version": 1,
        "study": study,
        "corpus": {"path": "corpus"},
        "algorithm": {"sampler": "random"},
        "backbones": {"tiny": {"scratch": {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1}}},
        "space": {
            "backbone": "tiny",
            "formulation": {"token_classification": {"head": "linear"}},
            "finetuning": {"full": {"learning_rate": {"log": [1.0e-5, 1.0e-3]}}},
            "window_tokens": 96,
            **(dimensions or {}),
        },
    }
    return build_space(SpaceFile.model_validate(content | changes), "space.yaml")
