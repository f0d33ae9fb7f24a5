"""Statistics of a corpus, collected one document at a time, and the concepts that a model cannot represent."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from clinie_core.data.corpora.checking import find_split_leak
from clinie_core.data.document import Corpus, Document, Span
from clinie_core.errors import Problem

__all__ = ["CorpusSummary", "summarize"]


class CorpusSummary:
    """Counts of documents, characters and annotations by split."""

    def __init__(self) -> None:
        self.documents: Counter[str] = Counter()
        self.characters: Counter[str] = Counter()
        self.items: defaultdict[str, defaultdict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        self.representation: Counter[str] = Counter()
        self.overlapping: Counter[str] = Counter()
        self.notices: list[Problem] = []
        self._split_of: dict[str, str] = {}
        self._padded: Counter[str] = Counter()

    def add(self, split: str, document: Document) -> Problem | None:
        """Count one document; return a problem if another split has a document of the same id."""
        self.documents[split] += 1
        self.characters[split] += len(document.text)
        for kind, items in (
            ("concepts", document.concepts),
            ("relations", document.relations),
            ("attributes", document.attributes),
            ("normalizations", document.normalizations),
            ("equivalences", document.equivalences),
            ("notes", document.notes),
            ("document-level relations", document.entity_relations),
        ):
            self.items[kind][split].update(_get_type(item) for item in items)
        self._count_unrepresentable(split, document)
        self._padded[split] += sum(
            document.text[span.start].isspace() or document.text[span.end - 1].isspace()
            for concept in document.concepts
            for span in (Span(*concept.extent),)
        )
        return find_split_leak(document, split, self._split_of)

    def _count_unrepresentable(self, split: str, document: Document) -> None:
        """Count the concepts that are not flat, continuous and aligned with words."""
        counts, text = self.representation, document.text
        counts["in all"] += len(document.concepts)
        reach: dict[str, int] = {}
        for concept in sorted(document.concepts, key=lambda c: (c.start, -c.end)):
            counts["discontinuous"] += len(concept.spans) > 1
            overlaps = any(concept.start < end for end in reach.values())
            counts["overlapping an earlier one"] += overlaps
            self.overlapping[split] += overlaps
            counts["overlapping one of the same type"] += concept.start < reach.get(concept.type, 0)
            reach[concept.type] = max(reach.get(concept.type, 0), concept.end)
            inner = (text[i - 1 : i + 1] for i in (concept.start, concept.end) if 0 < i < len(text))
            counts["ending within a word"] += any(pair.isalnum() for pair in inner)

    def warnings(self) -> list[Problem]:
        """Return warnings for concepts that cannot match, cannot be predicted or have no name in brat."""
        trained = self.items["concepts"]["train"]
        warnings = [
            Problem(
                f"corpus.splits.{split}",
                f"{count:,} concepts begin or end in white space, which no strict match can find",
                remedy="use --on-error trim, or corpus.on_error=trim in a search",
            )
            for split, count in self._padded.items()
            if count
        ]
        types = sorted({type_ for counts in self.items["concepts"].values() for type_ in counts})
        warnings += [
            Problem("corpus", f"type {type_} contains white space; brat files have _ instead", remedy="rename the type")
            for type_ in types
            if type_.split() != [type_]
        ]
        return warnings + [
            Problem(
                f"corpus.splits.{split}",
                f"type {type_} occurs {count} times here and never in train",
                remedy="it cannot be predicted; merge the type or move documents",
            )
            for split in ("dev", "test")
            for type_, count in sorted(self.items["concepts"][split].items())
            if type_ not in trained
        ]

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return documents, characters and annotations by type, for each split."""
        return {
            split: {
                "documents": self.documents[split],
                "characters": self.characters[split],
                **{kind: dict(sorted(counts[split].items())) for kind, counts in self.items.items()},
            }
            for split in self.documents
        }


def _get_type(item: object) -> str:
    return str(getattr(item, "database", None) or getattr(item, "type", ""))


def summarize(corpus: Corpus) -> CorpusSummary:
    """Summarize a corpus in memory."""
    summary = CorpusSummary()
    for split, documents in corpus.splits.items():
        for document in documents:
            summary.add(split, document)
    return summary
