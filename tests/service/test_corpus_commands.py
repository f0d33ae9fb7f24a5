"""The commands ``clinie data``: formats, check, stats, convert and split."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RunClinie = Callable[..., subprocess.CompletedProcess[str]]


def test_formats_are_listed_with_examples(clinie: RunClinie) -> None:
    rows = json.loads(clinie("data", "formats", "--json").stdout)
    assert rows["brat"] == "NAME.txt with NAME.ann beside it"
    assert set(rows) >= {"i2b2", "radgraph", "bioc_xml", "bioc_json", "pubtator", "conll", "jsonl", "hf_dataset"}
    shown = clinie("data", "formats").stdout
    assert all(name in shown for name in rows)


def test_conversion_reports_losses(corpus_folder: Path, tmp_path: Path, clinie: RunClinie) -> None:
    done = clinie("data", "convert", corpus_folder, tmp_path / "lines", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["lost"] == {}
    back = clinie("data", "convert", tmp_path / "lines", tmp_path / "brat", "--format", "jsonl", "--to", "brat")
    assert "nothing was lost" in back.stdout
    stats = [clinie("data", "stats", folder, "--json").stdout for folder in (corpus_folder, tmp_path / "brat")]
    assert stats[0] == stats[1]
    columns = clinie("data", "convert", corpus_folder, tmp_path / "columns", "--to", "conll")
    assert columns.returncode == 0
    assert "relations: conll cannot represent them" in columns.stdout


def test_invalid_corpus_is_not_partially_converted(corpus_folder: Path, tmp_path: Path, clinie: RunClinie) -> None:
    shutil.copytree(corpus_folder, tmp_path / "corpus")
    victim = sorted((tmp_path / "corpus" / "dev").glob("*.ann"))[0]
    victim.write_text(victim.read_text() + "T99\tDrug 0 999999\tx\n")
    done = clinie("data", "convert", tmp_path / "corpus", tmp_path / "out")
    assert done.returncode == 2
    assert str(victim) in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus"]


def test_ids_are_hashed_on_request(corpus_folder: Path, tmp_path: Path, clinie: RunClinie) -> None:
    shutil.copytree(corpus_folder, tmp_path / "corpus")
    victim = sorted((tmp_path / "corpus" / "dev").glob("*.ann"))[0]
    victim.write_text(victim.read_text() + "T99\tDrug 0 999999\tx\n")
    settings = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    by_option = clinie("data", "check", tmp_path / "corpus", "--ids", "hash", **settings)
    by_variable = clinie("data", "check", tmp_path / "corpus", CLINIE_IDS="hash", **settings)
    assert by_option.returncode == by_variable.returncode == 2
    assert by_option.stderr == by_variable.stderr
    assert victim.stem not in by_option.stderr + by_option.stdout
    assert f"error {victim.parent}/id-" in by_option.stderr
    (tmp_path / "file").touch()
    unusable = clinie("data", "check", corpus_folder, "--ids", "hash", XDG_CONFIG_HOME=str(tmp_path / "file"))
    assert unusable.returncode == 2
    assert unusable.stderr.startswith("error --ids: the key ")


def test_archive_is_checked_like_a_folder(corpus_folder: Path, tmp_path: Path, clinie: RunClinie) -> None:
    archive = shutil.make_archive(str(tmp_path / "notes"), "zip", corpus_folder)
    done = clinie("data", "check", archive, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout == clinie("data", "check", corpus_folder, "--json").stdout


def test_the_format_is_detected_and_named(corpus_folder: Path, tmp_path: Path, clinie: RunClinie) -> None:
    assert clinie("data", "check", corpus_folder).stdout.startswith("format brat, detected from ")
    clinie("data", "convert", corpus_folder, tmp_path / "tasks", "--to", "label_studio")
    checked = json.loads(clinie("data", "check", tmp_path / "tasks", "--json").stdout)
    assert checked["format"] == "label_studio"
    assert sum(checked["documents"].values()) == 20
    scored = clinie("data", "score", corpus_folder, tmp_path / "tasks", "--json")
    assert json.loads(scored.stdout)["strict_f1"] == 1.0
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "a.xml").write_text("<GateDocument/>")
    refused = clinie("data", "check", tmp_path / "export")
    assert refused.returncode == 2
    assert "a.xml: the format is GATE XML, which is not supported" in refused.stderr


def test_unread_files_are_errors_of_every_command_unless_ignored(
    corpus_folder: Path, tmp_path: Path, clinie: RunClinie
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(corpus_folder, corpus)
    for name in ("dev/1.a1", "dev/2.a1", "train/.DS_Store", "README.md"):
        (corpus / name).write_text("")
    for command in (("check",), ("stats",), ("convert", tmp_path / "out"), ("split", tmp_path / "lists")):
        done = clinie("data", command[0], corpus, *command[1:])
        assert done.returncode == 2
        assert f"{corpus}/dev/1.a1: not read, like 1 other .a1 files" in done.stderr
        assert f"{corpus}/README.md: not read" in done.stderr
        assert ".DS_Store" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus"]
    ignored = ("--ignore", "*.a1", "--ignore", "README.md")
    done = clinie("data", "check", corpus, *ignored, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    stats = json.loads(clinie("data", "stats", corpus_folder, "--json").stdout)
    assert found["splits"] == {
        split: {
            "documents": counts["documents"],
            "unread_files": 2 if split == "dev" else 0,
            "concepts": sum(counts["concepts"].values()),
            "overlapping": 0,
            "representable": 1.0,
            "by_type": dict.fromkeys(counts["concepts"], 1.0),
            "lost": {},
        }
        for split, counts in stats.items()
    }
    assert (found["files"], found["unread_files"]) == (40, 3)
    shown = clinie("data", "check", corpus, *ignored).stdout
    assert "20 documents read from 40 files, 3 files ignored, no errors" in shown
    converted = clinie("data", "convert", corpus, tmp_path / "out", *ignored)
    assert "from 40 files" in " ".join(converted.stdout.split())


def test_check_counts_the_concepts_that_labels_of_words_and_a_space_can_express(
    tmp_path: Path, clinie: RunClinie, space_content: dict[str, Any], write_space: Callable[[dict[str, Any]], Path]
) -> None:
    notes = {
        "train": "T1\tP 3 13\tchest pain\nT2\tSite 3 8\tchest\nT3\tP 16 20\tever\nT4\tP 3 8;15 20\tchest fever\n",
        "dev": "T1\tP 3 13\tchest pain\nT2\tP 15 20\tfever\n",
    }
    for split, lines in notes.items():
        (tmp_path / "notes" / split).mkdir(parents=True)
        (tmp_path / "notes" / split / f"{split}.txt").write_text("No chest pain, fever.")
        (tmp_path / "notes" / split / f"{split}.ann").write_text(lines)
    branches: dict[str, Any] = {"token_classification": {}, "span_pointer": {}}
    space = write_space({**space_content, "space": {**space_content["space"], "formulation": {"choose": branches}}})
    done = clinie("data", "check", tmp_path / "notes", "--space", space, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    train = {"overlapping": 3, "representable": 0.0, "by_type": {"P": 0.0, "Site": 0.0}}
    lost = {"unit boundary": 1, "overlap": 2, "discontinuous": 1}
    assert found["splits"]["train"] == {"documents": 1, "unread_files": 0, "concepts": 4, **train, "lost": lost}
    assert found["splits"]["dev"]["representable"] == 1.0
    shares = {row["formulation"]: row["splits"]["train"]["representable"] for row in found["representable"]}
    assert shares == {"token_classification": 0.0, "span_pointer": 0.5}
    assert sum("of the 4 concepts of train" in warning for warning in found["warnings"]) == 2
    shown = clinie("data", "check", tmp_path / "notes", "--space", space).stdout
    assert "maximum recall of exact concepts: 50.0 % of train (1 documents), 100.0 % of dev (1 documents)" in shown
    assert [line.split()[-2:] for line in shown.splitlines() if line.split()[:1] == ["train"]] == [["0.00", "%"]]


def test_a_corpus_without_annotations_is_an_error_of_check(tmp_path: Path, clinie: RunClinie) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "n.txt").write_text("No pain.")
    done = clinie("data", "check", tmp_path / "notes")
    assert done.returncode == 2
    assert "no concept in train; annotations in NAME.txt with NAME.ann beside it" in done.stderr
    assert json.loads(clinie("data", "stats", tmp_path / "notes", "--json").stdout)["train"]["characters"] == 8
    converted = clinie("data", "convert", tmp_path / "notes", tmp_path / "out")
    assert "no concept was found; check --format brat" in converted.stdout
    assert "nothing was lost" not in converted.stdout


def test_types_missing_from_annotation_conf_are_warnings(
    corpus_folder: Path, tmp_path: Path, clinie: RunClinie
) -> None:
    shutil.copytree(corpus_folder, tmp_path / "corpus")
    (tmp_path / "corpus" / "annotation.conf").write_text(
        "[entities]\nProblem\n\tTest # a comment\nDrug\nDosage\nFrequency\nTobacco\n[relations]\n"
    )
    done = clinie("data", "check", tmp_path / "corpus", "--json")
    assert done.returncode == 0
    assert [w for w in json.loads(done.stdout)["warnings"] if "not declared" in w] == [
        "annotation.conf: type ADE is used but not declared; declare it, or correct the annotations"
    ]


def test_split_lists_define_the_splits_of_a_corpus(corpus_folder: Path, tmp_path: Path, clinie: RunClinie) -> None:
    arguments = ("data", "split", corpus_folder, tmp_path / "lists", "--shots", "2,5", "--group", r"(\d)$", "--json")
    counts = json.loads(clinie(*arguments).stdout)["documents"]
    assert set(counts) == {"train.list", "dev.list", "test.list", "train-2.list", "train-5.list"}
    lists = {name: (tmp_path / "lists" / name).read_text().split() for name in counts}
    parts = [lists[f"{split}.list"] for split in ("train", "dev", "test")]
    assert sum(map(len, parts)) == 20
    patients = [{id_[-1] for id_ in part} for part in parts]
    assert not patients[0] & patients[1] | patients[0] & patients[2] | patients[1] & patients[2]
    assert lists["train-2.list"] == lists["train-5.list"][:2]
    folds = json.loads(clinie("data", "split", corpus_folder, tmp_path / "f", "--folds", "4", "--json").stdout)
    sizes = [folds["documents"][f"fold-{i}/dev.list"] for i in range(4)]
    assert sum(sizes) == 20
    assert max(sizes) - min(sizes) <= 2  # stratification by type takes precedence over size

    clinie("data", "convert", corpus_folder, tmp_path / "all", "--to", "brat")
    for part in ("train", "dev", "test"):
        for file in (tmp_path / "all" / part).iterdir():
            file.rename(tmp_path / "all" / file.name)
        (tmp_path / "all" / part).rmdir()
        shutil.copy(tmp_path / "lists" / f"{part}.list", tmp_path / "all")
    stats = json.loads(clinie("data", "stats", tmp_path / "all", "--json").stdout)
    assert {split: counts["documents"] for split, counts in stats.items()} == {
        split: len(lists[f"{split}.list"]) for split in ("train", "dev", "test")
    }
    (tmp_path / "all" / "dev.list").write_text("unknown\n")
    assert "there is no document unknown" in clinie("data", "check", tmp_path / "all").stderr


def test_existing_lists_are_replaced_only_on_request(corpus_folder: Path, tmp_path: Path, clinie: RunClinie) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "dev.list").write_text("mine\n")
    arguments = ("data", "split", corpus_folder, lists)
    done = clinie(*arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error {lists / 'dev.list'}: the file exists already; a new file; remove it, name another, or pass --overwrite"
    ]
    assert {file.name: file.read_text() for file in lists.iterdir()} == {"dev.list": "mine\n"}
    assert clinie(*arguments, "--overwrite").returncode == 0
    assert {file.name for file in lists.iterdir()} == {"train.list", "dev.list", "test.list"}
    assert len((lists / "dev.list").read_text().split()) == 3


def test_existing_corpora_are_replaced_only_on_request(corpus_folder: Path, tmp_path: Path, clinie: RunClinie) -> None:
    out = tmp_path / "out"
    for arguments in (("synth", out, "--documents", "12"), ("convert", corpus_folder, out, "--to", "brat")):
        shutil.rmtree(out, ignore_errors=True)
        (out / "train").mkdir(parents=True)
        (out / "train" / "mine.ann").write_text("mine")
        command = ("data", *arguments)
        done = clinie(*command)
        assert done.returncode == 2
        assert f"error {out}: exists and is not empty" in done.stderr
        assert "or pass --overwrite" in done.stderr
        assert [f.name for f in out.rglob("*") if f.is_file()] == ["mine.ann"]
        assert clinie(*command, "--overwrite").returncode == 0
        first = {f: f.read_text() for f in out.rglob("*") if f.is_file()}
        assert first[out / "train" / "mine.ann"] == "mine"
        replaced = next(f for f in first if f.suffix == ".txt")
        replaced.write_text("changed")
        assert clinie(*command, "--overwrite").returncode == 0
        assert {f: f.read_text() for f in out.rglob("*") if f.is_file()} == first


def test_a_conversion_into_its_own_corpus_does_not_read_its_output(
    corpus_folder: Path, tmp_path: Path, clinie: RunClinie
) -> None:
    shutil.copytree(corpus_folder, tmp_path / "corpus")
    arguments = ("data", "convert", tmp_path / "corpus", tmp_path / "corpus" / "out", "--to", "brat", "--overwrite")
    assert clinie(*arguments).returncode == 0
    done = clinie(*arguments)
    assert done.returncode == 2
    assert "is in the corpus and is not empty; a folder outside the corpus" in done.stderr


def test_conversion_keeps_neighbouring_folders(corpus_folder: Path, tmp_path: Path, clinie: RunClinie) -> None:
    (tmp_path / "lines.part").mkdir()
    (tmp_path / "lines.part" / "notes").write_text("mine")
    assert clinie("data", "convert", corpus_folder, tmp_path / "lines").returncode == 0
    assert {file.name for file in tmp_path.iterdir()} == {"lines", "lines.part"}
    assert (tmp_path / "lines.part" / "notes").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--format", "brta"), "unknown corpus format 'brta'"),
        (("--dev", "0.6", "--test", "0.6"), "less than 1"),
        (("--folds", "99"), "the number of patients"),
        (("--shots", "5,x"), "not a list of numbers"),
        (("--shots", "500"), "at most the"),
        (("--group", "metadata:patient"), "has no metadata 'patient'"),
    ],
)
def test_invalid_input_is_one_line_and_writes_nothing(
    corpus_folder: Path, tmp_path: Path, clinie: RunClinie, arguments: tuple[str, ...], expected: str
) -> None:
    done = clinie("data", "split", corpus_folder, tmp_path / "lists", *arguments)
    assert done.returncode == 2
    assert expected in done.stderr
    assert not (tmp_path / "lists").exists()
