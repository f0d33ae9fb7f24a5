"""The requirements that MLflow logs with a registered model suffice to load it, without other packages of clinie."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from clinie_core.data.document import Corpus, Document
from clinie_core.inference.extractor import annotations_to_json
from search.promotion.registration import fetch_model_files, load_registered_extractor
from tests.service.test_promotion import Registry

PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
import mlflow
served = mlflow.pyfunc.load_model(sys.argv[2]).predict(json.load(sys.stdin))
import clinie_core
print(json.dumps({"served": list(served), "clinie_core": clinie_core.__file__, "modules": sorted(sys.modules)}))
"""
NOT_REQUIRED = {"optuna", "ray", "search"}


def link_environment(requirements: Iterable[str], folder: Path) -> set[str]:
    """Create a folder with the packages that pip would install for requirements, as links to installed ones.

    Returns:
        Names of the packages, including those that others depend on.
    """
    pending, done = [Requirement(line) for line in requirements], set[tuple[str, str]]()
    while pending:
        requirement = pending.pop()
        found = distribution(requirement.name)
        assert requirement.specifier.contains(found.version, prereleases=True), f"{requirement}: found {found.version}"
        for wanted in ("", *requirement.extras):
            if (found.name.lower(), wanted) in done:
                continue
            done.add((found.name.lower(), wanted))
            for line in found.requires or ():
                dependency = Requirement(line)
                if dependency.marker is None or dependency.marker.evaluate({"extra": wanted}):
                    pending.append(dependency)
        for file in found.files or ():
            top = file.parts[0]
            if top != ".." and not (folder / top).is_symlink():
                (folder / top).symlink_to(Path(str(found.locate_file(top))))
    return {name for name, _ in done}


def test_a_registered_model_runs_with_its_logged_requirements_alone(
    tmp_path: Path, corpus: Corpus, trained: tuple[Path, list[Any]]
) -> None:
    checkpoint, (config, _) = trained
    (tmp_path / "home").mkdir()
    registry = Registry(tmp_path / "home", corpus, checkpoint, config)
    model = fetch_model_files(f"model/{registry.promote().version}")
    logged = (model / "requirements.txt").read_text(encoding="utf-8").split()
    assert all("==" in line for line in logged)
    environment = tmp_path / "environment"
    environment.mkdir()
    packages = link_environment(logged, environment)
    assert not packages & NOT_REQUIRED
    texts = [document.text for document in corpus["test"][:3]]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROGRAM, str(environment), str(model)],  # without the installed packages
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert Path(result["clinie_core"]).is_relative_to(model)
    assert not NOT_REQUIRED & set(result["modules"])
    documents = [Document(f"text-{number}", text) for number, text in enumerate(texts, start=1)]
    expected = load_registered_extractor("model@champion").annotate(documents)
    assert [json.loads(row) for row in result["served"]] == [annotations_to_json(document) for document in expected]
