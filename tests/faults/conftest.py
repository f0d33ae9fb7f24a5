"""What a search leaves that nothing happens to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.searches import TRIALS, Ending, ending_of, run, write_search


@pytest.fixture(scope="session")
def undisturbed_home(tmp_path_factory: pytest.TempPathFactory, corpus_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = run(["search", str(write_search(folder, corpus_folder))], folder / "home", None)
    assert done.returncode == 0, done.stderr
    return folder / "home"


@pytest.fixture(scope="session")
def undisturbed(undisturbed_home: Path) -> Ending:
    ending = ending_of(undisturbed_home)
    assert len(ending.trials) == TRIALS
    assert len(ending.kept) == 1
    return ending
