"""Constrained decoding: at each step only those tokens that keep the answer within its template's grammar.

A grammar is a graph of text edges (:meth:`Template.iter_edges`), followed byte by byte, since byte-level
tokens cut characters apart. Which tokens may come next is found by walking a trie of the vocabulary
along the graph; states that come again are remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import LogitsProcessor

from clinie_core.encoding.examples import DecodingConstraint
from clinie_core.templates.template import Edge, Node

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["ConstraintProcessor", "Grammar", "GrammarConstraint", "Vocabulary", "list_token_bytes"]

Edges = Callable[[Node], Iterable[Edge]]
State = frozenset[tuple[bytes, Node]]
"""Where an answer can be: bytes of an edge that are still to be written, and the node after them."""
KEPT_STATES = 20_000


@dataclass(slots=True)
class TrieNode:
    """A node of the vocabulary's trie: the next bytes, and the tokens that end here."""

    children: dict[int, TrieNode] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)


class Vocabulary:
    """The bytes of each token of a tokenizer, as a trie.

    Args:
        tokenizer: A byte-level or SentencePiece tokenizer, whose tokens are exact bytes of text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.root = TrieNode()
        self.token_bytes = list_token_bytes(tokenizer)
        special = set(tokenizer.all_special_ids)
        for number, written in enumerate(self.token_bytes):
            if number in special or not written:
                continue
            node = self.root
            for byte in written:
                node = node.children.setdefault(byte, TrieNode())
            node.tokens.append(number)


def list_token_bytes(tokenizer: PreTrainedTokenizerFast) -> list[bytes]:
    """What each token writes within a text, as bytes.

    Byte-level tokenizers name bytes by characters of their own; SentencePiece ones write a blank as U+2581
    and bytes as ``<0x41>``.
    """
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    byte_of = _byte_names()
    byte_level = any(piece is not None and "\u0120" in piece for piece in pieces)

    def written(piece: str | None) -> bytes:
        if piece is None:
            return b""
        if byte_level:
            return bytes(byte_of[c] for c in piece) if all(c in byte_of for c in piece) else b""
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes([int(piece[3:5], 16)])
        return piece.replace("\u2581", " ").encode()

    return [written(piece) for piece in pieces]


@lru_cache(maxsize=1)
def _byte_names() -> dict[str, int]:
    """The characters that stand for bytes in byte-level tokenizers (Radford et al. 2019, GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    names = {chr(byte): byte for byte in printable}
    rest = [byte for byte in range(256) if byte not in set(printable)]
    return names | {chr(0x100 + i): byte for i, byte in enumerate(rest)}


class Grammar:
    """The answers that are possible for one input.

    Args:
        vocabulary: The tokenizer's.
        edges: What may be written at a node, the first being None; text may be empty.
        end: The node after which nothing follows.
    """

    def __init__(self, vocabulary: Vocabulary, edges: Edges, end: Node) -> None:
        self.vocabulary = vocabulary
        self._edges = edges
        self._end = end
        self._next_tokens: dict[State, tuple[list[int], bool]] = {}
        self._steps: dict[tuple[State, int], State] = {}
        self.start = self._expanded([(b"", None)])

    def _expanded(self, items: Iterable[tuple[bytes, Node]]) -> State:
        """Follow edges wherever nothing of the last one is left to write."""
        out: set[tuple[bytes, Node]] = set()
        waiting = list(items)
        seen: set[Node] = set()
        while waiting:
            rest, node = waiting.pop()
            if rest or node == self._end:
                out.add((rest, node))
            elif node not in seen:
                seen.add(node)
                waiting += [(text.encode(), then) for text, then in self._edges(node)]
        return frozenset(out)

    def constraint(self) -> GrammarConstraint:
        """Return the constraint of an empty answer."""
        return GrammarConstraint(self, self.start)

    def step(self, state: State, byte: int) -> State:
        """The state after one more byte; empty where it does not fit."""
        key = (state, byte)
        if key not in self._steps:
            items = [(rest[1:], node) for rest, node in state if rest and rest[0] == byte]
            if len(self._steps) >= KEPT_STATES:
                self._steps.clear()
            self._steps[key] = self._expanded(items) if items else frozenset()
        return self._steps[key]

    def advance(self, state: State, written: bytes) -> State:
        """The state after several bytes."""
        for byte in written:
            state = self.step(state, byte)
        return state

    def next_tokens(self, state: State) -> tuple[list[int], bool]:
        """Tokens that may come next, and whether the answer may end."""
        if state not in self._next_tokens:
            tokens: list[int] = []
            waiting = [(state, self.vocabulary.root)]
            while waiting:
                at, trie = waiting.pop()
                tokens += trie.tokens
                firsts = {rest[0] for rest, _ in at if rest}
                waiting += [(self.step(at, byte), trie.children[byte]) for byte in firsts if byte in trie.children]
            self._next_tokens[state] = (tokens, (b"", self._end) in state)
        return self._next_tokens[state]


@dataclass(frozen=True)
class GrammarConstraint:
    """A grammar at one point of an answer; a :class:`~clinie_core.encoding.examples.DecodingConstraint`."""

    grammar: Grammar
    state: State

    def next_tokens(self) -> tuple[Sequence[int], bool]:
        """Return the ids of the tokens that may follow, and whether the answer may end here."""
        return self.grammar.next_tokens(self.state)

    def advance(self, token: int) -> GrammarConstraint:
        """Return the constraint after one more token."""
        written = self.grammar.vocabulary.token_bytes[token]
        return GrammarConstraint(self.grammar, self.grammar.advance(self.state, written))


class ConstraintProcessor(LogitsProcessor):  # type: ignore[misc]  # transformers has no types that mypy follows
    """Set the scores of the tokens that a row's constraint excludes to minus infinity.

    Args:
        constraints: One for each row of the batch.
        prompt_tokens: Length of the padded prompts.
        eos_id: The token that ends an answer.
    """

    def __init__(self, constraints: Sequence[DecodingConstraint], prompt_tokens: int, eos_id: int) -> None:
        self._constraints = list(constraints)
        self._prompt = prompt_tokens
        self._eos = eos_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores ``[batch, vocabulary]`` with minus infinity for what is not allowed."""
        mask = torch.full_like(scores, float("-inf"))
        if input_ids.shape[1] > self._prompt:
            for row, token in enumerate(input_ids[:, -1].tolist()):
                self._constraints[row] = self._constraints[row].advance(token)
        for row, constraint in enumerate(self._constraints):
            tokens, may_end = constraint.next_tokens()
            mask[row, tokens] = 0.0
            if may_end or not tokens:
                mask[row, self._eos] = 0.0
        return scores + mask
