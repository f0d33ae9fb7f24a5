"""Random sequences of commands and kills: ledger, MLflow and pool always agree."""

from __future__ import annotations

import search.cluster.environment  # noqa: F401  # before Ray, which reads it when it is imported

# isort: split
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from search.config.search_space import SearchSpace
from search.storage.home import Home
from search.tracking.connection import connect
from tests.faults.command_search import EPOCHS, TRIALS, CommandSearch
from tests.small_space import build_small_space

# A kill within the thread that delivers events ends that thread.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
ACTIONS = 60
SEQUENCES = 24


def make_space(study: str) -> SearchSpace:
    budget = {"trials": TRIALS, "epochs": EPOCHS, "hours": 1}
    return build_small_space(study, {"batch_size": {"choose": [8, 16]}}, budget=budget)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> tuple[MlflowClient, str]:
    home = Home.open(tmp_path_factory.mktemp("mlflow"), create=True)
    return connect(home), home.tracking_uri


def run_sequence(folder: Path, mlflow: tuple[MlflowClient, str], seed: int) -> int:
    """Run one sequence; return the number of kills."""
    search = CommandSearch(folder, make_space(f"sequence-{seed}"), *mlflow, seed)
    for _ in range(ACTIONS):
        search.act()
    search.finish()
    search.check_end()
    search.driver.close()
    return search.kills


def test_ledger_mlflow_and_pool_agree_after_commands_and_kills(
    tmp_path: Path, mlflow: tuple[MlflowClient, str]
) -> None:
    kills = sum(run_sequence(tmp_path / str(seed), mlflow, seed) for seed in range(SEQUENCES))
    assert kills > SEQUENCES


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_ledger_mlflow_and_pool_agree_in_a_thousand_sequences(tmp_path: Path, mlflow: tuple[MlflowClient, str]) -> None:
    for seed in range(1000, 2000):
        run_sequence(tmp_path / str(seed), mlflow, seed)
