"""Template that repeats the text, with tags around each mention."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from clinie_core.config import Task
from clinie_core.templates.template import END, Answer, Edge, Mention, Node, Source, Template

__all__ = ["Tags"]


class Tags(Template):
    """Text such as ``no <problem>fever</problem> today``; of concepts that partly overlap, only the first is tagged."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"concepts"})

    def describe_format(self, task: Task) -> str:
        """See :meth:`Template.describe_format`."""
        return "Repeat the text with <type> and </type> around each mention."

    def render(self, answer: Answer, source: Source) -> str:
        """See :meth:`Template.render`."""
        out: list[str] = []
        open_: list[Mention] = []
        at = 0

        def close(until: int) -> None:
            nonlocal at
            while open_ and open_[-1].span and open_[-1].span[1] <= until:
                end = open_[-1].span[1]
                out.extend((source.text[at:end], f"</{open_.pop().type}>"))
                at = end

        placed = [(m.span, m) for m in answer.mentions if m.span]
        for (start, end), mention in sorted(placed, key=lambda item: (item[0][0], -item[0][1])):
            close(start)
            if open_ and open_[-1].span and end > open_[-1].span[1]:
                continue  # partly overlaps the open mention
            out.extend((source.text[at:start], f"<{mention.type}>"))
            at = start
            open_.append(mention)
        close(len(source.text))
        return "".join((*out, source.text[at:]))

    def parse(self, text: str, source: Source) -> Answer:
        """See :meth:`Template.parse`; spans are known if the text was repeated without change."""
        tag = re.compile("<(/?)(" + "|".join(map(re.escape, source.types)) + ")>")
        plain: list[str] = []
        length, at, malformed = 0, 0, False
        open_: list[tuple[str, int]] = []
        found: list[tuple[str, int, int]] = []
        for match in tag.finditer(text):
            plain.append(text[at : match.start()])
            length, at = length + match.start() - at, match.end()
            if not match[1]:
                open_.append((match[2], length))
                continue
            opened = next((i for i in reversed(range(len(open_))) if open_[i][0] == match[2]), None)
            if opened is None:
                malformed = True
            else:
                found.append((match[2], open_.pop(opened)[1], length))
        whole = "".join((*plain, text[at:]))
        exact = whole == source.text
        mentions = [
            Mention(type_, whole[start:end], (start, end) if exact else None)
            for type_, start, end in sorted(found, key=lambda item: item[1:])
            if whole[start:end].strip()
        ]
        return Answer(tuple(mentions), (), malformed or bool(open_) or not exact)

    def iter_edges(self, node: Node, source: Source) -> Iterable[Edge]:
        """See :meth:`Template.iter_edges`; only one mention is open at a time."""
        at, inside, opened = node if isinstance(node, tuple) else (0, None, -1)
        if inside is None:
            if at == len(source.text):
                yield "", END
            if at in source.unit_starts:
                for type_ in source.types:
                    yield f"<{type_}>" + source.text[at], (at + 1, type_, at)
        elif at in source.unit_ends:
            yield f"</{inside}>", (at, None, -1)
        if at < len(source.text):
            yield source.text[at], (at + 1, inside, opened)
