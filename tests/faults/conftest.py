"""The outcome of a search without faults, which the fault tests compare with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.searches import TRIALS, SearchOutcome, read_outcome, run, write_search


@pytest.fixture(scope="session")
def undisturbed_home(tmp_path_factory: pytest.TempPathFactory, corpus_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = run(["search", str(write_search(folder, corpus_folder))], folder / "home", None)
    assert done.returncode == 0, done.stderr
    return folder / "home"


@pytest.fixture(scope="session")
def undisturbed(undisturbed_home: Path) -> SearchOutcome:
    outcome = read_outcome(undisturbed_home)
    assert len(outcome.trials) == TRIALS
    assert len(outcome.kept) == 1
    return outcome
