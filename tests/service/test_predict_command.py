"""The command ``clinie predict``: files that it reads and writes, without a registry of models."""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas
import pytest

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.data.corpora.brat import Brat
from clinie_core.data.document import Corpus, Document
from clinie_core.errors import InputError
from clinie_core.inference.extractor import Extractor, annotations_to_json
from clinie_core.inference.notes import find_notes, read_annotated_notes, read_notes
from clinie_core.training.train import train
from search.cli import models
from search.cli.main import main

TEXT = "No chest pain.\r\nShe takes aspirin 10mg, she said.\n"
GOLD = "T1\tGold 3 13\tchest pain\nA1\tNegated T1\n"


@dataclass
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str
    predictions: int


@dataclass
class Command:
    """Function that runs ``clinie predict`` in this process, with a model that is not registered."""

    extractor: Extractor
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    annotated: list[int] = field(default_factory=list)

    def __call__(self, *arguments: str | Path, stdin: bytes = b"") -> Outcome:
        """Run the command and return its exit code and output."""
        annotate = self.extractor.annotate

        def record(documents: Any) -> Any:
            self.annotated.append(len(documents))
            return annotate(documents)

        with self.monkeypatch.context() as patch:
            patch.setattr(self.extractor, "annotate", record)
            patch.setattr(models, "load_extractor", lambda *_: self.extractor)
            patch.setattr(sys, "argv", ["clinie", "predict", *map(str, arguments), "--model", "model@champion"])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
            with pytest.raises(SystemExit) as stopped:
                main()
        shown = self.capsys.readouterr()
        return Outcome(int(stopped.value.code or 0), shown.out, shown.err, sum(self.annotated))


@pytest.fixture(scope="module")
def extractor(corpus: Corpus, tiny_backbone: BackboneSource, tmp_path_factory: pytest.TempPathFactory) -> Extractor:
    folder = tmp_path_factory.mktemp("model")
    config = TrialConfig(
        backbone=tiny_backbone,
        formulation=ComponentChoice(name="token_classification"),
        finetuning=ComponentChoice(name="full", parameters={"learning_rate": 3e-3}),
        epochs=1,
        window_tokens=96,
        window_overlap=16,
        precision="float32",
    )
    train(config, Corpus({"train": corpus["train"], "dev": corpus["dev"]}), folder=folder)
    return Extractor.load(folder / "best")


@pytest.fixture
def predict(extractor: Extractor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(extractor, monkeypatch, capsys)


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.mark.parametrize("to", ["brat", "jsonl", "bioc_xml"])
def test_existing_files_are_kept(predict: Command, tmp_path: Path, to: str) -> None:
    gold = write_files(tmp_path / "gold", {"n.txt": TEXT, "n.ann": GOLD, "documents.jsonl": "mine"})
    before = read_files(tmp_path)
    done = predict(gold, "-o", gold, "--to", to)
    assert done.code == 2
    assert done.err.splitlines() == [
        f"error {gold}: exists and is not empty; a new or empty folder; remove it, name another, or pass --overwrite"
    ]
    assert done.predictions == 0
    assert read_files(tmp_path) == before


def test_overwrite_replaces_files_of_the_same_name_only(predict: Command, tmp_path: Path) -> None:
    gold = write_files(tmp_path / "gold", {"n.txt": TEXT, "n.ann": GOLD, "other.ann": "mine"})
    done = predict(gold, "-o", gold, "--overwrite")
    assert done.code == 0, done.err
    assert set(read_files(gold)) == {"n.txt", "n.ann", "other.ann"}
    assert (gold / "n.txt").read_bytes() == TEXT.encode()
    assert (gold / "other.ann").read_text() == "mine"
    (gold / "other.ann").unlink()
    (written,) = Brat().read_all(gold)
    (shown,) = json.loads(predict(gold, "--json").out)["documents"]
    assert annotations_to_json(written) == {"concepts": shown["concepts"], "relations": shown["relations"]}


@pytest.mark.parametrize("target", ["file", "file/below"])
def test_an_output_that_cannot_be_written_is_refused_before_predicting(
    predict: Command, tmp_path: Path, target: str
) -> None:
    notes = write_files(tmp_path / "notes", {"n.txt": TEXT})
    (tmp_path / "file").write_text("mine")
    done = predict(notes, "-o", tmp_path / target, "--overwrite")
    assert done.code == 2
    assert done.err.startswith(f"error {tmp_path / target}: ")
    assert len(done.err.splitlines()) == 1
    assert done.predictions == 0
    assert (tmp_path / "file").read_text() == "mine"


def test_file_names_are_preserved(predict: Command, tmp_path: Path) -> None:
    names = ["note 1", "note_1", "a,b (2)", "Größe", "x" * 251, "v1.2", "UPPER"]
    files: dict[str, str | bytes] = {f"{n}.txt": TEXT for n in names[:-1]}
    notes = write_files(tmp_path / "c", files | {"UPPER.TXT": TEXT, "._n.txt": b"\xff"})
    done = predict(notes, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert {f.name for f in (tmp_path / "out").iterdir()} == {f"{n}{s}" for n in names for s in (".txt", ".ann")}
    assert all((tmp_path / "out" / f"{n}.txt").read_bytes() == TEXT.encode() for n in names)
    shown = json.loads(predict(notes, "--json").out)
    assert {d["document"] for d in shown["documents"]} == set(names)


def test_collisions_are_found_before_predicting(predict: Command, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_files(tmp_path / folder, {"n.txt": TEXT, "m.txt": TEXT})
    (tmp_path / "stdin.txt").write_text(TEXT)
    done = predict(tmp_path / "a", tmp_path / "b", "-", tmp_path / "stdin.txt", "-o", tmp_path / "out", stdin=b"x")
    assert done.code == 2
    assert [line.split("; ")[0] for line in done.err.splitlines()] == [
        f"error {tmp_path / 'b' / 'm.txt'}: has the same name as {tmp_path / 'a' / 'm.txt'}",
        f"error {tmp_path / 'b' / 'n.txt'}: has the same name as {tmp_path / 'a' / 'n.txt'}",
        f"error {tmp_path / 'stdin.txt'}: has the same name as standard input",
    ]
    assert done.predictions == 0
    assert not (tmp_path / "out").exists()
    write_files(tmp_path / "odd", {"a\tb.txt": TEXT, "a_b.txt": TEXT})
    odd = predict(tmp_path / "odd", "-o", tmp_path / "out")
    assert odd.code == 2
    assert odd.err == "error a_b: two documents have this file name, 'a_b' and 'a\\tb'; rename one, or write jsonl\n"
    assert odd.predictions == 0


def test_a_failed_prediction_leaves_no_files(predict: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = write_files(tmp_path / "notes", {"a.txt": TEXT, "b.txt": TEXT})
    render = Brat.render

    def fail_at_b(self: Brat, document: Document) -> dict[str, str]:
        if document.id == "b":
            raise OSError(28, "No space left on device")
        return render(self, document)

    monkeypatch.setattr(Brat, "render", fail_at_b)
    for target in (tmp_path / "out", write_files(tmp_path / "empty", {})):
        done = predict(notes, "-o", target)
        assert done.code == 2
        assert done.err.startswith(f"error {target}: cannot be written: No space left on device")
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")} == {
        "empty",
        "notes",
        "notes/a.txt",
        "notes/b.txt",
    }


def test_all_bad_files_are_reported(predict: Command, tmp_path: Path) -> None:
    notes = write_files(tmp_path / "c", {"a.txt": TEXT, "b.txt": b"fi\xe8vre", "c.txt": b"\xff"})
    done = predict(notes, tmp_path / "missing.txt", "--json")
    assert done.code == 2
    assert [line.split(";")[0] for line in done.err.splitlines()] == [
        f"error {notes / 'b.txt'}: broken UTF-8 at byte 2",
        f"error {notes / 'c.txt'}: broken UTF-8 at byte 0",
        f"error {tmp_path / 'missing.txt'}: cannot be read: No such file or directory",
    ]
    assert done.out == ""
    assert done.predictions == 0


def test_bad_files_are_left_out_on_request(predict: Command, tmp_path: Path) -> None:
    for name, content in {"a": b"Pain", "b": b"caf\xe9", "c": b"\xff"}.items():
        (tmp_path / f"{name}.txt").write_bytes(content)
    outcome = predict(tmp_path, "--on-error", "skip", "--json")
    result = json.loads(outcome.out)
    assert outcome.code == 0
    assert [row["document"] for row in result["documents"]] == ["a"]
    assert [line.split(":")[0] for line in result["left_out"]] == [f"skipped {tmp_path}/{n}.txt" for n in "bc"]
    outcome = predict(tmp_path, "--on-error", "skip", "-o", tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.ann", "a.txt"]
    assert f"skipped {tmp_path}/b.txt" in outcome.out
    assert "2 problems skipped" in outcome.out


def test_ids_are_hashed_on_request(predict: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    notes = write_files(tmp_path / "notes", {"smith-1970.txt": TEXT, "jones-1985.txt": b"\xff"})
    outcome = predict(notes, "--on-error", "skip", "--json", "--ids", "hash")
    assert outcome.code == 0
    (row,) = json.loads(outcome.out)["documents"]
    assert re.fullmatch("id-[0-9a-f]{12}", row["document"])
    assert not {"smith", "jones"} & set(re.findall(r"[a-z]+", outcome.out + outcome.err))
    again = predict(notes, "--on-error", "skip", "-o", tmp_path / "out", "--ids", "hash")
    assert "jones" not in again.out + again.err
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["smith-1970.ann", "smith-1970.txt"]
    plain = predict(notes, "--on-error", "skip", "--json")
    assert [row["document"] for row in json.loads(plain.out)["documents"]] == ["smith-1970"]


def test_latin_1_on_standard_input_is_one_line(predict: Command) -> None:
    done = predict("-", stdin="fièvre".encode("latin-1"))
    assert done.code == 2
    assert done.err == ("error standard input: broken UTF-8 at byte 2; UTF-8; convert the file, for example by iconv\n")


def test_standard_input_equals_a_file_with_the_same_bytes(predict: Command, tmp_path: Path) -> None:
    notes = write_files(tmp_path / "c", {"n.txt": TEXT})
    (from_file,) = json.loads(predict(notes, "--json").out)["documents"]
    (from_stdin,) = json.loads(predict("-", "--json", stdin=TEXT.encode()).out)["documents"]
    assert from_stdin == from_file | {"document": "stdin"}


def test_folders_are_read_at_any_depth_without_the_output(predict: Command, tmp_path: Path) -> None:
    notes = write_files(tmp_path / "c", {"n.txt": b"\xef\xbb\xbf" + TEXT.encode(), "n.ann": GOLD})
    write_files(notes / "ward" / "2", {"n.txt.gz": gzip.compress(TEXT.encode())})
    write_files(notes / "__MACOSX", {"n.txt": b"\xff"})
    for overwrite in ([], ["--overwrite"]):
        done = predict(notes, "-o", notes / "out", *overwrite)
        assert done.code == 0, done.err
        assert set(read_files(notes / "out")) == {"n.txt", "n.ann", "ward/2/n.txt", "ward/2/n.ann"}
    assert read_files(notes / "out")["n.ann"] == read_files(notes / "out")["ward/2/n.ann"]


def test_a_name_without_txt_is_kept_whole(tmp_path: Path) -> None:
    write_files(tmp_path / "c", {"report.2024": TEXT, "report.2025": TEXT})
    notes = find_notes([tmp_path / "c" / "report.2024", tmp_path / "c" / "report.2025"])
    assert [note.id for note in notes] == ["report.2024", "report.2025"]


def test_all_bad_annotation_files_are_reported(tmp_path: Path) -> None:
    folder = write_files(
        tmp_path / "c", {"a.txt": TEXT, "a.ann": GOLD, "b.txt": TEXT, "c.txt": TEXT, "c.ann": "T1\tGold 0 999\tNo\n"}
    )
    notes = find_notes([folder])
    documents = read_notes(notes)
    with pytest.raises(InputError) as error:
        read_annotated_notes(notes, documents)
    assert [problem.where for problem in error.value.problems] == [str(folder / "b.txt"), f"{folder / 'c.ann'}:1"]
    (annotated,) = read_annotated_notes(notes[:1], documents[:1])
    assert [(c.type, c.start, c.end) for c in annotated.concepts] == [("Gold", 3, 13)]


def test_rows_of_tables_are_predicted_like_files(predict: Command, tmp_path: Path) -> None:
    texts = {f"ward/{n}": f"{TEXT}{n}" for n in range(300)}  # more than a batch
    frame = pandas.DataFrame({"note_id": texts.keys(), "report": texts.values()})
    frame.to_csv(tmp_path / "a.csv.gz", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    notes = write_files(tmp_path / "notes" / "ward", {f"{n}.txt": f"{TEXT}{n}" for n in range(300)}).parent
    expected = json.loads(predict(notes, "--json").out)["documents"]
    for name in ("a.csv.gz", "a.parquet"):
        done = predict(tmp_path / name, "--text-column", "report", "--json")
        assert done.code == 0, done.err
        assert sorted(json.loads(done.out)["documents"], key=lambda d: d["document"]) == expected
    for to in ("brat", "jsonl"):
        done = predict(tmp_path / "a.parquet", "--text-column", "report", "-o", tmp_path / to, "--to", to)
        assert done.code == 0, done.err
        assert done.out == f"300 documents in {tmp_path / to}\n"
    assert (tmp_path / "brat" / "ward" / "7.txt").read_bytes() == f"{TEXT}7".encode()
    assert len((tmp_path / "jsonl" / "documents.jsonl").read_text().splitlines()) == 300


def test_faults_of_tables_are_found_before_predicting(predict: Command, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\nn,x\na/b,y\n,z\n")
    (tmp_path / "n.txt").write_text(TEXT)
    done = predict(tmp_path / "a.csv", tmp_path / "n.txt", "-o", tmp_path / "out")
    assert done.code == 2
    assert [line.partition("; ")[0] for line in done.err.splitlines()] == [
        f"error {tmp_path}/a.csv: row 1: duplicate id, first at {tmp_path}/n.txt",
        f"error {tmp_path}/a.csv: row 3: no id",
    ]
    assert done.predictions == 0
    assert not (tmp_path / "out").exists()
    done = predict(tmp_path / "a.csv", tmp_path / "n.txt", "--on-error", "skip", "--json")
    shown = json.loads(done.out)
    assert [row["document"] for row in shown["documents"]] == ["n", "a/b"]
    assert len(shown["left_out"]) == 2
    done = predict(tmp_path / "n.txt", "--id-column", "id")
    assert done.err.startswith("error --id-column: no table among the files")
