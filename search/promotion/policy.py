"""The promotion policy: the rules that a model must pass to become champion, as a reviewable YAML file."""

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
    """Upper limits on the costs of a model; None for no limit.

    Args:
        seconds_per_document: Time to predict one document of the test split, in seconds.
        peak_memory_mb: Peak memory of the process or GPU during prediction, in MiB.
        size_mb: Total size of the model's files, in MiB.
    """

    seconds_per_document: float | None = Field(default=None, gt=0)
    peak_memory_mb: float | None = Field(default=None, gt=0)
    size_mb: float | None = Field(default=None, gt=0)


class Policy(FrozenModel):
    """Rules that a model must pass to become champion.

    Args:
        version: Version of the policy format.
        alpha: Significance level of the test against the champion, for all reads of one test split together.
        first_champion: Lower bounds on test metrics of the first champion, by metric.
        type_floors: Lower bounds on F1, by type.
        type_drop: Largest allowed loss of F1 of a type against the champion.
        least_support: Smallest number of gold annotations of a type to which ``type_drop`` applies.
        limits: Upper limits on costs.
        least_seeds: Smallest number of seeds with which the candidate's configuration has been trained.
    """

    version: Literal[1]
    alpha: float = Field(default=0.05, gt=0, lt=1)
    first_champion: dict[str, float] = Field(default_factory=dict)
    type_floors: dict[str, float] = Field(default_factory=dict)
    type_drop: float = Field(default=0.1, ge=0, le=1)
    least_support: int = Field(default=20, ge=1)
    limits: Limits = Limits()
    least_seeds: int = Field(default=1, ge=1)

    def level(self, read: int) -> float:
        """Return the significance level of one promotion; the levels of all promotions sum to ``alpha``.

        Args:
            read: 1-based index of the promotion among the promotions that read the same test split.
        """
        return self.alpha / (read * (read + 1))


def read_policy(file: Path | None) -> Policy:
    """Read a promotion policy.

    Args:
        file: YAML file; None for the policy that comes with clinie.

    Raises:
        InputError: If the file cannot be read or is invalid; the message has all faults.
    """
    path = file or SHIPPED
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        fail("--policy", f"{path}: {error.strerror}", allowed="a YAML file", remedy=f"copy and edit {SHIPPED}")
    except UnicodeDecodeError:
        fail(str(path), "not a text file in UTF-8", allowed="a YAML file", remedy=f"copy and edit {SHIPPED}")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        fail(place, f"invalid YAML: {getattr(error, 'problem', 'parse error')}", remedy="correct the line")
    try:
        return Policy.model_validate(content if isinstance(content, dict) else {})
    except ValidationError as error:
        raise InputError(convert_validation_error(error, str(path))) from None
