"""The page on extending clinie works as it stands: its files, rows and tests, in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```python\n# (file: |row: |test)([^\n]*)\n(.*?)```", re.DOTALL)


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
            table, end = file.read_text(encoding="utf-8").rsplit("}", 1)
            file.write_text(f"{table.rstrip().rstrip(',')}, {content}}}{end}", encoding="utf-8")
        else:
            tests += 1
            (tmp_path / "tests" / "contracts" / f"test_page_{tests}.py").write_text(content, encoding="utf-8")
    assert names == ["hra", "json_files"]
    assert tests == 2
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pytest",
                "-v",
                "-k",
                "(page or hra or json_files) and not joint",
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
    assert "test_hra_trains_so_many_vectors_a_module PASSED" in done.stdout
    assert "test_json_files_are_read PASSED" in done.stdout
    assert len([line for line in done.stdout.splitlines() if "[hra] PASSED" in line]) == 2
    cells = [line for line in done.stdout.splitlines() if "-hra] PASSED" in line]
    assert any("encoder" in line for line in cells)
    assert any("decoder" in line for line in cells)
    assert len([line for line in done.stdout.splitlines() if "[json_files] PASSED" in line]) == 6
