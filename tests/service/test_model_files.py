"""Registered models are found in the database of a home folder as MLflow finds them, without its import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from clinie_core.errors import InputError
from search.promotion.model_files import EXTRACTOR, find_extractor, load_extractor
from search.promotion.registration import create_version, fetch_model_files
from search.storage.home import Home
from search.tracking.connection import connect


def register(home: Home, client: MlflowClient, folder: Path, number: int) -> str:
    """Register a folder as a version of the model and return its number."""
    files = folder / f"files-{number}" / EXTRACTOR
    files.mkdir(parents=True)
    (files / "weights").write_text(str(number), encoding="ascii")
    experiment = client.get_experiment_by_name("study")
    assert experiment is not None
    return create_version(
        client,
        folder / f"files-{number}",
        experiment.experiment_id,
        run_id=None,
        name="a model",
        tags={},
        description="",
    )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    root = tmp_path / "my home"  # the blank is quoted in addresses
    root.mkdir()
    home = Home(root)
    client = connect(home)
    client.create_experiment("study", artifact_location=(root / "artifacts" / "study").as_uri())
    client.create_registered_model("a model")
    for number in (1, 2, 3):
        register(home, client, tmp_path, number)
    client.set_registered_model_alias("a model", "champion", "2")
    return home


def test_a_model_of_a_home_folder_is_found_like_by_mlflow(home: Home) -> None:
    for model, number in (("a model@champion", "2"), ("a model/1", "1"), ("a model/3", "3")):
        found = find_extractor(home, model)
        assert found == fetch_model_files(model) / EXTRACTOR
        assert (found / "weights").read_text(encoding="ascii") == number
    connect(home).set_registered_model_alias("a model", "champion", "3")
    assert find_extractor(home, "a model@champion") == find_extractor(home, "a model/3")


def test_other_models_are_left_to_mlflow(home: Home) -> None:
    client = connect(home)
    client.delete_model_version("a model", "1")
    for model in ("a model/1", "a model/4", "a model@absent", "a model@latest", "other/1"):
        assert find_extractor(home, model) is None
    with pytest.raises(InputError, match="no model 'a model/1' in the registry"):
        load_extractor(home, "a model/1")
    with pytest.raises(InputError, match="names no model"):
        find_extractor(home, "a model")
    assert find_extractor(Home(home.root, home.tracking_uri), "a model/2") is None  # a server's registry


def test_the_files_of_a_moved_home_folder_are_found_after_its_database_was_adapted(home: Home, tmp_path: Path) -> None:
    moved = Home(home.root.rename(tmp_path / "elsewhere"))
    assert find_extractor(moved, "a model/2") is None
    connect(moved)
    assert find_extractor(moved, "a model/2") == fetch_model_files("a model/2") / EXTRACTOR


def test_a_damaged_database_is_left_to_mlflow(home: Home) -> None:
    (home.root / "mlflow.db").write_bytes(b"no database" * 1000)
    assert find_extractor(home, "a model/2") is None


def test_mlflow_is_not_imported(home: Home) -> None:
    program = (
        "import sys; from pathlib import Path; from search.promotion.model_files import find_extractor;"
        "from search.storage.home import Home; import search.report.marked_text;"
        "print(find_extractor(Home(Path(sys.argv[1])), 'a model/2'), {'mlflow', 'optuna', 'ray'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", program, str(home.root)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.strip() == f"{find_extractor(home, 'a model/2')} set()"
