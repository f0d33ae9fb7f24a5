"""Data of one trial: its schema, encoded training examples and encoded dev split."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from clinie_core.config import TrialConfig
from clinie_core.data.corpora.splitting import select_few_shot
from clinie_core.data.document import Corpus, Document
from clinie_core.data.schema import Schema, get_corpus_name
from clinie_core.encoding.batch_sampling import draw_epoch_batches, sample_mixture
from clinie_core.encoding.examples import EncodedDocument, Example
from clinie_core.errors import fail
from clinie_core.formulations import build_components
from clinie_core.formulations.formulation import Formulation, InputContext
from clinie_core.formulations.input_context import build_input_context
from clinie_core.modeling.model_cache import ModelCache

__all__ = ["TrainingData"]


@dataclass(frozen=True)
class TrainingData:
    """Encoded data of one trial.

    Args:
        schema: Annotation types of the whole training split.
        components: Formulations of the model by component, in the order in which they predict.
        context: Settings with which documents are encoded.
        examples: Training examples of each component.
        corpora: For each component, the corpus name of each example; empty names for a single corpus.
        dev: Documents of the dev split.
        dev_digest: Digest of the dev split.
        dev_encoded: Encoding of the dev split for each component, without targets.
    """

    schema: Schema
    components: Mapping[str, Formulation[object]]
    context: InputContext
    examples: Mapping[str, Sequence[Example]]
    corpora: Mapping[str, Sequence[str]]
    dev: tuple[Document, ...]
    dev_digest: str
    dev_encoded: Mapping[str, tuple[EncodedDocument[object], ...]]

    def compute_diagnostics(self) -> dict[str, float]:
        """Return the limits of the formulations on the dev split, which are the same in every epoch."""
        metrics: dict[str, float] = {}
        for name, formulation in self.components.items():
            limit = formulation.limit_answer_tokens(self.examples[name])
            context = replace(self.context, task=name, answer_tokens=limit)  # type: ignore[arg-type]
            metrics |= formulation.compute_diagnostics(self.dev, self.dev_encoded[name], context)
        return metrics

    def sample_batches(self, config: TrialConfig, epoch: int) -> list[tuple[str, list[int]]]:
        """Return the component and the example indices of each batch of an epoch.

        Batches of several components are shuffled together.

        Args:
            config: Batch size, seed and sampling exponent.
            epoch: 1-based number of the epoch.
        """
        batches = []
        for name, rows in self.examples.items():
            drawn = sample_mixture(self.corpora[name], config.sampling_exponent, seed=config.seed, epoch=epoch)
            lengths = [len(rows[i].input_ids) for i in drawn]
            for batch in draw_epoch_batches(lengths, config.batch_size, seed=config.seed, epoch=epoch):
                batches.append((name, [drawn[i] for i in batch]))
        if len(self.examples) > 1:
            random.Random(f"{config.seed}/{epoch}/components").shuffle(batches)
        return batches

    @classmethod
    def encode(cls, config: TrialConfig, corpus: Corpus, cache: ModelCache) -> TrainingData:
        """Encode a corpus for a configuration.

        Args:
            config: The configuration.
            corpus: A corpus with ``train`` and ``dev`` splits.
            cache: Holds tokenizers and encoded corpora between trials.

        Raises:
            InputError: If the configuration does not fit the corpus.
        """
        # The schema covers the whole split, so that the labels do not depend on the number of training documents.
        schema = Schema.from_documents(corpus["train"], config.view.descriptions)
        documents, digest = corpus["train"], corpus.digest("train")
        if config.train_documents is not None:
            documents = select_few_shot(documents, config.train_documents, config.seed)
            digest = f"{digest}/{config.train_documents}/{config.seed}"
        dev, dev_digest = corpus["dev"], corpus.digest("dev")
        components = build_components(config)
        examples: dict[str, list[Example]] = {}
        corpora: dict[str, list[str]] = {}
        dev_encoded: dict[str, tuple[EncodedDocument[object], ...]] = {}
        for name in components:
            encoded = cache.encode(config, name, documents, digest, schema, targets=True)  # type: ignore[arg-type]
            rows = [
                (example, get_corpus_name(document) or "")
                for document, item in zip(documents, encoded, strict=True)
                for example in item.examples
                if example.loss_terms
            ]
            if not rows:
                fail("corpus.splits.train", f"no annotations of {name}", allowed="documents with annotations")
            examples[name] = [example for example, _ in rows]
            corpora[name] = [corpus_name for _, corpus_name in rows]
            dev_encoded[name] = cache.encode(config, name, dev, dev_digest, schema, targets=False)  # type: ignore[arg-type]
        context = build_input_context(config, cache.get_tokenizer(config), schema)
        return cls(schema, components, context, examples, corpora, dev, dev_digest, dev_encoded)
