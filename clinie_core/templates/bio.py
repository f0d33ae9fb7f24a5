"""Template with one word and its BIO label per line, as in the published preprocessing of the study behind clinie."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from clinie_core.config import Task
from clinie_core.data.bio_tagging import build_bio_labels, decode_concepts, tag_units
from clinie_core.data.document import Concept, Span
from clinie_core.templates.template import END, Answer, Edge, Mention, Node, Source, Template

__all__ = ["BioLines"]


class BioLines(Template):
    """Lines such as ``fever B-problem``; concepts must be flat."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"concepts"})

    def describe_format(self, task: Task) -> str:
        """See :meth:`Template.describe_format`."""
        return "Write each word on a line of its own, a blank, and its label: O, or B- and I- with the type."

    def render(self, answer: Answer, source: Source) -> str:
        """See :meth:`Template.render`."""
        labels = build_bio_labels(source.types)
        units = [Span(*unit) for unit in source.units]
        typed = [(m.type, m.span) for m in answer.mentions if m.span]
        concepts = [Concept(f"T{i}", type_, (Span(*span),)) for i, (type_, span) in enumerate(typed, start=1)]
        tags, _ = tag_units(units, concepts, labels)
        return "\n".join(f"{source.text[u.start : u.end]} {labels[t]}" for u, t in zip(units, tags, strict=True))

    def parse(self, text: str, source: Source) -> Answer:
        """See :meth:`Template.parse`; words are searched in order, and words that are not in the text are skipped."""
        labels = build_bio_labels(source.types)
        number = {label: i for i, label in enumerate(labels)}
        units, tags, at, malformed = [], [], 0, False
        for line in text.strip().splitlines():
            word, _, label = line.strip().partition(" ")
            start = source.text.find(word, at) if word else -1
            if start < 0 or label not in number:
                malformed = True
                continue
            at = start + len(word)
            units.append(Span(start, at))
            tags.append(number[label])
        found = decode_concepts(units, tags, labels)
        mentions = tuple(Mention(c.type, source.text[c.start : c.end], c.extent) for c in found)
        return Answer(mentions, (), malformed or len(units) != len(source.units))

    def iter_edges(self, node: Node, source: Source) -> Iterable[Edge]:
        """See :meth:`Template.iter_edges`; a node is the next word's index and the type of the open concept."""
        at, open_ = node if isinstance(node, tuple) else (0, None)
        if at == len(source.units):
            yield "", END
            return
        begin = "\n" if at else ""
        start, end = source.units[at]
        word = source.text[start:end]
        yield f"{begin}{word} O", (at + 1, None)
        for type_ in source.types:
            yield f"{begin}{word} B-{type_}", (at + 1, type_)
        if open_ is not None:
            yield f"{begin}{word} I-{open_}", (at + 1, open_)
