"""The command line: fast help, plans, corpus commands, and errors with exit code 2."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

RunClinie = Callable[..., subprocess.CompletedProcess[str]]
WriteSpace = Callable[[Mapping[str, Any]], Path]

LIST_HEAVY_IMPORTS = """
import sys
from search.cli.main import main
sys.argv = ["clinie", *sys.argv[1:]]
try:
    main()
finally:
    heavy = {"torch", "ray", "mlflow", "optuna", "transformers"} & set(sys.modules)
    print("heavy:", sorted(heavy), file=sys.stderr)
"""


def test_a_study_is_read_without_the_packages_of_a_search() -> None:
    program = "import search.api, sys; print({'torch', 'ray', 'mlflow', 'transformers', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["spaces"], ["plan", "wrong.yaml"]])
def test_help_and_an_invalid_space_import_no_heavy_package(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("version: 1\nstudy: x\ncorpus: {path: .}\nspace: {batch_size: 0}\n")
    done = subprocess.run(
        [sys.executable, "-c", LIST_HEAVY_IMPORTS, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert "heavy: []" in done.stderr
    assert done.returncode == (2 if "wrong.yaml" in arguments else 0), done.stderr


def test_every_command_has_help(clinie: RunClinie) -> None:
    listed = clinie("--help").stdout
    for command in (
        "data plan search resume repeat status transfer spaces report best compare promote history rollback copy"
        " predict evaluate serve ui doctor"
    ).split():
        assert command in listed
        arguments = [command, "synth", "--help"] if command == "data" else [command, "--help"]
        assert clinie(*arguments).returncode == 0


def test_version_prints_the_package_version(clinie: RunClinie) -> None:
    done = clinie("--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"clinie {version('clinie')}\n"


def test_plan_shows_dimensions_and_sizes(
    space_content: dict[str, Any], write_space: WriteSpace, clinie: RunClinie
) -> None:
    done = clinie("plan", write_space(space_content), "space.finetuning=full", "--samples", "3", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["configurations"] is None  # a learning rate is a real number
    assert plan["dimensions"]["batch_size"] == "choose 8, 16 (prior 8)"
    assert plan["corpus"] == "read"
    assert len(plan["samples"]) == 3
    for sample in plan["samples"]:
        assert sample["trainable_parameters"] == sample["total_parameters"]
        assert sample["memory_mb"] > 0
    shown = clinie("plan", write_space(space_content))
    assert "configurations: infinite" in shown.stdout
    shares = "100.0 % of train (14 documents), 100.0 % of dev (3 documents)"
    assert f"representable concepts: {shares}, by token_classification with tiny" in shown.stdout
    assert plan["representable"][0]["splits"]["dev"]["representable"] == 1.0


def test_synth_check_and_stats_agree(tmp_path: Path, clinie: RunClinie) -> None:
    folder = tmp_path / "corpus"
    assert clinie("data", "synth", folder, "--documents", "30").returncode == 0
    again = clinie("data", "synth", folder)
    assert again.returncode == 2
    assert "exists and is not empty" in again.stderr
    check = json.loads(clinie("data", "check", folder, "--json").stdout)
    stats = json.loads(clinie("data", "stats", folder, "--json").stdout)
    assert check["documents"] == {split: row["documents"] for split, row in stats.items()}
    assert sum(check["documents"].values()) == 30
    assert check["concepts"]["in all"] == sum(sum(row["concepts"].values()) for row in stats.values())
    assert check["concepts"]["overlapping an earlier one"] == 0
    assert "concepts: Drug" in clinie("data", "stats", folder).stdout


def test_corpus_errors_name_file_and_line(tmp_path: Path, clinie: RunClinie) -> None:
    for split in ("train", "dev"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.txt").write_text("no fever\n")
    (tmp_path / "train" / "a.ann").write_text("T1\tProblem 3 80\tfever\n")
    (tmp_path / "dev" / "b.ann").write_text("")
    done = clinie("data", "check", tmp_path)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert any("train/a.ann:1: T1: offsets 3:80 lie outside the text of 9 characters" in line for line in lines)
    assert any("dev/b.ann: the text b.txt is missing" in line for line in lines)
    assert "Traceback" not in done.stderr


def test_a_type_missing_from_train_is_a_warning(tmp_path: Path, clinie: RunClinie) -> None:
    for split, type_ in (("train", "Problem"), ("dev", "Drug")):
        (tmp_path / split).mkdir()
        (tmp_path / split / f"{split}.txt").write_text("no fever\n")
        (tmp_path / split / f"{split}.ann").write_text(f"T1\t{type_} 3 8\tfever\n")
    done = clinie("data", "check", tmp_path)
    assert done.returncode == 0
    assert "type Drug occurs 1 times here and never in train" in done.stdout


def test_invalid_input_creates_no_home_folder(
    space_content: dict[str, Any], write_space: WriteSpace, tmp_path: Path, clinie: RunClinie
) -> None:
    space, home = write_space(space_content), tmp_path / "home"
    cases = {
        ("corpus.path=/no/such/folder",): "corpus.path: no folder /no/such/folder",
        ("corpus.splits.dev=missing",): "corpus.splits.dev: no documents in",
        ("corpus.splits={train: train}",): "corpus.splits: no dev split is named",
        ("corpus.format=bart",): "corpus.format: unknown corpus format 'bart'; allowed: brat, jsonl, i2b2",
        ("corpus.splits={train: train, dev: train}",): "is also in train; keep it in one split",
        ("algorithm.sampler=tep",): "algorithm.sampler: unknown sampler 'tep'; allowed: auto, tpe",
        ("algorithm.scheduler=ashes",): "algorithm.scheduler: unknown scheduler 'ashes'",
        ("algorithm.points_to_evaluate=[{lr: 1}]",): "algorithm.points_to_evaluate.0.lr: not a dimension of the space",
        ("budget.trials",): "budget.trials: not an override; key.path=value",
    }
    for overrides, expected in cases.items():
        done = clinie("search", space, *overrides, "--home", home)
        assert done.returncode == 2, (overrides, done.stderr)
        assert expected in done.stderr, (overrides, done.stderr)
        assert "Traceback" not in done.stderr
        assert not home.exists()


def test_unwritable_and_missing_home_folders_are_errors(
    space_content: dict[str, Any], write_space: WriteSpace, tmp_path: Path, clinie: RunClinie
) -> None:
    (tmp_path / "file").write_text("")
    done = clinie("search", write_space(space_content), "--home", tmp_path / "file" / "home")
    assert done.returncode == 2
    assert "--home: " in done.stderr
    assert "cannot be written" in done.stderr
    missing = clinie("status", "--home", tmp_path / "nowhere")
    assert missing.returncode == 2
    assert "--home: no folder" in missing.stderr


def test_the_wheel_contains_both_packages_with_their_data_files(tmp_path: Path) -> None:
    checkout = Path(__file__).parents[2]
    root = tmp_path / "sources"  # setuptools writes its build folder beside the sources
    for name in ("clinie_core", "search", "spaces"):
        shutil.copytree(checkout / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(checkout / name, root)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(root)],
        check=True,
        capture_output=True,
        env=dict(os.environ),
    )
    import zipfile

    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {"clinie_core", "search"}
    assert {"search/spaces/quickstart.yaml", "search/py.typed", "clinie_core/py.typed"} <= set(names)
    suffixes = {".py", ".yaml", ".html"}
    files = {p for d in ("clinie_core", "search") for p in (root / d).rglob("*") if p.suffix in suffixes}
    assert {str(p.relative_to(root)) for p in files} <= set(names)
