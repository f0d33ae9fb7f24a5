"""Validation of a space file: all faults of all blocks and of the corpus in one error, each fault once."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import search
from clinie_core.data.corpora.jsonl import Jsonl
from clinie_core.data.corpora.loading import discover_splits, load_corpus
from clinie_core.errors import InputError
from search.config.validation import validate_space, validate_space_file

Content = dict[str, Any]
WriteSpace = Callable[[Mapping[str, Any]], Path]


def read_faults(file: Path, *overrides: str) -> list[str]:
    """Return the faults that `search.plan`, as `clinie plan` does, reports."""
    with pytest.raises(InputError) as caught:
        search.plan(file, overrides)
    return [str(problem) for problem in caught.value.problems]


def test_faults_in_all_blocks_are_reported_in_one_error(space_content: Content, write_space: WriteSpace) -> None:
    content = copy.deepcopy(space_content)
    content["study"] = "two words"
    content["budget"] = {"trials": 0, "epochs": 2}
    content["algorithm"] = {
        "sampler": "tep",
        "scheduler": "ashes",
        "startup_trials": 0,
        "points_to_evaluate": [{"finetuning": "lora", "lr": 0.1, "averaging": 0.9}],
    }
    content["space"]["batch_size"] = {"int": [0, 8]}
    content["space"]["averaging"] = 0.9
    content["space"]["finetuning"]["choose"]["lora"]["rnak"] = 4
    content["space"]["finetuning"]["choose"]["qlora"] = {}
    content["space"]["formulation"] = {"choose": {"token_classification": {}, "generation": {}}}
    content["space"]["sharded"] = True
    content["corpus"] = {"path": content["corpus"]["path"], "splits": {"train": "train", "dev": "missing"}}
    expected = {
        "study": "String should match pattern",
        "budget.trials": "Input should be greater than or equal to 1 (found 0)",
        "algorithm.startup_trials": "Input should be greater than or equal to 1 (found 0)",
        "algorithm.sampler": "unknown sampler 'tep'",
        "algorithm.scheduler": "unknown scheduler 'ashes'",
        "algorithm.points_to_evaluate.0.lr": "not a dimension of the space",
        "algorithm.points_to_evaluate.0.averaging": "renamed key; write ema_decay",
        "space.batch_size": "Input should be greater than or equal to 1 (found 0)",
        "space.averaging": "renamed key; write ema_decay",
        "space.finetuning.choose.lora.rnak": "unknown key of lora",
        "space.finetuning.qlora": "not compatible with sharded",
        "space.formulation.generation": "does not support task concepts with encoder backbones",
        "space.sharded": "a trial has one process",
        "corpus.splits.dev": "no documents in",
    }
    faults = read_faults(write_space(content))
    for path, message in expected.items():
        assert [line for line in faults if line.startswith(f"space.yaml: {path}: ") and message in line], (path, faults)
    assert len(set(faults)) == len(faults)


@pytest.mark.parametrize(
    ("point", "path", "message"),
    [
        ({"finetuning.full.learning_rate": 5.0}, "finetuning.full.learning_rate", "found 5.0; log 0.001 to 0.01"),
        ({"finetuning.full.learning_rate": "5e-3"}, "finetuning.full.learning_rate", "found '5e-3'; log"),
        ({"finetuning.lora.rank": 2.5}, "finetuning.lora.rank", "found 2.5; log_int 2 to 8"),
        ({"batch_size": 12}, "batch_size", "found 12; choose 8, 16"),
        ({"batch_size": True}, "batch_size", "found True; choose 8, 16"),
        ({"window_tokens": 128}, "window_tokens", "found 128; only 96, which is not searched"),
        ({"finetuning": "dora"}, "finetuning", "found 'dora'; choose full, lora, ia3"),
        ({"lr": 0.1}, "lr", "not a dimension of the space; allowed: backbone, batch_size"),
        (
            {"finetuning": "full", "finetuning.lora.rank": 4},
            "finetuning.lora.rank",
            "no configuration with the other values of this point has this dimension; remove it, or select the branch",
        ),
    ],
)
def test_a_point_to_evaluate_outside_the_space_is_one_clear_line(
    space_content: Content, write_space: WriteSpace, point: Content, path: str, message: str
) -> None:
    legal = {"finetuning": "lora", "finetuning.lora.rank": 4, "batch_size": 8, "window_tokens": 96, "backbone": "tiny"}
    content = space_content | {"algorithm": {"points_to_evaluate": [legal, point]}}
    (fault,) = read_faults(write_space(content))
    assert fault.startswith(f"space.yaml: algorithm.points_to_evaluate.1.{path}: {message}")


def test_a_point_with_dimensions_of_two_architectures_is_one_clear_line(
    space_content: Content, write_space: WriteSpace
) -> None:
    content = copy.deepcopy(space_content)
    content["backbones"]["writer"] = {
        "scratch": {**content["backbones"]["tiny"]["scratch"], "model_type": "llama"},
        "allow_frozen": True,
    }
    content["space"]["backbone"] = {"choose": ["tiny", "writer"]}
    content["space"]["formulation"] = {"choose": {"token_classification": {}, "generation": {}}}
    content["space"]["finetuning"] = {"choose": {"full": {}, "bitfit": {}}}
    point = {"backbone": "writer", "finetuning.encoder": "bitfit"}
    (fault,) = read_faults(write_space(content | {"algorithm": {"points_to_evaluate": [point]}}))
    assert fault.startswith("space.yaml: algorithm.points_to_evaluate.0.finetuning.encoder: no configuration")


def test_one_fault_gives_one_line(space_content: Content, write_space: WriteSpace) -> None:
    for override in (
        "task=concept",
        "resources.workers_per_trial=0",
        "space.batch_size={choose: [0, 8]}",
        "space.window_tokens=7",
        "space.formulation=generation",
        "space.backbone={int: [2, 1]}",
        "backbones.tiny=3",
        "algorithm.sampler=tep",
    ):
        assert len(read_faults(write_space(space_content), override)) == 1, override


@pytest.mark.parametrize("block", ["version", "study", "corpus", "space"])
def test_a_missing_block_does_not_hide_other_faults(
    space_content: Content, write_space: WriteSpace, block: str
) -> None:
    content = {key: value for key, value in space_content.items() if key != block}
    faults = read_faults(write_space(content), "algorithm.sampler=tep")
    assert f"space.yaml: {block}: Field required" in faults
    assert any(line.startswith("space.yaml: algorithm.sampler: unknown sampler") for line in faults)


def test_a_search_requires_the_corpus_and_a_plan_does_not(space_content: Content, write_space: WriteSpace) -> None:
    file = write_space(space_content)
    with pytest.raises(InputError, match=r"space\.yaml: corpus\.path: no folder /no/such/folder"):
        validate_space(str(file), ["corpus.path=/no/such/folder"])
    planned = search.plan(file, ["corpus.path=/no/such/folder"], samples=1)
    assert "no folder /no/such/folder" in planned.note
    faults = read_faults(file, "corpus.path=/no/such/folder", "space.batch_size=0")
    assert len(faults) == 2


def test_a_parameter_combination_that_a_method_refuses_is_a_fault(
    space_content: Content, write_space: WriteSpace
) -> None:
    override = "space.finetuning={lora: {layers_from: 0.5, layers_to: 0.5}}"
    (fault,) = read_faults(write_space(space_content), override)
    assert fault == "space.yaml: space.finetuning.lora: layers_from must be below layers_to"


def test_type_names_that_the_corpus_does_not_have_are_faults(space_content: Content, write_space: WriteSpace) -> None:
    file = write_space(space_content)
    types = "types: Drug, ADE, Dosage, Frequency, Problem, Test, Tobacco; correct the name, or remove it"
    assert read_faults(
        file,
        "corpus.concept_types=[drug, ADE, Xyz]",
        "corpus.relation_types=[Dosage-Drugs]",
        "corpus.merge_types={Pill: [Drgu]}",
    ) == [
        f"space.yaml: corpus.merge_types.Pill: no concept in train or dev has the type 'Drgu'; {types}",
        f"space.yaml: corpus.concept_types: no concept in train or dev has the type 'drug' or 'Xyz'; {types}",
        "space.yaml: corpus.relation_types: no relation in train or dev has the type 'Dosage-Drugs'; types:"
        " Dosage-Drug, ADE-Drug, Frequency-Drug, Test-Problem; correct the name, or remove it",
    ]
    view = "corpus.concept_types=[Medication, ADE]"
    assert search.plan(file, [view, "corpus.merge_types={Medication: [Drug]}"], samples=1).note == ""
    several = [{**space_content["corpus"], "name": name, "concept_types": ["ADEs"]} for name in "ab"]
    question: Content = {"span_question": {}}
    content = {**space_content, "corpus": several, "space": {**space_content["space"], "formulation": question}}
    places = [line.split(": no concept")[0] for line in read_faults(write_space(content))]
    assert places == ["space.yaml: a: corpus.concept_types", "space.yaml: b: corpus.concept_types"]


def test_the_format_of_a_corpus_is_detected_in_its_places(
    space_content: Content, write_space: WriteSpace, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(space_content["corpus"]["path"], corpus / "notes")
    splits = load_corpus(discover_splits(corpus / "notes")).splits
    for split, documents in splits.items():
        Jsonl().write(documents, corpus / "lines" / split)
    file = str(write_space({**space_content, "corpus": {"path": str(corpus)}}))
    with pytest.raises(InputError, match=r"files of several formats: jsonl|files of several formats: brat|not read"):
        validate_space(file)
    for folder, format_ in (("notes", "brat"), ("lines", "jsonl")):
        validated = validate_space(file, [f"corpus.splits={{train: {folder}/train, dev: {folder}/dev}}"])
        assert [source.format for source in validated.file.corpus] == [format_]
        assert validated.detections["small"].format == format_
        again = validate_space_file(validated.file, "space.yaml")
        assert not again.detections
        assert again.corpus is not None
        assert validated.corpus is not None
        assert again.corpus.digest() == validated.corpus.digest()
        assert again.file.digest() == validated.file.digest()


def test_unread_files_of_the_corpus_are_faults_unless_the_space_ignores_them(
    space_content: Content, write_space: WriteSpace, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(space_content["corpus"]["path"], corpus)
    (corpus / "notes.pdf").write_bytes(b"")
    file = str(write_space({**space_content, "corpus": {"path": str(corpus)}}))
    with pytest.raises(InputError, match=r"notes.pdf: not read; .* corpus.ignore: \['notes.pdf'\]"):
        validate_space(file, [])
    assert validate_space(file, ["corpus.ignore=['*.pdf']"]).corpus is not None
    named = "corpus.splits={train: train, dev: dev, test: test}"
    assert validate_space(file, [named]).corpus is not None


@pytest.mark.parametrize(
    ("methods", "named"), [("ia3", "ia3"), (["bitfit", "ia3"], "bitfit and ia3"), (["full", "ia3"], "ia3")]
)
def test_a_method_that_would_freeze_random_weights_only_is_one_fault(
    methods: object, named: str, space_content: dict[str, Any], write_space: Callable[[Mapping[str, Any]], Path]
) -> None:
    content = copy.deepcopy(space_content)
    content["space"]["finetuning"] = methods
    validate_space(str(write_space(content)))
    del content["backbones"]["tiny"]["allow_frozen"]
    with pytest.raises(InputError) as error:
        validate_space(str(write_space(content)))
    assert list(map(str, error.value.problems)) == [
        f"space.yaml: space.finetuning: {named} would freeze the random weights of backbone 'tiny';"
        " use full or a pretrained backbone, or set backbones.tiny.allow_frozen to true"
    ]


def test_a_point_with_frozen_random_weights_is_a_fault(
    space_content: dict[str, Any], write_space: Callable[[Mapping[str, Any]], Path]
) -> None:
    content = copy.deepcopy(space_content)
    content["backbones"]["random"] = {"scratch": content["backbones"]["tiny"]["scratch"]}
    content["space"]["backbone"] = {"choose": ["tiny", "random"]}
    content["algorithm"]["points_to_evaluate"] = [{"backbone": "random", "finetuning": "full"}]
    validate_space(str(write_space(content)))
    content["algorithm"]["points_to_evaluate"] = [{"backbone": "random", "finetuning": "lora"}]
    with pytest.raises(InputError, match=r"points_to_evaluate.0.finetuning: no configuration with the other values"):
        validate_space(str(write_space(content)))
