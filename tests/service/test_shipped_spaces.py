"""Shipped spaces: every configuration that can be drawn from them is valid."""

from __future__ import annotations

import pytest

from search.config.domains import RandomChooser
from search.config.space_reading import find_shipped_spaces, read_space_file
from search.config.validation import build_space

TINY_DECODER = "{scratch: {model_type: llama, hidden_size: 288, num_hidden_layers: 1, intermediate_size: 288}}"
WITHOUT_DOWNLOADS = {
    "paper": ["space.backbone={choose: [tiny-encoder, tiny-decoder]}"],
    "encoder-vs-decoder": [f"backbones.smollm2-135m={TINY_DECODER}"],
}


@pytest.mark.parametrize("name", list(find_shipped_spaces()))
def test_every_configuration_of_a_shipped_space_is_valid(name: str) -> None:
    from clinie_core.backbones.facts import read_facts
    from clinie_core.formulations import build_components
    from clinie_core.modeling.capabilities import list_finetuning_methods, list_formulations
    from clinie_core.modeling.model import load_finetuning

    space = build_space(*read_space_file(name, WITHOUT_DOWNLOADS.get(name, [])))
    facts = {source.name: read_facts(source) for source in space.backbones}
    for seed in range(10_000):
        config = space.suggest(RandomChooser(seed))
        kind = facts[config.backbone.name].architecture
        formulations = build_components(config)
        assert load_finetuning(config).find_conflict(facts[config.backbone.name]) is None
        assert config.finetuning.name in list_finetuning_methods(kind)
        needs_another = list_formulations(config.task, kind)[config.formulation.name]
        assert len(formulations) == 1 + needs_another
        assert all(formulation.find_conflict(config.task) is None for formulation in formulations.values())
