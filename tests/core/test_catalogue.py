"""The catalogue of backbones: its sizes are those of the models that transformers builds."""

from __future__ import annotations

import pytest
import torch

from clinie_core.backbones.catalogue import find_entry, load_catalogue
from clinie_core.backbones.facts import read_architecture, read_facts
from clinie_core.backbones.weights import initialize_model, load_config
from clinie_core.config import BackboneSource
from search.config.space_reading import find_shipped_spaces, read_space_file

UNITS = {"M": 1e6, "B": 1e9}
UNPUBLISHED = {"models/gatortrongpt-5b", "models/gatortrongpt-20b"}
"""Models of the paper whose architecture could not be verified."""


@pytest.mark.integration
@pytest.mark.parametrize("name", list(load_catalogue()))
def test_the_sizes_of_an_entry_agree_with_the_model(name: str) -> None:
    entry = load_catalogue()[name]
    stand_in = entry.make_stand_in("stand-in")
    with torch.device("meta"):
        model = initialize_model(load_config(stand_in), generates=read_architecture(stand_in) == "decoder")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == entry.parameters
    assert read_facts(stand_in).parameters == pytest.approx(parameters, rel=0.05)
    if entry.published is not None:
        published = float(entry.published[:-1]) * UNITS[entry.published[-1]]
        assert parameters == pytest.approx(published, rel=0.06)


def test_every_backbone_of_a_shipped_space_has_an_entry() -> None:
    missing = set()
    for name in find_shipped_spaces():
        for key, value in read_space_file(name)[0].backbones.items():
            source = BackboneSource.model_validate({"name": key, **value, "tokenizer": None})
            if source.scratch is None and source.package is None and find_entry(source) is None:
                missing.add(source.hub or source.folder)
    assert missing == UNPUBLISHED


def test_an_entry_is_found_by_repository_or_folder() -> None:
    assert find_entry(BackboneSource(name="b", hub="bert-large-uncased")) == load_catalogue()["bert-large-uncased"]
    assert find_entry(BackboneSource(name="b", folder="/shared/gatortronllama-8b")) is not None
    assert find_entry(BackboneSource(name="b", hub="clinic/unknown")) is None
    assert find_entry(BackboneSource(name="b", package="gatortronllama-8b", folder="gatortronllama-8b")) is None
