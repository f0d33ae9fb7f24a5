"""Segmentation of text into words, the units that encoder models label.

The segmentation is the same for all tokenizers. A tokenizer's own words are not suitable: with Metaspace
tokenizers (XLM-R, DeBERTa v3, T5, Llama) such a word extends from one space to the next and includes
punctuation, so that most annotated concepts do not end where a word ends.
"""

from __future__ import annotations

from collections.abc import Sequence

import regex

from clinie_core.data.document import Span

__all__ = ["align_words", "segment_words"]

# Scripts that do not separate words by spaces: each character is a unit.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_WORD = regex.compile(
    rf"""
    {_UNSPACED}\p{{M}}*                                # 発
  | \p{{L}} [[\p{{L}}\p{{M}}\p{{N}}]--{_UNSPACED}]*    # fever, CD4, B12
  | \p{{N}} [\p{{N}}\p{{M}}]*                          # the 10 of 10mg
  | [^\p{{White_Space}}] \p{{M}}*                      # each punctuation mark and symbol
    """,
    regex.VERBOSE | regex.VERSION1,
)


def segment_words(text: str) -> list[Span]:
    """Return the spans of all words of a text, in order.

    A word is a sequence of letters and following digits, a sequence of digits, or one character of
    punctuation. "10mg" is therefore two words and "IL-2" three. Combining marks belong to the preceding
    character. In scripts without spaces each character is a word.
    """
    return [Span(*match.span()) for match in _WORD.finditer(text)]


def align_words(words: Sequence[Span], tokens: Sequence[Span | None]) -> tuple[list[Span], list[int]]:
    """Find the token that represents each word.

    A word is represented by the first token that starts in it. A word inside a longer token, such as the
    bracket of the token ").", is represented by that token, which then represents several words.

    Args:
        words: Spans of the words, in order.
        tokens: Span of each token without white space, in order; None for tokens without text.

    Returns:
        The words that have a token, and for each the index of its token. The indices do not decrease.
        Words without a token are those that the tokenizer's normalization removes, such as control characters.
    """
    visible = [(index, token) for index, token in enumerate(tokens) if token is not None]
    aligned: list[Span] = []
    indices: list[int] = []
    at = 0
    for word in words:
        while at < len(visible) and visible[at][1].end <= word.start:
            at += 1
        if at == len(visible):
            break
        chosen = at
        if visible[at][1].start >= word.end:
            continue
        if visible[at][1].start < word.start and at + 1 < len(visible) and visible[at + 1][1].start < word.end:
            chosen = at + 1
        aligned.append(word)
        indices.append(visible[chosen][0])
    return aligned, indices
