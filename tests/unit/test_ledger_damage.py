"""A journal file with damaged, cut or missing lines: it is named, not written, and repaired without losing a trial."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clinie_core.errors import InputError
from search.analysis.findings import analyze
from search.cli.main import main
from search.config.space_reading import read_space_file
from search.config.validation import build_space
from search.ledger.journal import link
from search.ledger.ledger import Ledger
from search.ledger.records import TrialRecord
from search.ledger.storage import open_storage
from search.storage.home import Home

WriteSpace = Callable[[Mapping[str, Any]], Path]
SCORES = (0.3, 0.7, 0.5)


@pytest.fixture
def home(tmp_path: Path, space_content: dict[str, Any], write_space: WriteSpace) -> Home:
    space = build_space(*read_space_file(str(write_space(space_content))))
    place = Home.open(tmp_path / "home", create=True)
    attributes = {"space": space.file.model_dump(mode="json"), "where": "space.yaml", "corpus_digest": "0"}
    ledger = Ledger.create(
        open_storage(place), space.file.study, space.file.objective, space.file.algorithm, attributes
    )
    for score in SCORES:
        number, _ = ledger.ask(space)
        ledger.report(number, 1, {"strict_f1": score})
        ledger.end(number, "complete")
    return place


def read_records(home: Home) -> list[TrialRecord]:
    storage = open_storage(home)
    (study,) = storage.get_all_studies()
    return Ledger.open(storage, study.study_name).records()


def find_lines(home: Home, operation: int) -> list[int]:
    lines = home.ledger_file.read_bytes().splitlines()
    return [index for index, line in enumerate(lines) if json.loads(line)["op_code"] == operation]


def rewrite(home: Home, change: Callable[[list[bytes]], None]) -> bytes:
    lines = home.ledger_file.read_bytes().splitlines(keepends=True)
    change(lines)
    home.ledger_file.write_bytes(b"".join(lines))
    return home.ledger_file.read_bytes()


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["clinie", *arguments])
    code = 0
    try:
        main()
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


DAMAGES: dict[str, Callable[[list[bytes], int], None]] = {
    "garbage": lambda lines, at: lines.__setitem__(at, b"\x00\xff garbage\n"),
    "no-json-object": lambda lines, at: lines.__setitem__(at, b"[1]\n"),
    "missing": lambda lines, at: lines.__delitem__(at),
    "cut": lambda lines, at: lines.__setitem__(at, lines[at][:20]),
}


@pytest.mark.parametrize("operation", [0, 4, 5, 6, 7, 8], ids="operation-{}".format)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_line_is_named_and_repaired(
    damage: str,
    operation: int,
    home: Home,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = read_records(home)
    places = find_lines(home, operation)
    at = places[len(places) // 2]
    damaged = rewrite(home, lambda lines: DAMAGES[damage](lines, at))
    code, _, errors = run(capsys, monkeypatch, "status", "--home", str(home.root))
    assert code == 2
    assert f"{home.ledger_file}:{at + 1}: the ledger is damaged" in errors
    assert "clinie repair --home" in errors
    assert len(errors.splitlines()) == 1
    assert home.ledger_file.read_bytes() == damaged
    code, printed, errors = run(capsys, monkeypatch, "repair", "--home", str(home.root))
    assert code == 0, errors
    assert f"{home.ledger_file}:{at + 1}" in printed
    assert (home.root / "ledger.journal.damaged-1").read_bytes() == damaged
    after = read_records(home)
    assert [record.number for record in after] == [0, 1, 2]
    changed = [number for number in range(3) if after[number] != before[number]]
    assert len(changed) <= 1
    if operation in (0, 4):
        assert [record.parameters for record in after] == [record.parameters for record in before]
        assert [record.metrics for record in after] == [record.metrics for record in before]
        assert [record.state for record in after] == ["complete"] * 3


def test_a_garbage_last_line_is_a_fault(home: Home) -> None:
    content = rewrite(home, lambda lines: lines.append(b"garbage\n"))
    with pytest.raises(InputError, match="this line is not a record"):
        open_storage(home)
    assert home.ledger_file.read_bytes() == content


def test_a_journal_without_checksums_is_read_and_continued(
    home: Home, space_content: dict[str, Any], write_space: WriteSpace
) -> None:
    def remove_checksums(lines: list[bytes]) -> None:
        for index, line in enumerate(lines):
            record = json.loads(line)
            del record["previous"]
            lines[index] = json.dumps(record).encode() + b"\n"

    before = read_records(home)
    rewrite(home, remove_checksums)
    assert read_records(home) == before
    space = build_space(*read_space_file(str(write_space(space_content))))
    Ledger.open(open_storage(home), space.file.study, space.file.algorithm).ask(space)
    assert len(read_records(home)) == 4
    rewrite(home, lambda lines: lines.__delitem__(-2))
    with pytest.raises(InputError, match="lines before this one are missing or were changed"):
        open_storage(home)


def test_a_clock_that_jumps_back_changes_no_result(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def jump(lines: list[bytes]) -> None:
        previous = b""
        for index, line in enumerate(lines):
            record = json.loads(line)
            if record.get("datetime_complete") and record["trial_id"] > 0:
                ended = datetime.fromisoformat(record["datetime_complete"]) - timedelta(days=1)
                record["datetime_complete"] = ended.isoformat(timespec="microseconds")
            previous = link(record, previous)
            lines[index] = previous + b"\n"

    before = read_records(home)
    rewrite(home, jump)
    after = read_records(home)
    assert [(record.metrics, record.state) for record in after] == [(record.metrics, record.state) for record in before]
    assert all(record.ended < record.started for record in after[1:] if record.started and record.ended)
    code, printed, errors = run(capsys, monkeypatch, "status", "small", "--home", str(home.root), "--json")
    assert (code, errors) == (0, "")
    assert json.loads(printed)["best"]["number"] == SCORES.index(max(SCORES))
    findings = analyze("small", after, "strict_f1", maximized=True, counts={}, importances={})
    assert findings.winner is not None
    assert findings.winner.record.number == SCORES.index(max(SCORES))


def test_an_intact_ledger_is_left_as_it_is(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = home.ledger_file.read_bytes()
    code, printed, _ = run(capsys, monkeypatch, "repair", "--home", str(home.root))
    assert (code, printed) == (0, "the ledger has no faults\n")
    assert home.ledger_file.read_bytes() == content
    assert not list(home.root.glob("*.damaged-*"))
