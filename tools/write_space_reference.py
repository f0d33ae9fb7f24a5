"""Write docs/space-reference.md: every key of a space file, from the pydantic models and their docstrings.

Usage: ``python tools/write_space_reference.py``. A test fails if the page differs from what this script writes.

The description of a key is its entry under ``Args`` in the docstring of its model; type, default and limits come from
the field. A key without a description is an error.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from clinie_core.config import BackboneSource, CorpusView, Task, TrialConfig
from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.loading import CorpusSource, Shares
from clinie_core.data.corpora.presets import PRESETS
from clinie_core.finetuning import FINETUNING
from clinie_core.finetuning.method import FineTuning
from clinie_core.finetuning.peft_method import AdapterMethod
from clinie_core.formulations import FORMULATIONS
from clinie_core.registry import Registry
from clinie_core.templates import TEMPLATES
from search.config.algorithms import SAMPLERS, SCHEDULERS
from search.config.domains import Fixed, parse_domain
from search.config.objectives import METRICS, Objective
from search.config.parsing import Faults
from search.config.resources import Resources
from search.config.space_file import (
    CLASS_KEY,
    SET_BY_OTHER_BLOCKS,
    Algorithm,
    Budget,
    Cost,
    Finalists,
    SpaceFile,
    StopWhen,
)

__all__ = ["PAGE", "describe_key", "render_page"]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "space-reference.md"
INTRODUCTION = """\
# Reference of all keys of a space

[Writing a search space](spaces.md) explains these keys with examples. This page is written by
`make reference` from the models that validate a space; do not edit it.

A key can be set on the command line by its path, for example `budget.trials=4`. A key with the
default `none` may be left out or set to `null`.

"""
BLOCKS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("Top level", "", SpaceFile),
    ("corpus", "A corpus, or a list of corpora. [Corpora and scores](corpora.md) explains the keys.", CorpusSource),
    ("corpus.shares", "", Shares),
    ("objective", "An objective, or a list of objectives, the main one first.", Objective),
    ("budget", "", Budget),
    ("budget.cost", "", Cost),
    ("budget.stop_when", "", StopWhen),
    ("finalists", "", Finalists),
    ("algorithm", "", Algorithm),
    ("resources", "A resource class, or a list of [classes](cluster.md#resource-classes).", Resources),
    ("backbones.NAME", "An entry describes one backbone, which `space.backbone` names.", BackboneSource),
    ("space", "Each key is a dimension: a plain value or a [domain](spaces.md#dimensions).", TrialConfig),
)
COMPONENTS = {
    "backbone": "name of an entry of `backbones`, of a model on the Hub, or of a folder",
    "formulation": "[formulations](#formulations)",
    "relation_formulation": "[formulations](#formulations)",
    "finetuning": "[methods](#fine-tuning-methods)",
}
"""Values of the fields of ``TrialConfig`` that are not plain values."""
HIDDEN: dict[type[BaseModel], Collection[str]] = {TrialConfig: SET_BY_OTHER_BLOCKS, BackboneSource: ("name",)}
"""Fields that are not keys of a space file."""
NAMES: dict[tuple[type[BaseModel] | None, str], Collection[str]] = {
    (CorpusSource, "format"): ("auto", *FORMATS),
    (CorpusSource, "preset"): tuple(PRESETS),
    (Algorithm, "sampler"): tuple(SAMPLERS),
    (Algorithm, "scheduler"): tuple(SCHEDULERS),
    (None, "template"): tuple(TEMPLATES),
}
"""Allowed names of fields that a registry checks."""
TYPES = {"string": "text", "integer": "integer", "number": "number", "boolean": "`true`, `false`", "object": "mapping"}
LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "multipleOf": "multiple of {}",
}
LINKS = {
    "Shares": "[corpus.shares](#corpusshares)",
    "Budget": "[budget](#budget)",
    "Cost": "[budget.cost](#budgetcost)",
    "StopWhen": "[budget.stop_when](#budgetstop_when)",
    "Finalists": "[finalists](#finalists)",
    "Algorithm": "[algorithm](#algorithm)",
    "CorpusSource": "[corpus](#corpus)",
    "Objective": "[objective](#objective)",
    "Resources": "[resources](#resources)",
    "BackboneSource": "[backbone](#backbonesname)",
    "JsonValue": "",
}
ARGUMENT = re.compile(r"^(\w+): (.*)$")


def render_page() -> str:
    """Return the whole page as Markdown."""
    return INTRODUCTION + "\n\n".join([*_render_blocks(), *_render_branches()]) + "\n"


def _render_blocks() -> Iterator[str]:
    """Yield the section of each block of a space file."""
    for title, note, model in BLOCKS:
        heading = title if title == "Top level" else f"`{title}`"
        yield f"## {heading}"
        if note:
            yield note
        own = [name for name in model.__annotations__ if name in model.model_fields]
        keys = [key for key in dict.fromkeys([*own, *model.model_fields]) if key not in HIDDEN.get(model, ())]
        rows = [describe_key(model, name) for name in keys]
        if model is BackboneSource:
            rows.append(
                [f"`{CLASS_KEY}`", "Name of the resource class of its trials.", "text", "the smallest that fits"]
            )
        yield _render_table(["key", "meaning", "values", "default"], rows)
        if model is Objective:
            yield "Metrics for objectives and `limits`; the [scores](corpora.md#scores) are those of the dev split:"
            yield _render_table(["metric", "direction"], [[f"`{name}`", way] for name, way in METRICS.items()])


def _render_branches() -> Iterator[str]:
    """Yield the sections of the formulations and fine-tuning methods."""
    yield "## Formulations"
    yield (
        "Branches of `space.formulation` and, in task `joint`, of `space.relation_formulation`. `{}` selects\n"
        "the ranges in the last column; a key without a range has its default."
    )
    yield from _render_registry("formulation", FORMULATIONS, {})
    yield "## Fine-tuning methods"
    yield "Branches of `space.finetuning`. All methods have these keys:"
    yield _render_parameters(FineTuning, FineTuning.model_fields)
    yield "Methods that adapt linear modules, such as `lora`, have these keys, too:"
    yield _render_parameters(AdapterMethod, AdapterMethod.model_fields.keys() - FineTuning.model_fields.keys())
    common = dict.fromkeys(AdapterMethod.model_fields, "as above")
    yield from _render_registry("finetuning", FINETUNING, common)


def _render_registry(part: str, registry: Registry[Any], common: Mapping[str, str]) -> Iterator[str]:
    """Yield the section of each row of a registry.

    Args:
        part: Key of the space that selects a row.
        registry: The rows.
        common: Texts instead of the descriptions of common keys, which are shown only if ``{}`` searches them.
    """
    names = {registry.load(name): name for name in registry}
    for row, name in names.items():
        yield f"### `{part}.{name}`"
        tasks = (
            f" Tasks: {', '.join(f'`{task}`' for task in get_args(Task) if task in row.tasks)}." if not common else ""
        )
        kinds = [kind for kind in ("encoder", "decoder") if kind in row.architectures]
        summary = _clean(inspect.cleandoc(row.__doc__ or "").partition("\n\n")[0])
        yield textwrap.fill(f"{summary}{tasks} Backbones: {', '.join(kinds)}.", 100, break_on_hyphens=False)
        parent = next((names[base] for base in row.__mro__[1:] if base in names), None)
        inherited = {k: f"as in `{parent}`" for k in row.model_fields if k not in row.__annotations__ and parent}
        keys = [key for key in row.model_fields if key not in common]
        keys += [key for key in row.ranges if key not in keys]
        yield _render_parameters(row, keys, {**inherited, **common})


def _render_parameters(row: Any, keys: Collection[str], known: Mapping[str, str] | None = None) -> str:
    """Return the table of some keys of a method or formulation.

    Args:
        row: The class.
        keys: Its keys to show.
        known: Texts instead of the description and values of keys that another table describes.
    """
    rows = []
    for key in (name for name in row.model_fields if name in keys):
        cells = describe_key(row, key)
        if known and key in known:
            cells = [cells[0], known[key], "", cells[3]]
        if key in row.ranges and row.model_fields[key].is_required():
            cells[3] = "the range"
        rows.append([*cells, _format_range(row.ranges.get(key))])
    header = ["key", "meaning", "values", "default", "range of `{}`"]
    return _render_table(header if row.ranges else header[:-1], [cells if row.ranges else cells[:-1] for cells in rows])


def describe_key(model: type[BaseModel], name: str) -> list[str]:
    """Return key, description, values and default of a field."""
    field = model.model_fields[name]
    schema = model.model_json_schema()
    schema = schema["$defs"][model.__name__] if "$ref" in schema else schema  # a model that contains itself
    names = NAMES.get((model, name)) or NAMES.get((None, name))
    if names:
        values = ", ".join(f"`{allowed}`" for allowed in names)
    elif model is TrialConfig and name in COMPONENTS:
        values = COMPONENTS[name]
    else:
        values = _format_type(schema["properties"][name])
    return [f"`{name}`", _find_description(model, name), values, _format_default(field, model, name)]


def _find_description(model: type[BaseModel], name: str) -> str:
    """Return the entry of a field in the docstring of the first class that has one."""
    for base in model.__mro__:
        found = _read_arguments(base).get(name)
        if found:
            return found
    raise SystemExit(f"{model.__name__}.{name} has no description (remedy: add it to Args of the docstring)")


def _read_arguments(owner: type) -> Mapping[str, str]:
    """Return the entries under ``Args`` of a class's own docstring, each as one line."""
    text = inspect.cleandoc(owner.__doc__ or "")
    _, found, block = text.partition("Args:\n")
    entries: dict[str, str] = {}
    name = ""
    for line in block.splitlines() if found else ():
        if line and not line.startswith("    "):
            break
        match = ARGUMENT.match(line[4:])
        if match and not line.startswith("     "):
            name = match[1]
            entries[name] = match[2]
        elif name and line.strip():
            entries[name] += " " + line.strip()
    return {key: _clean(entry) for key, entry in entries.items()}


def _clean(text: str) -> str:
    """Return text of a docstring as Markdown in one line."""
    text = text.replace("``", "`").replace("; None ", "; `none` ").replace(". None ", ". `none` ")
    return " ".join(text.split())


def _format_type(schema: Mapping[str, Any]) -> str:
    """Return the allowed values of a JSON schema as Markdown."""
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    return " or ".join(filter(None, map(_format_option, options)))


def _format_option(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema or "allOf" in schema:
        reference = schema.get("$ref") or schema["allOf"][0]["$ref"]
        return LINKS[reference.rpartition("/")[2]]
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{_format_value(value)}`" for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "")
    if kind == "array":
        return f"list of {_format_type(schema['items'])}" if schema.get("items") else "list"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        inner = _format_type(schema["additionalProperties"])
        return f"mapping to {inner}" if inner else "mapping"
    limits = [text.format(f"{schema[key]:g}") for key, text in LIMITS.items() if key in schema]
    pattern = [f"matches `{_escape(schema['pattern'])}`"] if "pattern" in schema else []
    return ", ".join([TYPES.get(kind, ""), *limits, *pattern])


def _format_default(field: Any, model: type[BaseModel], name: str) -> str:
    if field.is_required():
        return "required"
    value = field.default if field.default is not PydanticUndefined else field.default_factory()
    if isinstance(value, CorpusView) or (isinstance(value, BaseModel) and value == type(value)()):
        return "defaults below" if type(value).__name__ in LINKS else "none"
    if name == "objective" and model is SpaceFile:
        return "`{maximize: strict_f1}`"
    if name == "resources" and model is SpaceFile:
        return "defaults below"
    if value is None or value in ((), [], {}, ""):
        return "none"
    return f"`{_format_value(value)}`"


def _format_range(content: Any) -> str:
    """Return a domain as text; empty without one."""
    if content is None:
        return ""
    domain = parse_domain(content, "", Faults(""))
    return f"`{domain}`" if isinstance(domain, Fixed) else str(domain)


def _format_value(value: Any) -> str:
    if isinstance(value, bool | list | tuple | dict):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _render_table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Write the page."""
    PAGE.write_text(render_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
