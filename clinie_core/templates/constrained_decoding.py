"""Constrained decoding: at each step, only tokens that the template's grammar allows.

A grammar is a graph of text edges (:meth:`Template.iter_edges`). It is followed byte by byte, because byte-level
tokens may split characters. The allowed tokens are found by a parallel walk over the graph and a trie of the
vocabulary, and are cached for each state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
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
"""Points that an answer may have reached: the remaining bytes of an edge, and the node after them."""
MAX_CACHED_STEPS = 20_000


@dataclass(slots=True)
class TrieNode:
    """Node of the vocabulary's trie: children by byte, and ids of the tokens that end here."""

    children: dict[int, TrieNode] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)


class Vocabulary:
    """Trie of the bytes of a tokenizer's tokens.

    Args:
        tokenizer: A byte-level or SentencePiece tokenizer, whose tokens are exact bytes of text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.root = TrieNode()
        self.token_bytes = list_token_bytes(tokenizer)
        special = set(tokenizer.all_special_ids)
        for token, encoded in enumerate(self.token_bytes):
            if token in special or not encoded:
                continue
            node = self.root
            for byte in encoded:
                node = node.children.setdefault(byte, TrieNode())
            node.tokens.append(token)


def list_token_bytes(tokenizer: PreTrainedTokenizerFast) -> list[bytes]:
    """Return the bytes that each token adds to a text, by token id.

    Byte-level tokenizers represent bytes by characters. SentencePiece tokenizers represent a blank by U+2581 and
    a single byte by ``<0x41>``.
    """
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    byte_of = _list_byte_characters()
    byte_level = any(piece is not None and "\u0120" in piece for piece in pieces)

    def encode(piece: str | None) -> bytes:
        if piece is None:
            return b""
        if byte_level:
            return bytes(byte_of[c] for c in piece) if all(c in byte_of for c in piece) else b""
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes([int(piece[3:5], 16)])
        return piece.replace("\u2581", " ").encode()

    return [encode(piece) for piece in pieces]


@lru_cache(maxsize=1)
def _list_byte_characters() -> dict[str, int]:
    """Return the bytes by the characters that represent them in byte-level tokenizers (Radford et al. 2019, GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    names = {chr(byte): byte for byte in printable}
    rest = [byte for byte in range(256) if byte not in set(printable)]
    return names | {chr(0x100 + i): byte for i, byte in enumerate(rest)}


class Grammar:
    """Possible answers for one input.

    Args:
        vocabulary: The tokenizer's vocabulary.
        edges: Function from a node to its edges; the start node is None, and an edge's text may be empty.
        end: The node that ends the answer.
    """

    def __init__(self, vocabulary: Vocabulary, edges: Edges, end: Node) -> None:
        self.vocabulary = vocabulary
        self._edges = edges
        self._end = end
        self._next_tokens: dict[State, tuple[list[int], bool]] = {}
        self._steps: dict[tuple[State, int], State] = {}
        self.start = self._expand([(b"", None)])

    def _expand(self, items: Iterable[tuple[bytes, Node]]) -> State:
        """Follow the edges of each node that has no remaining bytes."""
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

    def begin(self) -> GrammarConstraint:
        """Return the constraint of an empty answer."""
        return GrammarConstraint(self, self.start)

    def step(self, state: State, byte: int) -> State:
        """Return the state after one more byte; it is empty if the grammar does not allow the byte."""
        key = (state, byte)
        if key not in self._steps:
            items = [(rest[1:], node) for rest, node in state if rest and rest[0] == byte]
            if len(self._steps) >= MAX_CACHED_STEPS:
                self._steps.clear()
            self._steps[key] = self._expand(items) if items else frozenset()
        return self._steps[key]

    def advance(self, state: State, text: bytes) -> State:
        """Return the state after several bytes."""
        for byte in text:
            state = self.step(state, byte)
        return state

    def next_tokens(self, state: State) -> tuple[list[int], bool]:
        """Return the ids of the tokens that may follow, and whether the answer may end."""
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
        encoded = self.grammar.vocabulary.token_bytes[token]
        return GrammarConstraint(self.grammar, self.grammar.advance(self.state, encoded))


class ConstraintProcessor(LogitsProcessor):  # type: ignore[misc]  # mypy skips the types of transformers
    """Logits processor that sets the scores of excluded tokens to minus infinity.

    Args:
        constraints: One for each row of the batch.
        prompt_tokens: Length of the padded prompts in tokens.
        eos_id: Id of the token that ends an answer.
    """

    def __init__(self, constraints: Sequence[DecodingConstraint], prompt_tokens: int, eos_id: int) -> None:
        self._constraints = list(constraints)
        self._prompt = prompt_tokens
        self._eos = eos_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores ``[batch, vocabulary]`` with minus infinity for excluded tokens."""
        excluded = np.ones(scores.shape, dtype=np.bool_)  # on the CPU: each change on a GPU would wait for it
        if input_ids.shape[1] > self._prompt:
            for row, token in enumerate(input_ids[:, -1].tolist()):
                self._constraints[row] = self._constraints[row].advance(token)
        for row, constraint in enumerate(self._constraints):
            tokens, may_end = constraint.next_tokens()
            excluded[row, tokens] = False
            if may_end or not tokens:
                excluded[row, self._eos] = False
        return scores.masked_fill(torch.from_numpy(excluded).to(scores.device), float("-inf"))
