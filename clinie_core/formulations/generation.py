"""Generation: a decoder receives an instruction and generates the annotations as text.

A document is split into chunks of complete sentences. Mentions in the answer to a chunk are grounded in its text. A
mention that the text does not contain counts as hallucinated and is dropped.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from clinie_core.config import Task
from clinie_core.data.document import Concept, Document, Relation, Span
from clinie_core.data.schema import Schema
from clinie_core.encoding.examples import DecodingConstraint, EncodedDocument, Example
from clinie_core.encoding.outputs import HeadOutput
from clinie_core.encoding.sentences import find_sentence_starts
from clinie_core.encoding.windows import encode_text
from clinie_core.errors import fail
from clinie_core.formulations.answer_limits import explain_lost_mentions
from clinie_core.formulations.formulation import Formulation, InputContext, Prediction
from clinie_core.formulations.prompt_names import CorpusNames, TypeNames
from clinie_core.formulations.representable import LossReason, RepresentableCounts, select_distinct
from clinie_core.templates import TEMPLATES
from clinie_core.templates.grounding import ground
from clinie_core.templates.template import END, Answer, Mention, Source, Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from clinie_core.heads import TaskHead
    from clinie_core.templates.constrained_decoding import Vocabulary

__all__ = ["Generation"]

MIN_CHUNK_TOKENS = 16
"""Minimum number of tokens of text that must fit into the window beside the instruction."""
BUDGET_FACTOR = 1.25
BUDGET_MARGIN = 8
TASK_NAMES = {"concepts": "concepts", "relations": "relations between the concepts", "joint": "concepts and relations"}


@dataclass(frozen=True)
class Chunk:
    """Part of a document with one prompt.

    Args:
        start: Offset of the part in the document.
        source: The part's text and the annotations to extract.
        given: Concepts that the prompt lists, in task ``relations``.
    """

    start: int
    source: Source
    given: tuple[Concept, ...]

    @property
    def end(self) -> int:
        """Offset of the end of the part."""
        return self.start + len(self.source.text)


class Generation(Formulation[tuple[Chunk, ...]]):
    """Generated annotations.

    Args:
        template: Format of an answer.
        instruction: ``types`` for a prompt with the names of the types and the format, ``short`` for the task alone.
        constrained: Whether decoding is restricted to the template's grammar and to copies of the text.
        questions: In task ``joint``, ``together`` for one answer with concepts and relations, ``apart`` for two
            prompts; the second lists the predicted concepts.
    """

    ranges: ClassVar[dict[str, Any]] = {
        "template": {"choose": ["json", "lines", "tags"]},
        "instruction": {"choose": ["types", "short"]},
    }
    architectures: ClassVar[frozenset[Any]] = frozenset({"decoder"})
    tasks: ClassVar[frozenset[Task]] = frozenset({"concepts", "relations", "joint"})
    type_conditioned: ClassVar[bool] = True
    generates: ClassVar[bool] = True
    limiting_parameters: ClassVar[tuple[str, ...] | None] = ("template", "instruction")

    template: Literal["json", "lines", "tags", "bio"] = "lines"
    instruction: Literal["types", "short"] = "types"
    constrained: bool = False
    questions: Literal["together", "apart"] = "together"

    def find_conflict(self, task: Task) -> str | None:
        """See :meth:`Formulation.find_conflict`; some templates support concepts only."""
        tasks = set(self.split_task(task))
        if tasks <= self._template.tasks:
            return None
        able = [name for name in TEMPLATES if tasks <= TEMPLATES.load(name).tasks]
        return f"template {self.template} does not support task {task}; allowed: {', '.join(able)}"

    def split_task(self, task: Task) -> tuple[Task, ...]:
        """See :meth:`Formulation.split_task`; concepts and relations are separate if ``questions`` is ``apart``."""
        return ("concepts", "relations") if task == "joint" and self.questions == "apart" else (task,)

    @property
    def _template(self) -> Template:
        return TEMPLATES.load(self.template)()

    def encode(
        self, documents: Sequence[Document], context: InputContext, *, targets: bool
    ) -> tuple[EncodedDocument[tuple[Chunk, ...]], ...]:
        """Build one example for each chunk: the prompt, followed by the gold answer if targets are requested.

        Raises:
            InputError: If the tokenizer has no end-of-sequence token, or the window is too short for the instruction.
        """
        tokenizer = context.tokenizer
        if tokenizer.eos_token_id is None:
            fail(
                "backbone", "the decoder's tokenizer has no end-of-sequence token", allowed="a tokenizer with eos_token"
            )
        names_of = CorpusNames(context.schema)
        overhead = max(
            len(self._build_prompt(tokenizer, context, names, Source("", context.task, names.types), ()))
            for names in names_of.list_all()
        )
        text_tokens = context.window_tokens - overhead
        if text_tokens < MIN_CHUNK_TOKENS:
            fail(
                "space.window_tokens",
                f"the window has {context.window_tokens} tokens, but the instruction needs {overhead}",
                allowed=f"at least {overhead + MIN_CHUNK_TOKENS}",
                remedy="raise window_tokens, or set instruction: short",
            )
        offsets = tokenizer(
            [d.text for d in documents], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        encoded = []
        for number, document in enumerate(documents):
            tokens = [start for start, _ in offsets["offset_mapping"][number]]
            names = names_of(document)
            annotations = _Annotations(document)
            chunks = [
                self._build_chunk(annotations, start, end, context.task, names)
                for start, end in _split_chunks(document.text, tokens, text_tokens)
            ]
            examples = [self._build_example(annotations, chunk, context, names, targets=targets) for chunk in chunks]
            encoded.append(EncodedDocument(tuple(examples), tuple(chunks)))
        return tuple(encoded)

    @staticmethod
    def _build_chunk(annotations: _Annotations, start: int, end: int, task: Task, names: TypeNames) -> Chunk:
        text = "".join(" " if c.isspace() else c for c in annotations.text[start:end])
        given = tuple(annotations.find_concepts(start, end)) if task == "relations" else ()
        return Chunk(start, Source(text, task, names.types, names.relations, len(given)), given)

    def _build_prompt(
        self,
        tokenizer: PreTrainedTokenizerFast,
        context: InputContext,
        names: TypeNames,
        source: Source,
        given: Sequence[str],
    ) -> list[int]:
        """Build the prompt as token ids; a chat model receives it as a message of a chat."""
        instruction = f"Find the {TASK_NAMES[context.task]} in the text."
        if self.instruction == "types":
            instruction += f" Concepts: {', '.join(names.types)}." if context.task != "relations" else ""
            instruction += f" Relations: {', '.join(names.relations)}." if context.task != "concepts" else ""
            instruction += f" {self._template.describe_format(context.task)}"
        parts = [instruction, f"Text: {source.text}"]
        if context.task == "relations":
            parts.append("\n".join(["Concepts:", *(f"{i}. {mention}" for i, mention in enumerate(given, start=1))]))
        question = "\n\n".join(parts)
        if tokenizer.chat_template:
            message = [{"role": "user", "content": question}]
            return encode_text(
                tokenizer, tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
            )
        prefix = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
        return [*prefix, *encode_text(tokenizer, f"{question}\n\nAnswer:\n")]

    def _build_example(
        self, annotations: _Annotations, chunk: Chunk, context: InputContext, names: TypeNames, *, targets: bool
    ) -> Example:
        tokenizer, source = context.tokenizer, chunk.source
        given = [
            f"{names.of_type[c.type]}: {_get_mention_text(c, chunk)}" for c in chunk.given if c.type in names.of_type
        ]
        prompt = self._build_prompt(tokenizer, context, names, source, given)
        if not targets:
            constraint = _build_constraint(self.template, source, tokenizer) if self.constrained else None
            return Example(tuple(prompt), (), constraint=constraint)
        text = self._template.render(_build_gold_answer(annotations, chunk, names), source)
        answer = [*encode_text(tokenizer, text), int(tokenizer.eos_token_id)]
        positions = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        return Example((*prompt, *answer[:-1]), tuple(positions), tuple(answer))

    def build_head(self, hidden_size: int, schema: Schema) -> TaskHead:
        """Build the head of generative models; the backbone's own language-model head is used."""
        from clinie_core.heads import LanguageHead

        return LanguageHead()

    def fit_head(self, head: TaskHead, examples: Sequence[Example]) -> None:
        """Limit answers to slightly more tokens than the longest answer in training."""
        from clinie_core.heads import LanguageHead

        assert isinstance(head, LanguageHead)
        head.set_budget(self.limit_answer_tokens(examples), examples[0].targets[-1])

    def limit_answer_tokens(self, examples: Sequence[Example]) -> int:
        """See :meth:`Formulation.limit_answer_tokens`."""
        return int(BUDGET_FACTOR * max(len(example.targets) for example in examples)) + BUDGET_MARGIN

    def count_representable(
        self,
        documents: Sequence[Document],
        encoded: Sequence[EncodedDocument[tuple[Chunk, ...]]],
        context: InputContext,
    ) -> RepresentableCounts | None:
        """Count the gold concepts that are recovered from the gold answers by parsing and grounding."""
        if context.task == "relations":
            return None
        names_of, tokenizer = CorpusNames(context.schema), context.tokenizer
        total: list[Concept] = []
        lost: list[tuple[Concept, LossReason]] = []
        for document, item in zip(documents, encoded, strict=True):
            names, annotations = names_of(document), _Annotations(document)
            reasons: dict[tuple[str, int, int], LossReason] = {}
            inside: set[tuple[int, int]] = set()
            for chunk in item.state:
                gold = _build_gold_answer(annotations, chunk, names)
                tokens = encode_text(tokenizer, self._template.render(gold, chunk.source))
                whole, limited = (self._read_tokens(t, tokenizer) for t in (tokens, tokens[: context.answer_tokens]))
                inside |= {c.extent for c in annotations.find_concepts(chunk.start, chunk.end)}
                for (name, span), reason in explain_lost_mentions(
                    gold.mentions, chunk.source, self._template, whole, limited
                ).items():
                    assert span is not None, "gold mentions have spans"
                    reasons[names.type_of[name], chunk.start + span[0], chunk.start + span[1]] = reason
            concepts = select_distinct(document.concepts)
            total += concepts
            for concept in concepts:
                own = reasons.get((concept.type, *concept.extent))
                if len(concept.spans) > 1:
                    lost.append((concept, "discontinuous"))
                elif concept.extent not in inside:
                    lost.append((concept, "window"))
                elif concept.type not in names.of_type:
                    lost.append((concept, "unknown type"))
                elif own is not None:
                    lost.append((concept, own))
        return RepresentableCounts.of(total, lost)

    @staticmethod
    def _read_tokens(tokens: Sequence[int] | HeadOutput, tokenizer: PreTrainedTokenizerFast) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def decode(self, prediction: Prediction[tuple[Chunk, ...]]) -> Document:
        """Parse the answers and ground their mentions in the text."""
        document, context = prediction.document, prediction.context
        names = CorpusNames(context.schema)(document)
        concepts: list[Concept] = list(document.concepts) if context.task == "relations" else []
        relations: list[Relation] = []
        for chunk, output in zip(prediction.encoded.state, prediction.outputs, strict=True):
            answer = self._parse_answer(output, chunk, context)
            numbered: list[Concept | None] = list(chunk.given)
            if context.task != "relations":
                numbered = []
                for mention, span in zip(answer.mentions, ground(answer.mentions, chunk.source), strict=True):
                    numbered.append(_make_concept(names.type_of[mention.type], span, chunk, len(concepts) + 1))
                    concepts += [numbered[-1]] if numbered[-1] is not None else []
            for type_, head_number, tail_number in answer.relations:
                ends = [numbered[n - 1] if 0 < n <= len(numbered) else None for n in (head_number, tail_number)]
                if ends[0] is not None and ends[1] is not None and ends[0] != ends[1]:
                    id_ = f"R{len(relations) + 1}"
                    relations.append(Relation(id_, names.relation_of[type_], ends[0].id, ends[1].id))
        return replace(document, concepts=tuple(concepts), relations=tuple(relations))

    def _parse_answer(self, output: HeadOutput, chunk: Chunk, context: InputContext) -> Answer:
        return self._template.parse(self._read_tokens(output, context.tokenizer), chunk.source)

    def count_answer_faults(self, prediction: Prediction[tuple[Chunk, ...]]) -> Counter[str]:
        """Count malformed answers, and mentions that are not in the text."""
        counts: Counter[str] = Counter()
        for chunk, output in zip(prediction.encoded.state, prediction.outputs, strict=True):
            answer = self._parse_answer(output, chunk, prediction.context)
            counts["answers"] += 1
            counts["malformed"] += answer.malformed
            counts["mentions"] += len(answer.mentions)
            counts["hallucinated"] += ground(answer.mentions, chunk.source).count(None)
        return counts


class _Annotations:
    """Annotations of a document, to find those of a chunk."""

    def __init__(self, document: Document) -> None:
        self.text = document.text
        self._concepts = sorted(document.concepts, key=lambda c: c.extent)
        self._starts = [c.start for c in self._concepts]
        self.relations: defaultdict[str, list[Relation]] = defaultdict(list)
        """Relations by the id of their head."""
        for relation in document.relations:
            self.relations[relation.head].append(relation)

    def find_concepts(self, start: int, end: int) -> list[Concept]:
        """Return the concepts inside a range of the text, sorted by their extent."""
        inside = self._concepts[bisect_left(self._starts, start) : bisect_left(self._starts, end)]
        return [c for c in inside if c.end <= end]


def _split_chunks(text: str, token_starts: Sequence[int], size: int) -> list[tuple[int, int]]:
    """Split a text into chunks of complete sentences.

    Args:
        text: The text.
        token_starts: Offset of each token.
        size: Longest chunk in tokens; a longer sentence is split between tokens.

    Returns:
        Start and end offset of each chunk that is not blank.
    """
    starts = find_sentence_starts(text)
    chunks: list[tuple[int, int]] = []
    begin = count = at = 0
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        tokens = []
        while at < len(token_starts) and token_starts[at] < end:
            tokens.append(token_starts[at])
            at += 1
        if count and count + len(tokens) > size:
            chunks.append((begin, start))
            begin, count = start, 0
        cuts = range(size, len(tokens), size)
        for cut in cuts:
            chunks.append((begin, tokens[cut]))
            begin = tokens[cut]
        count += len(tokens) - size * len(cuts)
    return [c for c in [*chunks, (begin, len(text))] if text[c[0] : c[1]].strip()]


def _get_mention_text(concept: Concept, chunk: Chunk) -> str:
    return chunk.source.text[concept.start - chunk.start : concept.end - chunk.start]


def _build_gold_answer(annotations: _Annotations, chunk: Chunk, names: TypeNames) -> Answer:
    """Build the gold answer of a chunk."""
    inside = [c for c in annotations.find_concepts(chunk.start, chunk.end) if c.type in names.of_type]
    inside.sort(key=lambda c: (c.extent, c.type))
    ordered = chunk.given or inside
    number = {c.id: i for i, c in enumerate(ordered, start=1)}
    mentions = tuple(
        Mention(names.of_type[c.type], _get_mention_text(c, chunk), (c.start - chunk.start, c.end - chunk.start))
        for c in inside
    )
    links = sorted(
        (number[r.head], number[r.tail], names.of_relation[r.type])
        for head in number
        for r in annotations.relations.get(head, ())
        if r.tail in number and r.type in names.of_relation
    )
    relations = tuple((type_, head, tail) for head, tail, type_ in links)
    task = chunk.source.task
    return Answer(mentions if task != "relations" else (), relations if task != "concepts" else ())


def _make_concept(type_: str, span: tuple[int, int] | None, chunk: Chunk, number: int) -> Concept | None:
    if span is None:
        return None
    return Concept(f"T{number}", type_, (Span(chunk.start + span[0], chunk.start + span[1]),))


def _build_constraint(template: str, source: Source, tokenizer: PreTrainedTokenizerFast) -> DecodingConstraint:
    from clinie_core.templates.constrained_decoding import Grammar

    edges = partial(TEMPLATES.load(template)().iter_edges, source=source)
    return Grammar(_build_vocabulary(tokenizer), edges, END).begin()


@lru_cache(maxsize=2)
def _build_vocabulary(tokenizer: PreTrainedTokenizerFast) -> Vocabulary:
    from clinie_core.templates.constrained_decoding import Vocabulary

    return Vocabulary(tokenizer)
