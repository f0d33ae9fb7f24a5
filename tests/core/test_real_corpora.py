"""Real annotated corpora are read without problems and with the published numbers of documents.

The corpora may not be redistributed; the environment variable CLINIE_CORPORA names their folder.
"""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from clinie_core.data.bio_tagging import build_bio_labels, decode_concepts, tag_units
from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.brat import Brat
from clinie_core.data.corpora.document_comparison import count_differences
from clinie_core.data.corpora.reading import ReadingOptions
from clinie_core.data.document import Document, Span
from clinie_core.encoding.windows import tokenize_documents
from clinie_core.errors import Problem

CORPORA = os.environ.get("CLINIE_CORPORA")
pytestmark = pytest.mark.skipif(CORPORA is None, reason="CLINIE_CORPORA is not set")

COUNTS = {
    "ncbi-disease/train": 593,
    "ncbi-disease/devel": 100,
    "ncbi-disease/test": 100,
    "phee/train": 2898,
    "phee/dev": 961,
    "phee/test": 968,
    "maccrobat-2020": 200,
}


@pytest.mark.parametrize(("folder", "documents"), COUNTS.items())
def test_every_document_of_a_corpus_is_read(folder: str, documents: int) -> None:
    read = Brat().read_all(Path(CORPORA or "") / folder)
    assert len(read) == documents
    assert all(c.end <= len(d.text) for d in read for c in d.concepts)


def test_bc5cdr_is_equal_in_pubtator_and_bioc() -> None:
    folder = Path(CORPORA or "") / "bc5cdr"
    read = {
        name: {d.id: d for d in FORMATS.load(name)().read_all(folder / f"CDR_TestSet.{suffix}")}
        for name, suffix in (("pubtator", "PubTator.txt"), ("bioc_xml", "BioC.xml"))
    }
    assert len(read["pubtator"]) == len(read["bioc_xml"]) == 500
    for id_, document in read["pubtator"].items():
        other = read["bioc_xml"][id_]
        assert other.text == document.text
        assert {(r.type, r.head, r.tail) for r in document.entity_relations} == {
            (r.type, r.head, r.tail) for r in other.entity_relations
        }
        # BioC also contains the parts of composite mentions, such as each of two diseases that share a word.
        assert {(c.type, c.extent) for c in document.concepts} <= {(c.type, c.extent) for c in other.concepts}


def test_the_shifted_annotation_of_bc5cdr_is_skipped_on_request() -> None:
    file = Path(CORPORA or "") / "bc5cdr" / "CDR_TrainingSet.BioC.xml"
    items = list(FORMATS.load("bioc_xml")(ReadingOptions(on_error="skip")).read(file))
    notices = [item for item in items if isinstance(item, Problem)]
    assert [(n.severity, n.where, n.found.split(":")[0]) for n in notices] == [("skipped", f"{file}:53363", "12")]
    assert len(items) == 501
    trusted = FORMATS.load("bioc_xml")(ReadingOptions(offsets="trust")).read_all(file)
    assert sum(len(d.concepts) for d in trusted) == 1 + sum(len(d.concepts) for d in items if isinstance(d, Document))


@pytest.mark.parametrize("name", ["jsonl", "brat"])
def test_round_trip_of_case_reports_loses_nothing(name: str) -> None:
    format_ = FORMATS.load(name)()
    documents = Brat().read_all(Path(CORPORA or "") / "maccrobat-2020")[:40]
    assert sum(len(d.equivalences) + len(d.notes) for d in documents)
    assert sum((count_differences(d, format_.round_trip(d)) for d in documents), Counter[str]()) == {}


def train_tokenizer(kind: str, texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a tokenizer of the kind of BERT, GPT-2, XLM-R (metaspace) or Llama 2 (unsplit) on texts."""
    special = ["<unk>"]
    trainer: trainers.Trainer = trainers.BpeTrainer(vocab_size=5000, special_tokens=special)
    if kind == "bert":
        model = Tokenizer(models.WordPiece(unk_token="<unk>"))
        model.normalizer = normalizers.BertNormalizer(lowercase=True)
        model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=5000, special_tokens=special)
    elif kind == "gpt2":
        model = Tokenizer(models.BPE())
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    elif kind == "metaspace":
        model = Tokenizer(models.Unigram())
        model.normalizer = normalizers.NFKC()
        model.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=5000, special_tokens=special, unk_token="<unk>")
    else:
        model = Tokenizer(models.BPE(unk_token="<unk>"))
        model.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    # Spaces are removed from the training texts of the unsplit kind, since training on whole notes takes minutes.
    model.train_from_iterator([w for t in texts for w in t.split(" ")] if kind == "unsplit" else texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=model, unk_token="<unk>")


def decompose(document: Document) -> Document:
    """Return a document with its text in Unicode's form NFD and adapted offsets."""
    parts = [unicodedata.normalize("NFD", character) for character in document.text]
    at = [0, *itertools.accumulate(len(part) for part in parts)]
    concepts = tuple(replace(c, spans=tuple(Span(at[s.start], at[s.end]) for s in c.spans)) for c in document.concepts)
    return Document(document.id, "".join(parts), concepts)


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["bert", "gpt2", "metaspace", "unsplit"])
def test_gold_concepts_come_back_from_their_labels_with_any_tokenizer(kind: str) -> None:
    corpora = {
        "maccrobat-2020": Brat().read_all(Path(CORPORA or "") / "maccrobat-2020"),
        "bc5cdr": FORMATS.load("pubtator")().read_all(Path(CORPORA or "") / "bc5cdr" / "CDR_TestSet.PubTator.txt"),
    }
    tokenizer = train_tokenizer(kind, [d.text for documents in corpora.values() for d in documents])
    for name, documents in corpora.items():
        labels = build_bio_labels(sorted({c.type for d in documents for c in d.concepts}))
        for version in (documents, tuple(decompose(d) for d in documents)):
            total = recovered = 0
            texts = [document.text for document in version]
            for document, tokens in zip(
                version, tokenize_documents(texts, tokenizer, size=510, overlap=64), strict=True
            ):
                # Concepts that share a word or are discontinuous exceed any flat labelling, not the segmentation.
                gold = [c for c in document.concepts if len(c.spans) == 1]
                gold = [c for c in gold if not any(c is not o and c.start < o.end and o.start < c.end for o in gold)]
                found = decode_concepts(tokens.units, tag_units(tokens.units, gold, labels)[0], labels)
                total += len(gold)
                recovered += len({(c.type, c.extent) for c in gold} & {(c.type, c.extent) for c in found})
            assert recovered / total >= 0.99, (name, recovered, total)
