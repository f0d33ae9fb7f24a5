"""Generation: a decoder is asked in words and writes the annotations, which are found again in the text.

A document is asked about in chunks of whole sentences. Every chunk's answer is grounded: a mention that
the text does not have counts as hallucinated and is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from clinie_core.config import Task
from clinie_core.data.document import Concept, Document, Relation, Span
from clinie_core.data.schema import Schema, get_corpus_name
from clinie_core.encoding.examples import DecodingConstraint, EncodedDocument, Example
from clinie_core.encoding.outputs import HeadOutput
from clinie_core.encoding.sentences import find_sentence_starts
from clinie_core.encoding.windows import encode_text
from clinie_core.errors import fail
from clinie_core.formulations.formulation import Formulation, InputContext, Prediction
from clinie_core.templates import TEMPLATES
from clinie_core.templates.grounding import ground
from clinie_core.templates.template import END, Answer, Mention, Source, Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from clinie_core.heads import TaskHead
    from clinie_core.templates.constrained_decoding import Vocabulary

__all__ = ["Generation"]

LEAST_CHUNK = 16
"""Tokens of text that must fit beside the instruction."""
BUDGET_FACTOR = 1.25
BUDGET_SPARE = 8
ASKED = {"concepts": "concepts", "relations": "relations between the concepts", "joint": "concepts and relations"}


@dataclass(frozen=True)
class Chunk:
    """A stretch of a document that is asked about at once, with the concepts that the question names."""

    start: int
    source: Source
    given: tuple[Concept, ...]


class Generation(Formulation[tuple[Chunk, ...]]):
    """Write the annotations as text.

    Args:
        template: How an answer is written.
        instruction: Whether the question names the types, or only the task.
        constrained: Whether decoding is held to the template's grammar and to copies of the text.
        questions: In ``joint``, whether one answer holds concepts and relations, or each has an instruction of
            its own, the second one naming the concepts that were found.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "template": {"choose": ["json", "lines", "tags"]},
        "instruction": {"choose": ["types", "short"]},
    }
    architectures: ClassVar[frozenset[Any]] = frozenset({"decoder"})
    tasks: ClassVar[frozenset[Task]] = frozenset({"concepts", "relations", "joint"})
    type_conditioned: ClassVar[bool] = True
    generates: ClassVar[bool] = True

    template: Literal["json", "lines", "tags", "bio"] = "lines"
    instruction: Literal["types", "short"] = "types"
    constrained: bool = False
    questions: Literal["together", "apart"] = "together"

    def find_conflict(self, task: Task) -> str | None:
        """Some templates write concepts alone."""
        asked = set(self.split_task(task))
        if asked <= self._template.tasks:
            return None
        able = [name for name in TEMPLATES if asked <= TEMPLATES.load(name).tasks]
        return f"template {self.template} cannot write task {task}; allowed: {', '.join(able)}"

    def split_task(self, task: Task) -> tuple[Task, ...]:
        """Concepts and relations apart where each has its own instruction."""
        return ("concepts", "relations") if task == "joint" and self.questions == "apart" else (task,)

    @property
    def _template(self) -> Template:
        return TEMPLATES.load(self.template)()

    def encode(
        self, documents: Sequence[Document], context: InputContext, *, targets: bool
    ) -> tuple[EncodedDocument[tuple[Chunk, ...]], ...]:
        """One example a chunk: the question, and in training the answer after it."""
        tokenizer = context.tokenizer
        if tokenizer.eos_token_id is None:
            fail(
                "backbone", "the decoder's tokenizer has no end-of-sequence token", allowed="a tokenizer with eos_token"
            )
        words_of = _WordsOf(context.schema)
        overhead = max(
            len(self._prompt_ids(tokenizer, context, words, Source("", context.task, words.types), ()))
            for words in words_of.every()
        )
        room = context.window_tokens - overhead
        if room < LEAST_CHUNK:
            fail(
                "space.window_tokens",
                f"{context.window_tokens} tokens, of which the instruction takes {overhead}",
                allowed=f"at least {overhead + LEAST_CHUNK}",
                remedy="raise window_tokens, or set instruction: short",
            )
        offsets = tokenizer(
            [d.text for d in documents], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        encoded = []
        for number, document in enumerate(documents):
            tokens = [start for start, _ in offsets["offset_mapping"][number]]
            words = words_of(document)
            chunks = [
                self._chunk(document, start, end, context.task, words)
                for start, end in _chunks(document.text, tokens, room)
            ]
            examples = [self._example(document, chunk, context, words, targets=targets) for chunk in chunks]
            encoded.append(EncodedDocument(tuple(examples), tuple(chunks)))
        return tuple(encoded)

    @staticmethod
    def _chunk(document: Document, start: int, end: int, task: Task, words: _Words) -> Chunk:
        text = "".join(" " if c.isspace() else c for c in document.text[start:end])
        inside = sorted((c for c in document.concepts if start <= c.start and c.end <= end), key=lambda c: c.extent)
        given = tuple(inside) if task == "relations" else ()
        return Chunk(start, Source(text, task, words.types, words.relations, len(given)), given)

    def _prompt_ids(
        self,
        tokenizer: PreTrainedTokenizerFast,
        context: InputContext,
        words: _Words,
        source: Source,
        given: Sequence[str],
    ) -> list[int]:
        """The question as tokens, as a message of a chat where the tokenizer has a template for one."""
        asked = f"Find the {ASKED[context.task]} in the text."
        if self.instruction == "types":
            asked += f" Concepts: {', '.join(words.types)}." if context.task != "relations" else ""
            asked += f" Relations: {', '.join(words.relations)}." if context.task != "concepts" else ""
            asked += f" {self._template.describe_format(context.task)}"
        parts = [asked, f"Text: {source.text}"]
        if context.task == "relations":
            parts.append("\n".join(["Concepts:", *(f"{i}. {mention}" for i, mention in enumerate(given, start=1))]))
        question = "\n\n".join(parts)
        if tokenizer.chat_template:
            message = [{"role": "user", "content": question}]
            return encode_text(
                tokenizer, tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
            )
        opening = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
        return [*opening, *encode_text(tokenizer, f"{question}\n\nAnswer:\n")]

    def _example(
        self, document: Document, chunk: Chunk, context: InputContext, words: _Words, *, targets: bool
    ) -> Example:
        tokenizer, source = context.tokenizer, chunk.source
        given = [f"{words.of_type[c.type]}: {_stretch_text(c, chunk)}" for c in chunk.given if c.type in words.of_type]
        prompt = self._prompt_ids(tokenizer, context, words, source, given)
        if not targets:
            constraint = _constraint(self.template, source, tokenizer) if self.constrained else None
            return Example(tuple(prompt), (), constraint=constraint)
        written = self._template.render(_answer(document, chunk, words), source)
        answer = [*encode_text(tokenizer, written), int(tokenizer.eos_token_id)]
        positions = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        return Example((*prompt, *answer[:-1]), tuple(positions), tuple(answer))

    def build_head(self, hidden_size: int, schema: Schema) -> TaskHead:
        """The backbone's own language-model head, with a budget of tokens."""
        from clinie_core.heads import LanguageHead

        return LanguageHead()

    def fit_head(self, head: TaskHead, examples: Sequence[Example]) -> None:
        """An answer may be somewhat longer than the longest in training."""
        from clinie_core.heads import LanguageHead

        assert isinstance(head, LanguageHead)
        longest = max(len(example.targets) for example in examples)
        head.set_budget(int(BUDGET_FACTOR * longest) + BUDGET_SPARE, examples[0].targets[-1])

    def decode(self, prediction: Prediction[tuple[Chunk, ...]]) -> Document:
        """What the answers say, at the places where the text says it."""
        document, context = prediction.document, prediction.context
        words = _WordsOf(context.schema)(document)
        concepts: list[Concept] = list(document.concepts) if context.task == "relations" else []
        relations: list[Relation] = []
        for chunk, output in zip(prediction.encoded.state, prediction.outputs, strict=True):
            answer = self._answered(output, chunk, context)
            numbered: list[Concept | None] = list(chunk.given)
            if context.task != "relations":
                numbered = []
                for mention, stretch in zip(answer.mentions, ground(answer.mentions, chunk.source), strict=True):
                    numbered.append(_placed(words.type_of[mention.type], stretch, chunk, len(concepts) + 1))
                    concepts += [numbered[-1]] if numbered[-1] is not None else []
            for type_, head_number, tail_number in answer.relations:
                ends = [numbered[n - 1] if 0 < n <= len(numbered) else None for n in (head_number, tail_number)]
                if ends[0] is not None and ends[1] is not None and ends[0] != ends[1]:
                    name = f"R{len(relations) + 1}"
                    relations.append(Relation(name, words.relation_of[type_], ends[0].id, ends[1].id))
        return replace(document, concepts=tuple(concepts), relations=tuple(relations))

    def _answered(self, output: HeadOutput, chunk: Chunk, context: InputContext) -> Answer:
        text = context.tokenizer.decode(output, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return self._template.parse(text, chunk.source)

    def count_answer_faults(self, prediction: Prediction[tuple[Chunk, ...]]) -> Counter[str]:
        """How many answers were malformed, and how many mentions are not in the text."""
        counts: Counter[str] = Counter()
        for chunk, output in zip(prediction.encoded.state, prediction.outputs, strict=True):
            answer = self._answered(output, chunk, prediction.context)
            counts["answers"] += 1
            counts["malformed"] += answer.malformed
            counts["mentions"] += len(answer.mentions)
            counts["hallucinated"] += ground(answer.mentions, chunk.source).count(None)
        return counts


class _Words:
    """Types as words, and back; types whose words are the same keep their names."""

    def __init__(self, schema: Schema) -> None:
        self.of_type = _distinct(schema.concept_types, schema)
        self.of_relation = _distinct(schema.relation_types, schema)
        self.types, self.relations = tuple(self.of_type.values()), tuple(self.of_relation.values())
        self.type_of = {words: type_ for type_, words in self.of_type.items()}
        self.relation_of = {words: type_ for type_, words in self.of_relation.items()}


class _WordsOf:
    """The words of each document's corpus."""

    def __init__(self, schema: Schema) -> None:
        self._whole = _Words(schema)
        self._of_corpus = {name: _Words(part) for name, part in schema.corpora.items()}

    def __call__(self, document: Document) -> _Words:
        return self._of_corpus.get(get_corpus_name(document) or "", self._whole)

    def every(self) -> list[_Words]:
        """Of every corpus; of the whole where there is one only."""
        return list(self._of_corpus.values()) or [self._whole]


def _distinct(types: Sequence[str], schema: Schema) -> dict[str, str]:
    words = {type_: schema.describe_type(type_) for type_ in types}
    counts = Counter(words.values())
    return {type_: said if counts[said] == 1 else type_ for type_, said in words.items()}


def _chunks(text: str, token_starts: Sequence[int], room: int) -> list[tuple[int, int]]:
    """Stretches of whole sentences of at most so many tokens; a longer sentence is cut between tokens."""
    starts = find_sentence_starts(text)
    chunks: list[tuple[int, int]] = []
    begin = count = at = 0
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        tokens = []
        while at < len(token_starts) and token_starts[at] < end:
            tokens.append(token_starts[at])
            at += 1
        if count and count + len(tokens) > room:
            chunks.append((begin, start))
            begin, count = start, 0
        while len(tokens) > room:
            chunks.append((begin, tokens[room]))
            begin, tokens = tokens[room], tokens[room:]
        count += len(tokens)
    return [c for c in [*chunks, (begin, len(text))] if text[c[0] : c[1]].strip()]


def _stretch_text(concept: Concept, chunk: Chunk) -> str:
    return chunk.source.text[concept.start - chunk.start : concept.end - chunk.start]


def _answer(document: Document, chunk: Chunk, words: _Words) -> Answer:
    """The gold answer about a chunk."""
    end = chunk.start + len(chunk.source.text)
    inside = [c for c in document.concepts if chunk.start <= c.start and c.end <= end and c.type in words.of_type]
    inside.sort(key=lambda c: (c.extent, c.type))
    ordered = chunk.given or inside
    number = {c.id: i for i, c in enumerate(ordered, start=1)}
    mentions = tuple(
        Mention(words.of_type[c.type], _stretch_text(c, chunk), (c.start - chunk.start, c.end - chunk.start))
        for c in inside
    )
    links = sorted(
        (number[r.head], number[r.tail], words.of_relation[r.type])
        for r in document.relations
        if r.head in number and r.tail in number and r.type in words.of_relation
    )
    relations = tuple((type_, head, tail) for head, tail, type_ in links)
    task = chunk.source.task
    return Answer(mentions if task != "relations" else (), relations if task != "concepts" else ())


def _placed(type_: str, stretch: tuple[int, int] | None, chunk: Chunk, number: int) -> Concept | None:
    if stretch is None:
        return None
    return Concept(f"T{number}", type_, (Span(chunk.start + stretch[0], chunk.start + stretch[1]),))


def _constraint(template: str, source: Source, tokenizer: PreTrainedTokenizerFast) -> DecodingConstraint:
    from clinie_core.templates.constrained_decoding import Grammar

    edges = partial(TEMPLATES.load(template)().iter_edges, source=source)
    return Grammar(_vocabulary(tokenizer), edges, END).constraint()


@lru_cache(maxsize=2)
def _vocabulary(tokenizer: PreTrainedTokenizerFast) -> Vocabulary:
    from clinie_core.templates.constrained_decoding import Vocabulary

    return Vocabulary(tokenizer)
