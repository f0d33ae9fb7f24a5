"""Generation: batched decoding equals decoding of single inputs, and constraints are effective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clinie_core.backbones.weights import load_model
from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.document import Corpus
from clinie_core.data.schema import Schema
from clinie_core.encoding.batch import collate
from clinie_core.encoding.examples import Example
from clinie_core.errors import InputError
from clinie_core.finetuning import FINETUNING
from clinie_core.formulations import FORMULATIONS, build_components
from clinie_core.formulations.input_context import build_input_context
from clinie_core.heads import LanguageHead
from clinie_core.inference.extractor import Extractor
from clinie_core.modeling.model import LanguageModel
from clinie_core.modeling.model_cache import ModelCache
from clinie_core.training.train import EpochReport, train

COMMON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.5}
DECODERS = {
    "llama": {"model_type": "llama", "intermediate_size": 64, "max_position_embeddings": 1200, **COMMON},
    "gpt2": {"model_type": "gpt2", "n_positions": 1200, **COMMON},
}
ANSWER = 12


def decode_greedily(model: LanguageModel, prompt: list[int]) -> list[int]:
    """Decode greedily without padding or cache, from the scores that are used in training."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + ANSWER:
        ids = torch.tensor([tokens])
        best = int(model.backbone(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1].argmax())
        if best == 2:
            break
        tokens.append(best)
    return tokens[len(prompt) :]


@pytest.mark.parametrize("kind", list(DECODERS))
@pytest.mark.parametrize("name", ["full", "lora", "prompt_tuning", "p_tuning", "prefix_tuning"])
def test_the_loss_of_a_padded_batch_is_the_sum_of_its_rows(kind: str, name: str) -> None:
    method = FINETUNING.load(name)(learning_rate=1e-3)
    backbone = method.apply(load_model(BackboneSource(name=kind, scratch=DECODERS[kind]), generates=True, seed=3))
    model = LanguageModel(backbone, {"concepts": LanguageHead()}, method.prepended_tokens).eval()
    rows = [
        Example((5, 6, 7, 8, 9, 10), (3, 4), (9, 10)),
        Example((20, 21, 22), (1,), (22,)),
        Example((40, 2), (0,), (2,)),
    ]

    def loss(part: list[Example]) -> float:
        device = torch.device("cpu")
        return float(model(collate(part, 0, device, targets=True, component="concepts", aligned=True)))

    assert loss(rows) == pytest.approx(sum(loss([row]) for row in rows), rel=1e-4)


@pytest.mark.parametrize("kind", list(DECODERS))
@pytest.mark.parametrize("name", ["full", "lora", "prompt_tuning", "p_tuning", "prefix_tuning"])
def test_a_padded_batch_generates_the_same_as_single_rows(kind: str, name: str) -> None:
    method = FINETUNING.load(name)(learning_rate=1e-3)
    backbone = method.apply(load_model(BackboneSource(name=kind, scratch=DECODERS[kind]), generates=True, seed=3))
    torch.manual_seed(1)
    for parameter in backbone.parameters() if name != "full" else ():
        if parameter.requires_grad:  # makes the soft prompt affect the output
            torch.nn.init.normal_(parameter, std=0.5)
    head = LanguageHead()
    head.set_budget(ANSWER, 2)
    model = LanguageModel(backbone, {"concepts": head}, method.prepended_tokens).eval()
    prompts = [[5, 6, 7, 8, 9, 10, 11], [20, 21, 22], [40]]
    with torch.inference_mode():
        batch = collate(
            [Example(tuple(p), ()) for p in prompts],
            0,
            torch.device("cpu"),
            targets=False,
            component="concepts",
            left=True,
        )
        together = [row.tolist() for row in model.predict(batch)]
        alone = [decode_greedily(model, prompt) for prompt in prompts]
    assert together == alone


def decoder_config(make_config: Callable[..., TrialConfig], **parameters: object) -> TrialConfig:
    scratch = {**DECODERS["llama"], "initializer_range": 0.02}
    return make_config(
        backbone=BackboneSource(name="writer", scratch=scratch),
        formulation=ComponentChoice(name="generation", parameters=parameters),
        window_tokens=500,
        epochs=1,
    )


@pytest.mark.integration
def test_constraints_reduce_malformed_answers_and_prevent_hallucination(
    make_config: Callable[..., TrialConfig], corpus: Corpus, tmp_path: Path
) -> None:
    few = Corpus({"train": corpus["train"][:4], "dev": corpus["dev"][:2]})
    rates = {}
    for constrained in (False, True):
        reports: list[EpochReport] = []
        config = decoder_config(make_config, template="json", instruction="short", constrained=constrained)
        train(config, few, on_epoch=lambda report, into=reports: into.append(report) or True)  # type: ignore[misc]
        rates[constrained] = reports[-1].metrics
    assert rates[False]["malformed_rate"] == 1.0  # after one epoch the output is random bytes
    assert rates[True]["malformed_rate"] < 1.0
    assert rates[True]["hallucinated_rate"] == 0.0


def test_a_window_that_is_too_short_for_the_instruction_is_rejected(
    make_config: Callable[..., TrialConfig], corpus: Corpus
) -> None:
    config = decoder_config(make_config).model_copy(update={"window_tokens": 64})
    with pytest.raises(InputError, match=r"the window has 64 tokens, but the instruction needs \d+; at least"):
        train(config, corpus)


def test_a_generative_extractor_is_saved_with_its_backbone(
    make_config: Callable[..., TrialConfig], corpus: Corpus, tmp_path: Path
) -> None:
    few = Corpus({"train": corpus["train"][:3], "dev": corpus["dev"][:1]})
    train(decoder_config(make_config, instruction="short", constrained=True), few, folder=tmp_path)
    extractor = Extractor.load(tmp_path / "best")
    extractor.save(tmp_path / "whole")
    found = Extractor.load(tmp_path / "whole").predict(["", "no fever"])
    assert found == extractor.predict(["", "no fever"])
    assert found[0].concepts == ()


def test_concepts_and_relations_are_trained_with_separate_prompts(
    make_config: Callable[..., TrialConfig], corpus: Corpus, tmp_path: Path
) -> None:
    few = Corpus({"train": corpus["train"][:3], "dev": corpus["dev"][:1]})
    config = decoder_config(make_config, instruction="short", constrained=True, questions="apart", template="json")
    config = config.model_copy(update={"task": "joint"})
    components = build_components(config)
    assert list(components) == ["concepts", "relations"]
    context = build_input_context(config, ModelCache().get_tokenizer(config), Schema.from_documents(few["train"]))
    for component, wanted in (("concepts", "Find the concepts"), ("relations", "Find the relations between")):
        (encoded,) = components[component].encode(few["dev"], replace(context, task=component), targets=False)  # type: ignore[arg-type]
        assert wanted in context.tokenizer.decode(encoded.examples[0].input_ids)
    reports: list[EpochReport] = []
    train(config, few, folder=tmp_path, on_epoch=lambda report: reports.append(report) or True)  # type: ignore[func-returns-value]
    assert {"concept_strict_f1", "relation_strict_f1", "gold_relation_strict_f1"} <= reports[-1].metrics.keys()
    again = Extractor.load(tmp_path / "best").score(few["dev"]).metrics()
    assert again["strict_f1"] == reports[-1].metrics["strict_f1"]


def test_a_template_without_relations_is_rejected_for_joint_extraction(make_config: Callable[..., TrialConfig]) -> None:
    tags = FORMULATIONS.load("generation").model_validate({"template": "tags", "questions": "apart"})
    assert "template tags does not support task joint; allowed: json, lines" in str(tags.find_conflict("joint"))
