"""Presets of published corpora in commands and in spaces."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from clinie_core.data.corpora.presets import PRESETS
from clinie_core.errors import InputError
from search.config.validation import validate_space
from tests.releases import RELEASES, write_ade

RunClinie = Callable[..., subprocess.CompletedProcess[str]]
WriteSpace = Callable[[Mapping[str, Any]], Path]
DOCUMENTS = {
    "n2c2-2018": {"train": 3, "dev": 1, "test": 2},
    "n2c2-2022": {"train": 2, "dev": 2, "test": 2},
    "i2b2-2010": {"train": 3, "dev": 1, "test": 1},
    "radgraph": {"train": 1, "dev": 1, "test": 1},
}


@pytest.mark.parametrize("name", PRESETS)
def test_check_reads_a_release_by_its_preset(tmp_path: Path, clinie: RunClinie, name: str) -> None:
    RELEASES[name](tmp_path)
    done = clinie("data", "check", tmp_path, "--preset", name, "--json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["format"] == PRESETS[name].format
    assert row["documents"] == DOCUMENTS[name]
    (warning,) = [line for line in row["warnings"] if "corpus.preset" in line]
    assert warning.startswith(f"corpus.preset: {name}: expected ")
    assert row["unread_files"] == (1 if name == "i2b2-2010" else 0)


@pytest.mark.parametrize("name", PRESETS)
def test_a_space_reads_a_release_by_its_preset(
    tmp_path: Path, space_content: dict[str, Any], write_space: WriteSpace, name: str
) -> None:
    RELEASES[name](tmp_path / "release")
    content = space_content | {"corpus": {"preset": name, "path": str(tmp_path / "release")}}
    validated = validate_space(str(write_space(content)))
    assert validated.corpus is not None
    counts = {split: len(documents) for split, documents in validated.corpus.splits.items()}
    assert counts == {split: count for split, count in DOCUMENTS[name].items() if split != "test"}


def test_each_fault_of_a_preset_is_one_line_with_exit_code_2(tmp_path: Path, clinie: RunClinie) -> None:
    write_ade(tmp_path / "release", test=0)
    for arguments, expected in (
        (("--preset", "n2c2-2018"), "lacks gold-standard-test-data/test or gold-standard-test-data or test (test)"),
        (("--preset", "n2c2-2019"), "--preset: unknown preset 'n2c2-2019'; allowed: n2c2-2018, n2c2-2022, i2b2-2010"),
        (("--preset", "radgraph", "--format", "brat"), "preset radgraph has the format radgraph, not brat"),
    ):
        done = clinie("data", "check", tmp_path / "release", *arguments)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert expected in done.stderr


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"preset": "n2c2-2019"}, "unknown preset 'n2c2-2019'; allowed: n2c2-2018, n2c2-2022, i2b2-2010, radgraph"),
        ({"preset": "n2c2-2018", "format": "radgraph"}, "preset n2c2-2018 has the format brat, not radgraph"),
        ({"preset": "n2c2-2018"}, "lacks gold-standard-test-data/test or gold-standard-test-data or test (test)"),
    ],
    ids=["unknown", "format", "missing"],
)
def test_a_space_names_file_and_key_of_each_fault(
    tmp_path: Path, space_content: dict[str, Any], write_space: WriteSpace, keys: dict[str, str], expected: str
) -> None:
    write_ade(tmp_path / "release", test=0)
    file = write_space(space_content | {"corpus": {"path": str(tmp_path / "release"), **keys}})
    with pytest.raises(InputError) as caught:
        validate_space(str(file))
    (line,) = str(caught.value).splitlines()
    assert line.startswith("space.yaml: corpus")
    assert expected in line
