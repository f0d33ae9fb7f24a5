"""Template with one mention or relation per line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from clinie_core.config import Task
from clinie_core.templates.template import (
    END,
    Answer,
    Edge,
    Mention,
    Node,
    Source,
    Template,
    iter_copy_edges,
    iter_copy_starts,
    iter_relation_edges,
)

__all__ = ["Lines"]

NUMBER = re.compile(r"^\d+\. ")
RELATION = re.compile(r"(.+): (\d+) -> (\d+)")
NONE = "none"


class Lines(Template):
    """Lines such as ``drug: aspirin``.

    In task ``joint`` mentions are numbered, and relations refer to the numbers: ``1. drug: aspirin`` and
    ``treats: 1 -> 2``.
    """

    def describe_format(self, task: Task) -> str:
        """See :meth:`Template.describe_format`."""
        mentions = "one `type: mention` a line in the order of the text"
        links = "one `relation: number -> number` a line"
        formats = {
            "concepts": mentions,
            "relations": links,
            "joint": f"{mentions}, numbered `1. type: mention`, then {links}",
        }[task]
        return f"Write {formats}; `{NONE}` if there is nothing."

    def render(self, answer: Answer, source: Source) -> str:
        """See :meth:`Template.render`."""
        lines = [
            f"{f'{number}. ' if source.task == 'joint' else ''}{m.type}: {m.text}"
            for number, m in enumerate(answer.mentions, start=1)
        ]
        lines += [f"{type_}: {head} -> {tail}" for type_, head, tail in answer.relations]
        return "\n".join(lines) or NONE

    def parse(self, text: str, source: Source) -> Answer:
        """See :meth:`Template.parse`."""
        mentions, relations, malformed = [], [], False
        for line in text.strip().splitlines():
            link = RELATION.fullmatch(line.strip())
            if link and link[1] in source.relations and source.task != "concepts":
                relations.append((link[1], int(link[2]), int(link[3])))
                continue
            type_, colon, mention = NUMBER.sub("", line.strip(), count=1).partition(": ")
            if colon and type_ in source.types and source.task != "relations":
                mentions.append(Mention(type_, mention))
            elif line.strip() not in ("", NONE):
                malformed = True
        return Answer(tuple(mentions), tuple(relations), malformed)

    def iter_edges(self, node: Node, source: Source) -> Iterable[Edge]:
        """See :meth:`Template.iter_edges`; a node inside a mention includes the number of mentions so far."""
        if node is None:
            yield NONE, END
            yield from self._iter_line_edges(0, source)
        elif isinstance(node, tuple) and node[0] == "line":
            yield from self._iter_line_edges(node[1], source)
        elif isinstance(node, tuple) and isinstance(node[0], tuple) and node[0][0] == "copy":
            count, at = node[0][1], node[1]
            then = [("", END), ("\n", ("line", count))]
            yield from iter_copy_starts(source, node[0]) if at is None else iter_copy_edges(source, at, then, node[0])
        elif isinstance(node, tuple):
            base = node[0] if isinstance(node[0], tuple) else node
            if node[1:] == ("after",):
                yield "", END
                yield "\n", base
            else:
                yield from iter_relation_edges(node, ": ", " -> ", "", source, base[1])

    def _iter_line_edges(self, count: int, source: Source) -> Iterator[Edge]:
        """Yield the edges of the next line after ``count`` mentions: a mention or the first relation."""
        joint = source.task == "joint"
        if source.task != "relations":
            for type_ in source.types:
                yield f"{f'{count + 1}. ' if joint else ''}{type_}: ", (("copy", count + 1 if joint else 0), None)
        numbers = source.concepts if source.task == "relations" else count
        if source.task != "concepts" and numbers:
            yield "", ("relations", numbers)
