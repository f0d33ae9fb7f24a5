"""The rules by which a model becomes champion, as a file that can be reviewed and signed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from clinie_core.config import FrozenModel, convert_validation_error
from clinie_core.errors import InputError, fail

__all__ = ["SHIPPED", "Limits", "Policy", "read_policy"]

SHIPPED = Path(__file__).with_name("policy.yaml")


class Limits(FrozenModel):
    """Most that a model may cost; None for no limit.

    Args:
        seconds_per_document: Time to predict one document of the test split.
        peak_memory_mb: Memory of the process or GPU while it predicts, in MiB.
        size_mb: Of its files, in MiB.
    """

    seconds_per_document: float | None = Field(default=None, gt=0)
    peak_memory_mb: float | None = Field(default=None, gt=0)
    size_mb: float | None = Field(default=None, gt=0)


class Policy(FrozenModel):
    """When a model may become champion.

    Args:
        alpha: Level of the test against the champion, over all reads of one test split together.
        first_champion: Test metrics that the first champion must reach.
        type_floors: F1 that a type must reach, by type.
        type_drop: Most F1 that a type may lose against the champion.
        least_support: Types of which the test split has fewer are not held to ``type_drop``.
        limits: What a model may cost.
    """

    version: Literal[1]
    alpha: float = Field(default=0.05, gt=0, lt=1)
    first_champion: dict[str, float] = Field(default_factory=dict)
    type_floors: dict[str, float] = Field(default_factory=dict)
    type_drop: float = Field(default=0.1, ge=0, le=1)
    least_support: int = Field(default=20, ge=1)
    limits: Limits = Limits()

    def level(self, read: int) -> float:
        """The level of the k-th promotion that reads a test split, from 1; over all k they add up to ``alpha``."""
        return self.alpha / (read * (read + 1))


def read_policy(file: Path | None) -> Policy:
    """Read a policy; the one that comes with clinie if no file is given.

    Raises:
        InputError: With everything that is wrong with it.
    """
    path = file or SHIPPED
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        fail("--policy", f"{path}: {error.strerror}", allowed="a YAML file", remedy=f"copy {SHIPPED}")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        fail(place, f"no YAML: {getattr(error, 'problem', 'it does not parse')}", remedy="mend the line")
    try:
        return Policy.model_validate(content if isinstance(content, dict) else {})
    except ValidationError as error:
        raise InputError(convert_validation_error(error, str(path))) from None
