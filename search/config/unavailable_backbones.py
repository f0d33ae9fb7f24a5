"""Backbones whose files are not available when a space is planned: stand-ins from the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from clinie_core.backbones.catalogue import find_entry
from clinie_core.backbones.location import BackboneUnavailable
from clinie_core.config import BackboneSource
from clinie_core.errors import Problem
from search.config.domains import Fixed, OneOf
from search.config.parsing import Dimensions, Faults

__all__ = ["UnavailableBackbones"]


class UnavailableBackbones:
    """The backbones of a space whose files are on no disk of this machine while the Hub is not available.

    Args:
        faults: Receives the errors, unless the space is only planned.
        stand_in: Whether the space is only planned: a backbone of the catalogue is replaced by one of the same
            architecture, another is left out, and both are reported as notices.
    """

    def __init__(self, faults: Faults, *, stand_in: bool) -> None:
        self._faults = faults
        self._stand_in = stand_in
        self._errors: list[Problem] = []
        self.notices: list[Problem] = []
        """What a plan does not know, one line for each backbone."""
        self.stand_ins: frozenset[str] = frozenset()
        """Names of the backbones that the catalogue describes."""
        self._left_out: frozenset[str] = frozenset()

    def replace(self, source: BackboneSource, error: BackboneUnavailable) -> BackboneSource | None:
        """Return the stand-in of an unavailable backbone; None if it has none.

        Args:
            source: The backbone.
            error: Why it is not available.
        """
        entry = find_entry(source) if self._stand_in else None
        if not self._stand_in:
            self._faults.extend(error.problems)
            return None
        cause = error.problems[0]
        if entry is None:
            self._left_out |= {source.name}
            self._errors += error.problems
            remedy = f"it is left out of this plan; {cause.remedy or cause.allowed}"
            self.notices.append(Problem(cause.where, cause.found, remedy=remedy, severity="warning"))
            return None
        self.stand_ins |= {source.name}
        found = (
            f"{cause.found}; sizes are those of the catalogue ({entry.terms}),"
            " and files, commit and tokenizer are not checked"
        )
        self.notices.append(Problem(cause.where, found, severity="warning"))
        return entry.make_stand_in(source.name)

    def remove_from(self, dimensions: Dimensions, backbones: Mapping[str, BackboneSource]) -> Dimensions:
        """Return dimensions with these backbones and without those that a plan leaves out.

        If no backbone would remain, the errors are faults.

        Args:
            dimensions: The dimensions of the space.
            backbones: The backbones that are available or replaced.
        """
        domain = dimensions.scalars.get("backbone")
        if not self._left_out or domain is None:
            return replace(dimensions, backbones=backbones)
        kept = tuple(str(name) for name in domain.corners if name not in self._left_out)
        if not kept:
            self._faults.extend(self._errors)
            return replace(dimensions, backbones=backbones)
        scalars = {**dimensions.scalars, "backbone": OneOf(kept) if len(kept) > 1 else Fixed(kept[0])}
        return replace(dimensions, scalars=scalars, backbones=backbones)
