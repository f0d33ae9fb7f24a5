"""What every formulation keeps; a new row of the table is tested without a new test."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from clinie_core.config import Part, TrialConfig
from clinie_core.document import Corpus
from clinie_core.formulations import FORMULATIONS
from clinie_core.shelf import Shelf


@pytest.mark.parametrize("name", FORMULATIONS)
class TestFormulation:
    def test_gold_targets_read_back_as_the_gold_concepts(
        self, make_config: Callable[..., TrialConfig], corpus: Corpus, name: str
    ) -> None:
        config = make_config(formulation=Part(name=name))
        formulation = FORMULATIONS.load(name)()
        labels = formulation.labels(corpus.concept_types("train"))
        head = formulation.build_head(8, labels)
        encoded = Shelf().encoded(config, corpus["train"], corpus.digest("train"), labels, targets=True)
        for document, item in zip(corpus["train"], encoded, strict=True):
            certain = [np.eye(len(labels), dtype=np.float32)[list(e.targets)] * 50 for e in item.examples]
            found = formulation.concepts(item, certain, head, labels)
            assert {(c.type, c.start, c.end) for c in found} == {(c.type, c.start, c.end) for c in document.concepts}

    def test_labels_depend_on_the_types_alone(self, name: str) -> None:
        formulation = FORMULATIONS.load(name)()
        assert formulation.labels(("A", "B")) == formulation.labels(("A", "B"))
        assert len(set(formulation.labels(("A", "B")))) == len(formulation.labels(("A", "B")))
