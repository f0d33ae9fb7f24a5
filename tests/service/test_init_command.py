"""The command that writes a first space for a corpus."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from clinie_core.data.corpora.brat import Brat
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.errors import InputError
from search.cli.main import app
from search.config.space_reading import read_space_file
from search.config.validation import validate_space


def test_the_defaults_give_a_valid_space_and_a_cost(corpus_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    done = CliRunner().invoke(app, ["init", str(corpus_folder), "--yes", "-o", str(file)])
    assert done.exit_code == 0, done.output
    assert "estimated cost: " in done.output
    validated = validate_space(str(file), plan_only=True)
    assert validated.corpus is not None
    assert validated.file.task == "joint"  # the synthetic notes have relations
    assert set(dict(validated.space.dimensions())) >= {"backbone", "finetuning", "batch_size"}
    again = CliRunner().invoke(app, ["init", str(corpus_folder), "--yes", "-o", str(file)])
    assert isinstance(again.exception, InputError)
    assert "the file exists already" in str(again.exception)


def test_wrong_answers_are_asked_again_and_answers_determine_the_space(corpus_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    lines = ["both", "concepts", "UFNLP/gatortron-base, meta-llama/Llama-3.1-8B", "loraa", "lora, qlora"]
    lines += ["lenient_f1", "never", "3"]
    done = CliRunner().invoke(app, ["init", str(corpus_folder), "-o", str(file)], input="\n".join(lines) + "\n")
    assert done.exit_code == 0, done.output
    for wrong in ("'both'; allowed: concepts", "'loraa'; allowed: full", "'never'; allowed: a number above 0"):
        assert wrong in done.output
    space = read_space_file(str(file))[0]
    assert space.task == "concepts"
    assert space.objective[0].metric == "lenient_f1"
    assert space.budget.hours == 3
    assert space.space["finetuning"] == {"choose": {"lora": {}, "qlora": {}}}
    formulations = space.space["formulation"]
    assert isinstance(formulations, dict)
    assert set(formulations["choose"]) == {"token_classification", "generation"}  # type: ignore[arg-type]


def test_a_corpus_without_splits_is_divided(tmp_path: Path) -> None:
    notes = [note for split in generate_splits(20, seed=3).values() for note in split]
    Brat().write(notes, tmp_path / "notes")
    done = CliRunner().invoke(app, ["init", str(tmp_path / "notes"), "--yes", "-o", str(tmp_path / "space.yaml")])
    assert done.exit_code == 0, done.output
    assert "14 train, 3 dev documents" in done.output
