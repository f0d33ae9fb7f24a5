"""The ledger's storage without a server: the journal file, and database URLs that lead nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

from clinie_core.errors import InputError
from search.config.space_reading import read_space_file
from search.config.validation import build_space
from search.ledger.ledger import Ledger
from search.ledger.storage import open_storage
from search.storage.home import Home

WriteSpace = Callable[[Mapping[str, Any]], Path]


def test_a_draw_depends_only_on_seed_number_and_earlier_trials(
    tmp_path: Path, space_content: dict[str, Any], write_space: WriteSpace
) -> None:
    space = build_space(*read_space_file(str(write_space(space_content))))

    def draw(folder: Path, *, reopened: bool) -> list[dict[str, Any]]:
        home = Home.open(folder, create=True)
        ledger = Ledger.create(open_storage(home), "s", space.file.objective, space.file.algorithm, {})
        for value in (0.3, 0.7, 0.5, 0.6, 0.2):
            number, _ = ledger.ask(space)
            ledger.report(number, 1, {"strict_f1": value})
            ledger.end(number, "complete")
            if reopened:
                ledger = Ledger.open(open_storage(home), "s", space.file.algorithm)
        return [record.parameters for record in ledger.records()]

    assert draw(tmp_path / "a", reopened=False) == draw(tmp_path / "b", reopened=True)


def test_an_incomplete_draw_is_repeated_by_the_next_driver(
    tmp_path: Path, space_content: dict[str, Any], write_space: WriteSpace
) -> None:
    space = build_space(*read_space_file(str(write_space(space_content))))
    home = Home.open(tmp_path / "home", create=True)
    Ledger.create(open_storage(home), "s", space.file.objective, space.file.algorithm, {})
    study = optuna.load_study(storage=open_storage(home), study_name="s")
    study.ask()  # the driver is killed before the draw is complete
    number, config = Ledger.open(open_storage(home), "s", space.file.algorithm).ask(space)
    assert number == 0
    assert len(study.trials) == 1
    assert study.trials[0].user_attrs["config"] == config.model_dump(mode="json")


def test_an_incomplete_line_does_not_hide_later_lines(
    tmp_path: Path, space_content: dict[str, Any], write_space: WriteSpace
) -> None:
    space = build_space(*read_space_file(str(write_space(space_content))))
    home = Home.open(tmp_path / "home", create=True)
    ledger = Ledger.create(open_storage(home), "s", space.file.objective, space.file.algorithm, {})
    number, _ = ledger.ask(space)
    with home.ledger_file.open("ab") as journal:
        journal.write(b'{"op_code":8,"worker')
    reopened = Ledger.open(open_storage(home), "s")
    assert reopened.report(number, 1, {"strict_f1": 0.5})
    assert Ledger.open(open_storage(home), "s").record(number).epochs == {1: {"strict_f1": 0.5}}


def test_an_unreachable_database_is_named_without_its_password(
    tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"postgresql://me:secret-word@127.0.0.1:{free_port()}/ledger"
    with pytest.raises(InputError) as raised:
        open_storage(Home(tmp_path, ledger=url))
    assert "CLINIE_LEDGER: the database does not answer at postgresql://me@127.0.0.1" in str(raised.value)
    assert "secret-word" not in str(raised.value)
    for url, message in (("nonsense", "is not a database URL"), ("oracle+unknown://x", "is not a database URL")):
        with pytest.raises(InputError, match=message):
            open_storage(Home(tmp_path, ledger=url))
