"""The tasks relations and joint, and generation, from search to promotion, prediction and evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from clinie_core.data.corpora.brat import Brat

RunClinie = Callable[..., Any]
WriteSpace = Callable[[Mapping[str, Any]], Path]
DECODER = {
    **{"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"intermediate_size": 64, "max_position_embeddings": 2048},
}
CASES: dict[str, dict[str, Any]] = {
    "relations": {
        "task": "relations",
        "space": {"backbone": "tiny", "formulation": {"marked_pairs": {"pair_tokens": 64}}, "finetuning": "full"},
    },
    "joint": {
        "task": "joint",
        "objective": {"maximize": "relation_strict_f1"},
        "space": {
            "backbone": "tiny",
            "formulation": "token_classification",
            "relation_formulation": {"marked_pairs": {"pair_tokens": 64}},
            "finetuning": "full",
        },
    },
    "generation": {
        "task": "joint",
        "space": {
            "backbone": "decoder",
            "formulation": {"generation": {"template": "json", "instruction": "short", "constrained": True}},
            "finetuning": "lora",
            "train_documents": 4,
            "window_tokens": 500,
        },
    },
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n != "generation" else []) for n in CASES]
)
def test_a_task_from_search_to_prediction(
    name: str,
    tmp_path: Path,
    corpus_folder: Path,
    space_content: dict[str, Any],
    write_space: WriteSpace,
    clinie: RunClinie,
) -> None:
    case = CASES[name]
    content = space_content | {k: v for k, v in case.items() if k != "space"}
    content["budget"] = {"trials": 1, "epochs": 1}
    content["backbones"] = {**content["backbones"], "decoder": {"scratch": DECODER, "allow_frozen": True}}
    content["space"] = {"window_tokens": 96, "window_overlap": 16, **case["space"]}
    if name == "generation":  # decoding is slow: one document per split is enough
        one = tmp_path / "corpus"
        for split in ("train", "dev", "test"):
            notes = Brat().read_all(corpus_folder / split)
            Brat().write(notes[: 6 if split == "train" else 1], one / split)
        content["corpus"], corpus_folder = {"path": str(one)}, one
        content["space"]["finetuning"] = {"lora": {"rank": 4, "learning_rate": 0.001}}
    home = tmp_path / "home"
    searched = clinie("search", write_space(content), "--home", home, "--json")
    assert searched.returncode == 0, searched.stderr
    (trial,) = json.loads(searched.stdout)["trials"]
    assert trial["state"] == "complete"
    if case["task"] == "joint":
        assert {"concept_strict_f1", "relation_strict_f1"} <= set(trial["metrics"])
    if name == "generation":
        assert {"malformed_rate", "hallucinated_rate"} <= set(trial["metrics"])

    lenient = tmp_path / "policy.yaml"
    lenient.write_text("version: 1\n")  # one epoch of a tiny model scores near zero
    promoted = clinie("promote", "small", "--name", "model", "--policy", lenient, "--home", home, "--json")
    assert promoted.returncode == 0, promoted.stderr
    scored = clinie("evaluate", corpus_folder, "--model", "model@champion", "--split", "test", "--home", home, "--json")
    assert scored.returncode == 0, scored.stderr
    test = json.loads(promoted.stdout)["decision"]["test"]
    assert {k: json.loads(scored.stdout)[k] for k in test} == test

    note = sorted((corpus_folder / "test").glob("*.txt"))[0]
    predicted = clinie("predict", note, "--model", "model@champion", "--home", home, "--output", tmp_path / "out")
    assert predicted.returncode == 0, predicted.stderr
    (found,) = Brat().read_all(tmp_path / "out")
    (gold,) = (d for d in Brat().read_all(corpus_folder / "test") if d.id == note.stem)
    assert found.text == gold.text
    if case["task"] == "relations":
        assert {c.extent for c in found.concepts} == {c.extent for c in gold.concepts}
        bare = tmp_path / "bare.txt"
        bare.write_text(gold.text, encoding="utf-8")
        refused = clinie("predict", bare, "--model", "model@champion", "--home", home)
        assert refused.returncode == 2
        assert (
            "between given concepts, and no concepts are given; a brat file bare.ann in the same folder"
            in refused.stderr
        )
