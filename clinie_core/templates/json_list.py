"""Template of JSON: a list of mentions, a list of relations, or an object of both."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

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

__all__ = ["JsonList"]


class JsonList(Template):
    """Objects such as ``[{"type": "drug", "text": "aspirin"}]``; relations refer to mentions by 1-based index."""

    def describe_format(self, task: Task) -> str:
        """See :meth:`Template.describe_format`."""
        mentions = '[{"type": ..., "text": ...}, ...] in the order of the text'
        links = '[{"relation": ..., "head": number, "tail": number}, ...]'
        formats = {
            "concepts": mentions,
            "relations": links,
            "joint": f'{{"concepts": {mentions}, "relations": {links} with the places of concepts in their list}}',
        }[task]
        return f"Write JSON: {formats}."

    def render(self, answer: Answer, source: Source) -> str:
        """See :meth:`Template.render`."""
        mentions = [{"type": m.type, "text": m.text} for m in answer.mentions]
        relations = [{"relation": type_, "head": head, "tail": tail} for type_, head, tail in answer.relations]
        content: object = {
            "concepts": mentions,
            "relations": relations,
            "joint": {"concepts": mentions, "relations": relations},
        }[source.task]
        return json.dumps(content, ensure_ascii=False)

    def parse(self, text: str, source: Source) -> Answer:
        """See :meth:`Template.parse`; the complete items of a truncated list count."""
        parts = {"concepts": text, "relations": text}
        if source.task == "joint":
            head, middle, tail = text.partition('"relations"')
            parts = {"concepts": head, "relations": tail if middle else ""}
        mentions, relations = [], []
        for item in _iter_objects(parts["concepts"]) if source.task != "relations" else ():
            if item.get("type") in source.types and isinstance(item.get("text"), str):
                mentions.append(Mention(item["type"], item["text"]))
        for item in _iter_objects(parts["relations"]) if source.task != "concepts" else ():
            ends = item.get("head"), item.get("tail")
            if item.get("relation") in source.relations and all(type(end) is int for end in ends):
                relations.append((item["relation"], item["head"], item["tail"]))
        answer = Answer(tuple(mentions), tuple(relations))
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError):
            return Answer(answer.mentions, answer.relations, malformed=True)
        again = json.loads(self.render(answer, source))
        return Answer(answer.mentions, answer.relations, malformed=whole != again)

    def iter_edges(self, node: Node, source: Source) -> Iterable[Edge]:
        """See :meth:`Template.iter_edges`."""
        joint = source.task == "joint"
        if node is None:
            opening = '{"concepts": ' if joint else ""
            if source.task == "relations":
                yield "", ("links", source.concepts)
            else:
                yield f"{opening}[]", self._get_node_after_mentions(0, source)
                yield f"{opening}[", ("item", 0)
        elif isinstance(node, tuple) and node[0] == "item":
            count = node[1] + 1 if joint else 0
            for type_ in source.types:
                yield f'{{"type": {json.dumps(type_, ensure_ascii=False)}, "text": "', (("copy", count), None)
        elif isinstance(node, tuple) and isinstance(node[0], tuple) and node[0][0] == "copy":
            count, at = node[0][1], node[1]
            then: list[Edge] = [('"}, ', ("item", count)), ('"}]', self._get_node_after_mentions(count, source))]
            if at is None:
                yield from iter_copy_starts(source, node[0], escape=True)
            else:
                yield from iter_copy_edges(source, at, then, node[0], escape=True)
        elif isinstance(node, tuple) and node[0] == "between":
            yield ', "relations": ', ("links", node[1])
        elif isinstance(node, tuple) and node[0] == "links":
            yield "[]" + ("}" if joint else ""), END
            if node[1]:
                yield '[{"relation": "', ("link", node[1])
        elif isinstance(node, tuple):
            yield from self._iter_relation_edges(node, source)

    @staticmethod
    def _get_node_after_mentions(count: int, source: Source) -> Node:
        return ("between", count) if source.task == "joint" else END

    @staticmethod
    def _iter_relation_edges(node: tuple[Any, ...], source: Source) -> Iterator[Edge]:
        base = node[0] if isinstance(node[0], tuple) else node
        if node[1:] == ("after",):
            yield "]" + ("}" if source.task == "joint" else ""), END
            yield ', {"relation": "', base
        else:
            yield from iter_relation_edges(node, '", "head": ', ', "tail": ', "}", source, base[1])


def _iter_objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the flat objects of a text in order, and ignore everything between them."""
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            value, end = None, at + 1
        if isinstance(value, dict):
            nested = [item for part in value.values() if isinstance(part, list) for item in part]
            yield from (item for item in (nested or [value]) if isinstance(item, dict))
        at = text.find("{", end)
