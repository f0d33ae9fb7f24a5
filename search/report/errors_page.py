"""Page with gold and predicted annotations of each document side by side. It contains document text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from jinja2 import Environment
from markupsafe import Markup, escape

from clinie_core.config import Task
from clinie_core.data.document import Concept, Document, Relation
from clinie_core.scoring.error_analysis import KINDS, Kind, Outcome, classify_concepts, classify_relations

__all__ = ["render_errors_page"]

TEMPLATE = Path(__file__).with_name("errors_page.html")
Side = Literal["gold", "predicted"]


@dataclass(frozen=True)
class DocumentErrors:
    """Errors of one document as the page shows them.

    Args:
        id: Id of the document.
        outcomes: Kind and types of each outcome, as attributes that the filter reads.
        gold: Text with the gold concepts.
        predicted: Text with the predicted concepts.
        relations: Kind, types, and description on both sides of each relation.
        errors: Number of errors.
    """

    id: str
    outcomes: list[tuple[Kind, str]]
    gold: Markup
    predicted: Markup
    relations: list[tuple[Kind, str, str, str]]
    errors: int


def render_errors_page(title: str, pairs: Sequence[tuple[Document, Document]], task: Task) -> str:
    """Render the page.

    Args:
        title: Heading of the page.
        pairs: For each document its gold and its predicted version.
        task: Task of the model; relations that it does not predict are no errors.
    """
    documents = [_describe(gold, predicted, task) for gold, predicted in pairs]
    counts = Counter(kind for document in documents for kind, _ in document.outcomes)
    types = sorted({type_ for document in documents for _, both in document.outcomes for type_ in both.split()})
    environment = Environment(autoescape=True)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return page.render(title=title, documents=documents, kinds=KINDS, counts=counts, types=types)


def _describe(gold: Document, predicted: Document, task: Task) -> DocumentErrors:
    concepts = classify_concepts(gold, predicted)
    relations = classify_relations(gold, predicted) if task != "concepts" else []
    rows = [
        (o.kind, _list_types(o), _describe_relation(gold, o.gold), _describe_relation(predicted, o.predicted))
        for o in relations
    ]
    outcomes = [(o.kind, _list_types(o)) for o in concepts] + [(kind, types) for kind, types, _, _ in rows]
    return DocumentErrors(
        gold.id,
        outcomes,
        _mark(gold.text, concepts, "gold"),
        _mark(gold.text, concepts, "predicted"),
        rows,
        sum(kind != "correct" for kind, _ in outcomes),
    )


def _list_types(outcome: Outcome[Concept] | Outcome[Relation]) -> str:
    """Return the types of both sides, separated by blanks; blanks in a name become underscores."""
    found = {side.type.replace(" ", "_") for side in (outcome.gold, outcome.predicted) if side is not None}
    return " ".join(sorted(found))


def _describe_relation(document: Document, relation: Relation | None) -> str:
    if relation is None:
        return ""
    concepts: Mapping[str, Concept] = {concept.id: concept for concept in document.concepts}
    head, tail = concepts[relation.head], concepts[relation.tail]
    return f"{document.mention(head)} - {relation.type} -> {document.mention(tail)}"


def _mark(text: str, outcomes: Sequence[Outcome[Concept]], side: Side) -> Markup:
    """Return the text as HTML in which the concepts of one side are marked.

    The marks of overlapping concepts are nested.
    """
    shown = [(o, c) for o in outcomes if (c := o.gold if side == "gold" else o.predicted) is not None]
    cuts = sorted({0, len(text), *(cut for _, c in shown for span in c.spans for cut in (span.start, span.end))})
    return Markup("").join(_render_parts(text, shown, cuts))


def _render_parts(
    text: str, shown: Sequence[tuple[Outcome[Concept], Concept]], cuts: Sequence[int]
) -> Iterator[Markup]:
    for start, end in pairwise(cuts):
        part = escape(text[start:end])
        for outcome, concept in shown:
            if any(span.start <= start and end <= span.end for span in concept.spans):
                label = Markup("<b>{}</b>").format(concept.type) if end == concept.end else ""
                mark = Markup('<mark class="{}" data-kind="{}" data-types="{}" title="{}: {}">{}{}</mark>')
                title = concept.type, outcome.kind
                part = mark.format(outcome.kind, outcome.kind, _list_types(outcome), *title, part, label)
        yield part
