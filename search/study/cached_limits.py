"""Counts of representable concepts, kept between plans: tokenizers take seconds to import."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from clinie_core.backbones.location import locate
from clinie_core.config import BackboneSource, ComponentChoice
from clinie_core.data.document import Corpus
from clinie_core.errors import InputError, Problem
from clinie_core.formulations.representable import RepresentableCounts
from search.config.search_space import SearchSpace
from search.study.cache_file import CacheFile, compute_digest, find_versions
from search.study.limits import FormulationLimits, measure_limits

__all__ = ["read_or_measure_limits"]


def read_or_measure_limits(
    space: SearchSpace, corpus: Corpus, *, exclude: Collection[str] = ()
) -> tuple[list[FormulationLimits], list[Problem]]:
    """Return the result of :func:`search.study.limits.measure_limits`, from an earlier plan where possible.

    Args:
        space: The space.
        corpus: Its corpus.
        exclude: Names of backbones without a tokenizer.
    """
    parts: list[Any] = [corpus.digest(), space.file.view.model_dump(mode="json")]
    for source in space.backbones:
        if source.name not in exclude:
            configs = [config.model_dump(mode="json") for config in space.list_formulations(source.name)]
            parts.append([source.model_dump(mode="json"), _list_tokenizer_files(source), configs])
    entry = CacheFile("limits", compute_digest([json.dumps(parts, sort_keys=True), *find_versions()]))
    found = entry.read()
    if found is not None:
        with suppress(KeyError, TypeError, ValueError):
            return [_parse(row) for row in found["rows"]], []
    rows, problems = measure_limits(space, corpus, exclude=exclude)
    if not problems:  # a tokenizer that cannot be loaded now may be available later
        entry.write({"rows": [_format(row) for row in rows]})
    return rows, problems


def _list_tokenizer_files(source: BackboneSource) -> list[tuple[str, int, int]]:
    """Return name, size and time of change of the files of a backbone's tokenizer; none if they are on the Hub."""
    with suppress(InputError, OSError):
        place = locate(source.tokenizer or source)
        if place is not None and Path(place).is_dir():
            files = sorted(file for file in Path(place).iterdir() if file.suffix in (".json", ".txt", ".model"))
            return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return []


def _format(row: FormulationLimits) -> dict[str, Any]:
    splits = {
        split: {"concepts": dict(counts.concepts), "lost": {reason: dict(lost) for reason, lost in counts.lost.items()}}
        for split, counts in row.splits.items()
    }
    choice = row.formulation.model_dump(mode="json")
    return {"formulation": choice, "backbones": row.backbones, "splits": splits, "sampled": row.sampled}


def _parse(row: dict[str, Any]) -> FormulationLimits:
    splits = {
        split: RepresentableCounts(
            Counter(counts["concepts"]), {reason: Counter(lost) for reason, lost in counts["lost"].items()}
        )
        for split, counts in row["splits"].items()
    }
    choice = ComponentChoice.model_validate(row["formulation"])
    return FormulationLimits(choice, tuple(row["backbones"]), splits, row["sampled"])
