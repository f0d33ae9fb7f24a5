"""The counts of ``clinie data check``, which segments only the text around concepts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clinie_core.data.document import Concept, Document, Span
from clinie_core.encoding.words import segment_words
from clinie_core.formulations.representable import count_representable
from search.cli.corpus_limits import CorpusLimits

PIECES = ["fever", "10mg", "IL-2", " ", "\n", "\t", ".", "e\u0301", "\u0301", "\u00a0", "\x1f", "\u767a", "-"]
texts = st.lists(st.sampled_from(PIECES), min_size=1, max_size=30).map("".join)


@given(texts, st.data())
def test_counts_equal_those_of_the_whole_text(text: str, data: st.DataObject) -> None:
    offsets = st.integers(0, len(text) - 1).flatmap(lambda a: st.tuples(st.just(a), st.integers(a + 1, len(text))))
    spans = data.draw(st.lists(st.tuples(offsets, st.sampled_from("AB")), min_size=1, max_size=6))
    concepts = tuple(Concept(f"T{i}", type_, (Span(*span),)) for i, (span, type_) in enumerate(spans))
    document = Document("n", text, concepts)
    limits = CorpusLimits()
    limits.add("train", document)
    whole = count_representable([document], [segment_words(text)], flat=True).as_json()
    assert limits.as_json("train") == {key: whole[key] for key in ("representable", "by_type", "lost")}
