"""Predictions for the terminal: a document's text with marked concepts."""

from __future__ import annotations

from rich.text import Text

from clinie_core.data.document import Document

__all__ = ["mark_concepts"]

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta", "bright_green")


def mark_concepts(document: Document) -> Text:
    """Return a document's text with marked concepts and their types, followed by one line per relation."""
    types = sorted({concept.type for concept in document.concepts})
    colour = {type_: COLOURS[i % len(COLOURS)] for i, type_ in enumerate(types)}
    text, at = Text(), 0
    for concept in sorted(document.concepts, key=lambda c: (c.start, c.end)):
        if concept.start < at:  # overlapping concepts are shown by --json only
            continue
        text.append(document.text[at : concept.start])
        text.append(f"[{document.text[concept.start : concept.end]}", style=f"bold {colour[concept.type]}")
        text.append(f" {concept.type}]", style=colour[concept.type])
        at = concept.end
    text.append(document.text[at:])
    by_id = {concept.id: concept for concept in document.concepts}
    for relation in document.relations:
        head, tail = by_id[relation.head], by_id[relation.tail]
        text.append(f"\n{document.mention(head)} ", style=f"bold {colour[head.type]}")
        text.append(f"- {relation.type} -> ")
        text.append(document.mention(tail), style=f"bold {colour[tail.type]}")
    return text
