"""Templates: rendered answers are parsed and grounded again, and grammars contain exactly the valid answers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinie_core.backbones.tokenizer import load_tokenizer
from clinie_core.config import BackboneSource, Task
from clinie_core.templates import TEMPLATES
from clinie_core.templates.constrained_decoding import Grammar, Vocabulary
from clinie_core.templates.grounding import ground
from clinie_core.templates.template import END, Answer, Mention, Source

TYPES, RELATIONS = ("drug", "problem list"), ("treats", "made worse by")
ROWS = [(name, task) for name in TEMPLATES for task in sorted(TEMPLATES.load(name).tasks)]
words = st.sampled_from(
    ["fever", "5mg", 'so-called "cold"', "b.i.d.", "naïve", "😀", "a\\b", "<drug>", "none", "->", "1.", "O"]
)
BROKEN = ["[", "{}", '[{"type": "drug"}]', "drug:", "treats: 9 -> 9", "B-drug", "<drug>", "</drug>"]
texts = st.lists(words, min_size=1, max_size=8).map(" ".join)


@st.composite
def answers(draw: st.DrawFn, task: Task) -> tuple[Answer, Source]:
    """Draw a text with flat mentions of distinct spans in order, and relations between them."""
    text = draw(texts)
    source = Source(text, task, TYPES, RELATIONS)
    units = source.units
    cuts = draw(st.lists(st.integers(0, len(units)), unique=True, max_size=6).map(sorted))
    spans = [(units[a][0], units[b - 1][1]) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    mentions = tuple(Mention(draw(st.sampled_from(TYPES)), text[a:b], (a, b)) for a, b in spans)
    if task == "relations":
        source = Source(text, task, TYPES, RELATIONS, concepts=len(mentions))
    numbers = st.integers(1, max(1, len(mentions)))
    links = st.tuples(st.sampled_from(RELATIONS), numbers, numbers)
    relations = tuple(draw(st.lists(links, max_size=3))) if mentions and task != "concepts" else ()
    return Answer(mentions if task != "relations" else (), relations), source


@pytest.mark.parametrize(("name", "task"), ROWS)
@settings(max_examples=80)
@given(data=st.data())
def test_a_rendered_answer_is_parsed_and_grounded(name: str, task: Task, data: st.DataObject) -> None:
    template = TEMPLATES.load(name)()
    answer, source = data.draw(answers(task))
    again = template.parse(template.render(answer, source), source)
    if name == "tags" and any(f"<{t}>" in source.text for t in TYPES):
        return  # tags that are part of the text are indistinguishable
    assert not again.malformed
    assert [(m.type, m.text) for m in again.mentions] == [(m.type, m.text) for m in answer.mentions]
    assert again.relations == answer.relations
    found = ground(again.mentions, source)
    texts_found = [source.text[slice(*place)].casefold() if place else None for place in found]
    assert texts_found == [m.text.casefold() for m in again.mentions]


@pytest.mark.parametrize(("name", "task"), ROWS)
@settings(max_examples=150)
@given(
    text=st.text(max_size=60) | st.sampled_from(["[", "{}", '[{"type": "drug"}]', "drug:", "treats: 9 -> 9", "B-drug"])
)
def test_parsing_accepts_any_text(name: str, task: Task, text: str) -> None:
    source = Source("no fever on 5mg", task, TYPES, RELATIONS, concepts=1)
    answer = TEMPLATES.load(name)().parse(text, source)
    assert all(m.type in TYPES for m in answer.mentions)
    assert all(type_ in RELATIONS for type_, _, _ in answer.relations)
    ground(answer.mentions, source)


BYTES = Vocabulary(load_tokenizer(BackboneSource(name="tiny", scratch={"model_type": "llama"})))


def make_grammar(name: str, source: Source) -> Grammar:
    template = TEMPLATES.load(name)()
    return Grammar(BYTES, lambda node: template.iter_edges(node, source), END)


@pytest.mark.parametrize(("name", "task"), ROWS)
@settings(max_examples=60)
@given(data=st.data())
def test_the_grammar_contains_every_answer(name: str, task: Task, data: st.DataObject) -> None:
    answer, source = data.draw(answers(task))
    grammar = make_grammar(name, source)
    state = grammar.advance(grammar.start, TEMPLATES.load(name)().render(answer, source).encode())
    assert grammar.next_tokens(state)[1]


@pytest.mark.parametrize(("name", "task"), ROWS)
@settings(max_examples=40)
@given(data=st.data(), text=texts)
def test_every_text_of_the_grammar_is_well_formed_and_grounded(
    name: str, task: Task, data: st.DataObject, text: str
) -> None:
    source = Source(text, task, TYPES, RELATIONS, concepts=2 if task == "relations" else 0)
    grammar = make_grammar(name, source)
    state, encoded = grammar.start, b""
    for _ in range(400):
        tokens, may_end = grammar.next_tokens(state)
        assert tokens or may_end
        if may_end and (not tokens or data.draw(st.booleans())):
            break
        token = BYTES.token_bytes[data.draw(st.sampled_from(sorted(tokens)))]
        state, encoded = grammar.advance(state, token), encoded + token
    else:
        return  # no complete answer within the limit
    answer = TEMPLATES.load(name)().parse(encoded.decode(), source)
    if name == "tags" and any(f"<{t}>" in text for t in TYPES):
        return
    assert not answer.malformed
    assert None not in ground({(m.type, m.text, m.span): m for m in answer.mentions}.values(), source)


def test_mentions_are_grounded_in_the_order_of_the_text() -> None:
    source = Source("fever, then no Fever and feverish; fever", "concepts", ("problem",))
    found = ground([Mention("problem", "fever"), Mention("problem", "Fever"), Mention("problem", "fever")], source)
    assert found == [(0, 5), (15, 20), (35, 40)]
    assert ground([Mention("problem", "cough"), Mention("problem", "FEVER")], source) == [None, (0, 5)]
