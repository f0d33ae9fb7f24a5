"""The examples of docs/extending.md pass the contract tests in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```python\n# (file: |row: |test)([^\n]*)\n(.*?)```", re.DOTALL)


def add_row(project: Path, place: str, row: str) -> None:
    """Add a row to a registry, whose place is a path and, where the file has several, the registry's name."""
    path, _, registry = place.partition(" ")
    text = (project / path).read_text(encoding="utf-8")
    end = text.index("}", text.index(f"{registry}: Registry") if registry else text.rindex("Registry("))
    (project / path).write_text(f"{text[:end].rstrip().rstrip(',')}, {row}{text[end:]}", encoding="utf-8")


@pytest.mark.integration
def test_the_examples_of_the_page_pass_the_contracts_and_their_own_tests(tmp_path: Path) -> None:
    for name in ("clinie_core", "search", "spaces", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    names, tests = [], 0
    for kind, path, content in BLOCK.findall((ROOT / "docs" / "extending.md").read_text(encoding="utf-8")):
        file = tmp_path / path
        if kind == "file: ":
            assert not file.exists()
            file.write_text(content, encoding="utf-8")
        elif kind == "row: ":
            names.append(content.split('"')[1])
            add_row(tmp_path, path, content)
        else:
            tests += 1
            (tmp_path / "tests" / "contracts" / f"test_page_{tests}.py").write_text(content, encoding="utf-8")
    assert names == ["hra", "json_files", "independent_tpe", "cautious_asha"]
    assert tests == 2
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pytest",
                "-v",
                "-k",
                "(page or hra or json_files or independent_tpe or cautious_asha) and not joint",
                "-p",
                "no:cacheprovider",
            ),
            *("tests/contracts", "--ignore", "tests/contracts/test_extending.py"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "test_hra_trains_one_vector_per_reflection PASSED" in done.stdout
    assert "test_json_files_are_read PASSED" in done.stdout
    assert len([line for line in done.stdout.splitlines() if "[hra] PASSED" in line]) == 2
    cells = [line for line in done.stdout.splitlines() if "-hra] PASSED" in line]
    assert any("encoder" in line for line in cells)
    assert any("decoder" in line for line in cells)
    assert len([line for line in done.stdout.splitlines() if "[json_files] PASSED" in line]) == 6
    assert len([line for line in done.stdout.splitlines() if "independent_tpe" in line and "PASSED" in line]) >= 6
    assert len([line for line in done.stdout.splitlines() if "cautious_asha" in line and "PASSED" in line]) >= 6
