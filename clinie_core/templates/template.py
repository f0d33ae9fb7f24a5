"""Base class of templates: render an answer as text, parse it, and list the answers that are possible.

An answer describes one part of a document, the *source*. White space in the source is replaced by blanks of the same
length, so a mention never contains a line break and offsets do not change.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from clinie_core.config import Task

__all__ = [
    "END",
    "Answer",
    "Edge",
    "Mention",
    "Node",
    "Source",
    "Template",
    "iter_copy_edges",
    "iter_copy_starts",
    "iter_relation_edges",
]

UNIT = re.compile(r"\w+|[^\w\s]")
"""Pattern of a unit, at which a mention begins or ends: a word or a punctuation mark."""

Node = Hashable
Edge = tuple[str, Node]
"""Text that may follow, and the node after it."""
END = "end"
"""Node that ends the answer."""


@dataclass(frozen=True)
class Source:
    """Part of a document, and the annotations to extract from it.

    Args:
        text: The text, with white space as blanks.
        task: Annotations to extract.
        types: Names of the concept types in the prompt.
        relations: Names of the relation types in the prompt.
        concepts: Number of concepts that the prompt lists, numbered from 1.
    """

    text: str = field(repr=False)
    task: Task
    types: tuple[str, ...]
    relations: tuple[str, ...] = ()
    concepts: int = 0

    @cached_property
    def units(self) -> list[tuple[int, int]]:
        """Start and end of each unit of the text."""
        return [match.span() for match in UNIT.finditer(self.text)]

    @cached_property
    def unit_starts(self) -> frozenset[int]:
        """Offsets at which a mention may begin."""
        return frozenset(start for start, _ in self.units)

    @cached_property
    def unit_ends(self) -> frozenset[int]:
        """Offsets at which a mention may end."""
        return frozenset(end for _, end in self.units)


@dataclass(frozen=True)
class Mention:
    """Generated mention: the name of its type, its text, and its span in the source's text if the answer has it."""

    type: str
    text: str = field(repr=False)
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class Answer:
    """Annotations of an answer.

    Args:
        mentions: Mentions in the order of the answer.
        relations: Name of the type, number of the head, number of the tail. Numbers count the mentions from 1; in task
            ``relations`` they count the concepts that the prompt lists.
        malformed: Whether a part of the answer could not be parsed.
    """

    mentions: tuple[Mention, ...] = ()
    relations: tuple[tuple[str, int, int], ...] = ()
    malformed: bool = False


class Template(ABC):
    """Base class of templates; every subclass is one row of ``TEMPLATES``."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"concepts", "relations", "joint"})
    """Tasks that the template supports."""

    @abstractmethod
    def describe_format(self, task: Task) -> str:
        """Return the instruction that describes the format of the answer to the model."""

    @abstractmethod
    def render(self, answer: Answer, source: Source) -> str:
        """Render an answer as text.

        Args:
            answer: The answer; its mentions have spans.
            source: The source that it describes.
        """

    @abstractmethod
    def parse(self, text: str, source: Source) -> Answer:
        """Parse a generated answer; no text raises an error.

        Args:
            text: The generated text.
            source: The source that it describes.
        """

    @abstractmethod
    def iter_edges(self, node: Node, source: Source) -> Iterable[Edge]:
        """Yield the edges of a node of the answer's grammar.

        Args:
            node: A node; None is the start of the answer, and :data:`END` has no edges.
            source: The source that the answer describes.
        """


def iter_copy_edges(
    source: Source, at: int, then: Iterable[Edge], node: Node, *, escape: bool = False
) -> Iterator[Edge]:
    """Yield the edges inside a mention: the next character, or after a complete unit the edges that follow.

    Args:
        source: The source from which the mention is copied.
        at: Offset in the source's text.
        then: Edges after the mention.
        node: First part of the nodes inside the mention; the second part is an offset.
        escape: Whether the mention is inside a JSON string.
    """
    if at in source.unit_ends:
        yield from then
    if at < len(source.text):
        yield _escape_character(source.text[at], escape=escape), (node, at + 1)


def iter_copy_starts(source: Source, node: Node, *, escape: bool = False) -> Iterator[Edge]:
    """Yield the edges that start a mention at each unit; see :func:`iter_copy_edges`."""
    for start, _ in source.units:
        yield _escape_character(source.text[start], escape=escape), (node, start + 1)


def _escape_character(character: str, *, escape: bool) -> str:
    return json.dumps(character, ensure_ascii=False)[1:-1] if escape else character


def iter_relation_edges(
    node: Node, first: str, between: str, last: str, source: Source, numbers: int
) -> Iterator[Edge]:
    """Yield the edges of one relation: its type, the number of its head and the number of its tail.

    Args:
        node: The node of the relation's start; inside the relation ``(node, "head")`` or ``(node, "tail")``. The
            relation ends in ``(node, "after")``.
        first: Text between the type and the head.
        between: Text between the head and the tail.
        last: Text after the tail.
        source: The source; it lists the relation types.
        numbers: Number of concepts to which a relation can refer.
    """
    base, *inner = node if isinstance(node, tuple) and node[1:2] in (("head",), ("tail",)) else (node,)
    if not inner:
        yield from ((f"{type_}{first}", (base, "head")) for type_ in source.relations)
    elif inner[0] == "head":
        yield from ((f"{number}{between}", (base, "tail")) for number in range(1, numbers + 1))
    else:
        yield from ((f"{number}{last}", (base, "after")) for number in range(1, numbers + 1))
