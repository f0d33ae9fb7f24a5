"""The page at ``/docs``: the routes of an OpenAPI description as plain HTML that needs no internet."""

from __future__ import annotations

import json
from html import escape
from typing import Any

__all__ = ["render_description"]

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#1c2733}"
    "pre{background:#f2f5f8;padding:.8rem;overflow:auto}code{font-size:.9em}"
    "table{border-collapse:collapse}td{padding:.15rem .8rem .15rem 0;vertical-align:top}h2{margin-top:2rem}"
)
EXAMPLE = """curl -X POST http://HOST:PORT/predict -H 'content-type: application/json' \\
    -d '{"texts": ["Denies fever."]}'"""


def render_description(openapi: dict[str, Any]) -> str:
    """Return an HTML page with the routes, their answers and the schemas.

    Args:
        openapi: An OpenAPI 3 description.
    """
    info = openapi["info"]
    parts = [f"<h1>{escape(info['title'])}</h1><p>{escape(info.get('description', ''))}</p>"]
    parts.append(f"<pre>{escape(EXAMPLE)}</pre>")
    for path, methods in openapi["paths"].items():
        for method, route in methods.items():
            parts.append(f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>")
            parts.append(f"<p>{escape(route.get('description', ''))}</p><table>")
            for status, answer in sorted(route.get("responses", {}).items()):
                parts.append(f"<tr><td><code>{escape(status)}</code></td><td>{escape(answer['description'])}</td></tr>")
            parts.append("</table>")
    schemas = openapi.get("components", {}).get("schemas", {})
    parts.append("<h2>Schemas</h2>")
    for name, schema in schemas.items():
        parts.append(f"<h3>{escape(name)}</h3><pre>{escape(json.dumps(schema, indent=2))}</pre>")
    parts.append('<p><a href="/openapi.json">openapi.json</a></p>')
    head = f'<meta charset="utf-8"><title>{escape(info["title"])}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'
