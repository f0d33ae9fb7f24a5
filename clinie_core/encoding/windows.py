"""Conversion of text to overlapping token windows, with the character offsets of each labelled unit.

A document is tokenized once. Its *units* are the labelled elements: words (see :mod:`clinie_core.encoding.words`)
or single tokens. A long document is divided into overlapping windows. Each unit
is *owned* by the window in which it is farthest from an edge. It is trained and predicted only there and is
context in other windows. A document's units therefore have one label sequence, and a concept can span two
windows.

Offsets are code points of the document's original text, independent of the tokenizer's normalization.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from clinie_core.data.document import Span
from clinie_core.encoding.words import align_words, segment_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Frame", "TokenizedDocument", "Unit", "Window", "encode_text", "tokenize_documents"]

Unit = Literal["word", "token"]
BATCH_TEXTS = 256


@dataclass(frozen=True, slots=True)
class Frame:
    """Tokens that a model expects before and after the tokens of a text.

    Args:
        prefix: Special tokens, and the tokens of a prompt or question.
        suffix: Special tokens.
        second_segment: Index of the first token of the second segment; 0 for one segment.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    second_segment: int = 0

    @classmethod
    def for_text(cls, tokenizer: PreTrainedTokenizerFast, prompt: str = "") -> Frame:
        """Build the frame of a single text, or of a text that follows a prompt as the second of a pair."""
        if prompt:
            return cls.for_pair(tokenizer, encode_text(tokenizer, prompt))
        before, after = _split_around(encode_text(tokenizer, "x"), tokenizer("x", verbose=False)["input_ids"])
        return cls(tuple(before), tuple(after))

    @classmethod
    def for_pair(cls, tokenizer: PreTrainedTokenizerFast, first: Sequence[int]) -> Frame:
        """Build the frame of the second text of a pair.

        Args:
            tokenizer: The model's tokenizer.
            first: Token ids of the first text, without special tokens.
        """
        # A placeholder text reveals the special tokens around and between the two texts.
        bare = encode_text(tokenizer, "x")
        before, rest = _split_around(bare, tokenizer("x", "x", verbose=False)["input_ids"])
        between, after = _split_around(bare, rest)
        opening = (*before, *first, *between)
        return cls(opening, tuple(after), len(opening))

    @property
    def size(self) -> int:
        """Number of tokens."""
        return len(self.prefix) + len(self.suffix)

    def wrap(self, body: Sequence[int]) -> tuple[int, ...]:
        """Return the model input for the tokens of a text."""
        return (*self.prefix, *body, *self.suffix)


@dataclass(frozen=True, slots=True)
class Window:
    """A section of a document as model input.

    Args:
        token_ids: Token ids without special tokens.
        positions: For each unit the index into ``token_ids`` of the token that represents it.
        first_unit: Index of the first unit in the document.
        owned_units: Indices in the document of the first owned unit, and one past the last.
    """

    token_ids: tuple[int, ...]
    positions: tuple[int, ...]
    first_unit: int
    owned_units: tuple[int, int]

    @property
    def owned_positions(self) -> tuple[int, ...]:
        """Index into ``token_ids`` of the token that represents each owned unit."""
        begin, stop = self.owned_units
        return self.positions[begin - self.first_unit : stop - self.first_unit]


@dataclass(frozen=True, slots=True)
class TokenizedDocument:
    """The spans of a document's units, and its windows."""

    units: tuple[Span, ...]
    windows: tuple[Window, ...]


def _trim_whitespace(text: str, start: int, end: int) -> Span | None:
    """Remove white space from both ends; return None if nothing remains."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return Span(start, end) if start < end else None


def _find_units(text: str, offsets: Sequence[tuple[int, int]], unit: Unit) -> tuple[list[Span], list[int]]:
    """Return the span of each unit and the index of the token that represents it."""
    tokens = [_trim_whitespace(text, start, end) for start, end in offsets]
    if unit == "word":
        return align_words(segment_words(text), tokens)
    spans: list[Span] = []
    first: list[int] = []
    for index, token in enumerate(tokens):
        if token is None:
            continue
        # Byte-level tokenizers assign the span of one character to several tokens: these form one unit.
        if spans and token.start < spans[-1].end:
            spans[-1] = Span(spans[-1].start, max(spans[-1].end, token.end))
        else:
            spans.append(token)
            first.append(index)
    return spans, first


def _divide_units(first: Sequence[int], tokens: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Divide units into overlapping ranges of balanced length, at most ``size`` tokens or a single unit."""
    # Adjacent units may share a token; a unit ends after its own token in any case.
    ends = [max(own + 1, following) for own, following in zip(first, [*first[1:], tokens], strict=True)]
    overlap = min(overlap, size // 2)
    count = max(1, -(-(tokens - overlap) // max(1, size - overlap)))
    balanced = min(size, -(-(tokens + (count - 1) * overlap) // count) + size // 16)
    ranges: list[tuple[int, int]] = []
    begin = 0
    while True:
        stop = begin + 1
        while stop < len(first) and ends[stop] - first[begin] <= balanced:
            stop += 1
        ranges.append((begin, stop))
        if stop == len(first):
            return ranges
        next_begin = stop
        while next_begin > begin + 1 and first[stop] - first[next_begin - 1] <= overlap:
            next_begin -= 1
        begin = next_begin


def tokenize_documents(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, *, size: int, overlap: int, unit: Unit = "word"
) -> Iterator[TokenizedDocument]:
    """Tokenize texts into units and windows, in batches that a fast tokenizer processes on all cores.

    Args:
        texts: The documents' texts.
        tokenizer: A fast tokenizer, since slow ones do not provide offsets.
        size: Largest number of tokens in a window, without its frame.
        overlap: Number of tokens that adjacent windows share, at most half a window.
        unit: The labelled element.

    Yields:
        For each text its units in order, and windows that own each unit exactly once. A unit longer
        than a window is truncated to its first tokens.
    """
    for batch, encoding in _encode_batches(texts, tokenizer):
        for number, text in enumerate(batch):
            ids: list[int] = encoding["input_ids"][number]
            units, first = _find_units(text, encoding["offset_mapping"][number], unit)
            yield TokenizedDocument(tuple(units), tuple(_build_windows(ids, first, size, overlap)))


def _encode_batches(texts: Iterable[str], tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[list[str], Any]]:
    """Yield batches of texts with their encoding, while a thread encodes the next batch."""

    def encode(batch: list[str]) -> tuple[list[str], Any]:
        return batch, tokenizer(batch, add_special_tokens=False, return_offsets_mapping=True, verbose=False)

    remaining = iter(texts)
    batches = iter(lambda: list(itertools.islice(remaining, BATCH_TEXTS)), [])
    batch, following = next(batches, None), next(batches, None)
    if following is None:  # to start a thread takes longer than to encode a short text
        if batch is not None:
            yield encode(batch)
        return
    assert batch is not None
    with ThreadPoolExecutor(1) as ahead:
        under_way = ahead.submit(encode, batch)
        while following is not None:
            done, under_way = under_way, ahead.submit(encode, following)
            following = next(batches, None)
            yield done.result()
        yield under_way.result()


def _build_windows(ids: Sequence[int], first: Sequence[int], size: int, overlap: int) -> Iterator[Window]:
    if not first:
        return
    ranges = _divide_units(first, len(ids), size, overlap)
    for number, (begin, stop) in enumerate(ranges):
        own_begin = 0 if number == 0 else (begin + ranges[number - 1][1] + 1) // 2
        own_stop = len(first) if number == len(ranges) - 1 else (ranges[number + 1][0] + stop + 1) // 2
        last_token = max(first[stop], first[stop - 1] + 1) if stop < len(first) else len(ids)
        body = tuple(ids[first[begin] : last_token][:size])
        positions = tuple(first[u] - first[begin] for u in range(begin, stop))
        yield Window(body, positions, begin, (own_begin, own_stop))


def encode_text(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Return the token ids of a text, without special tokens."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _split_around(part: Sequence[int], whole: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the elements before and after the first occurrence of a part; empty lists if there is none."""
    for before in range(len(whole) - len(part) + 1):
        if list(whole[before : before + len(part)]) == list(part):
            return list(whole[:before]), list(whole[before + len(part) :])
    return [], []
