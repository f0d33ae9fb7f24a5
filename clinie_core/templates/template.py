"""What every template does: write an answer, read one, and say which answers are possible.

An answer speaks of one stretch of a document, the *source*. White space in it is written as blanks, so
that a mention never breaks a line and offsets stay as they are.
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
"""What a mention begins and ends with: a word or a mark."""

Node = Hashable
Edge = tuple[str, Node]
"""Text that may be written next, and where that leads."""
END = "end"
"""The node after which nothing may follow."""


@dataclass(frozen=True)
class Source:
    """What is asked about a stretch of text.

    Args:
        text: The stretch, its white space as blanks.
        task: What is asked.
        types: Concept types in words.
        relations: Relation types in words.
        concepts: How many concepts the question names, by numbers from 1.
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
        """Where a mention can begin."""
        return frozenset(start for start, _ in self.units)

    @cached_property
    def unit_ends(self) -> frozenset[int]:
        """Where a mention can end."""
        return frozenset(end for _, end in self.units)


@dataclass(frozen=True)
class Mention:
    """A mention as an answer has it: its type in words, its text, and its stretch where the answer says it."""

    type: str
    text: str = field(repr=False)
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class Answer:
    """What an answer says.

    Args:
        mentions: In the order of the answer.
        relations: Type in words, number of the head, number of the tail; numbers are those of the
            mentions, or in task ``relations`` of the concepts that the question names, from 1.
        malformed: Whether some of the answer could not be read.
    """

    mentions: tuple[Mention, ...] = ()
    relations: tuple[tuple[str, int, int], ...] = ()
    malformed: bool = False


class Template(ABC):
    """Base of all templates; a subclass is one row of ``TEMPLATES``."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"concepts", "relations", "joint"})
    """What it can write."""

    @abstractmethod
    def describe_format(self, task: Task) -> str:
        """How to answer, in words."""

    @abstractmethod
    def render(self, answer: Answer, source: Source) -> str:
        """An answer as text; mentions have stretches then."""

    @abstractmethod
    def parse(self, text: str, source: Source) -> Answer:
        """What a text says; never raises, whatever a model wrote."""

    @abstractmethod
    def iter_edges(self, node: Node, source: Source) -> Iterable[Edge]:
        """What may be written at a node of the answer's grammar; the first node is None, the last :data:`END`."""


def iter_copy_edges(
    source: Source, at: int, then: Iterable[Edge], node: Node, *, escape: bool = False
) -> Iterator[Edge]:
    """Edges of a mention that is being copied: one character more, or, after a unit, what follows it.

    Args:
        source: What is copied from.
        at: Place in its text.
        then: Edges after the mention.
        node: What the nodes of the copy begin with; their second part is a place.
        escape: Whether the mention stands in a JSON string.
    """
    if at in source.unit_ends:
        yield from then
    if at < len(source.text):
        yield _written(source.text[at], escape=escape), (node, at + 1)


def iter_copy_starts(source: Source, node: Node, *, escape: bool = False) -> Iterator[Edge]:
    """Edges that begin to copy a mention; see :func:`iter_copy_edges`."""
    for start, _ in source.units:
        yield _written(source.text[start], escape=escape), (node, start + 1)


def _written(character: str, *, escape: bool) -> str:
    return json.dumps(character, ensure_ascii=False)[1:-1] if escape else character


def iter_relation_edges(
    node: Node, first: str, between: str, last: str, source: Source, numbers: int
) -> Iterator[Edge]:
    """Edges of one relation, from node to ``(node, "after")``: type, head and tail by their numbers.

    Args:
        node: Where the relation begins, ``(node, "head", type)`` and so on within it.
        first: What stands between the type and the head.
        between: What stands between head and tail.
        last: What follows the tail.
        source: Its relation types are allowed.
        numbers: How many concepts there are to refer to.
    """
    base, *inner = node if isinstance(node, tuple) and node[1:2] in (("head",), ("tail",)) else (node,)
    if not inner:
        yield from ((f"{type_}{first}", (base, "head")) for type_ in source.relations)
    elif inner[0] == "head":
        yield from ((f"{number}{between}", (base, "tail")) for number in range(1, numbers + 1))
    else:
        yield from ((f"{number}{last}", (base, "after")) for number in range(1, numbers + 1))
