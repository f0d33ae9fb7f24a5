"""Templates of generated answers: from annotations to text and back, one module each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinie_core.registry import Registry

if TYPE_CHECKING:
    from clinie_core.templates.template import Template

__all__ = ["TEMPLATES"]

TEMPLATES: Registry[type[Template]] = Registry(
    "template",
    {
        "json": "clinie_core.templates.json_list:JsonList",
        "lines": "clinie_core.templates.lines:Lines",
        "tags": "clinie_core.templates.tags:Tags",
        "bio": "clinie_core.templates.bio:BioLines",
    },
)
