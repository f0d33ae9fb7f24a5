"""Plans without a network: sizes from the catalogue, and from earlier simulations."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.conftest import RunClinie

WriteSpace = Callable[[Mapping[str, Any]], Path]


def make_environment(folder: Path) -> dict[str, str]:
    """Return an environment whose Hub refuses connections, with empty caches."""
    return {
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(folder / "hf"),
        "CLINIE_CACHE": str(folder / "cache"),
    }


def test_the_space_of_the_paper_is_planned_from_the_catalogue(clinie: RunClinie, tmp_path: Path) -> None:
    done = clinie("plan", "paper", "--samples", "30", "--json", **make_environment(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    plan = json.loads(done.stdout)
    lines = {line.split("'")[1]: line for line in plan["warnings"]}
    assert len(lines) == len(plan["warnings"]) == 10  # one for each backbone
    assert "sizes are those of the catalogue (licence llama3.1, gated)" in lines["llama-3.1-8b"]
    assert "Connection refused" in lines["bert-large"]
    assert "left out of this plan" in lines["gatortrongpt-20b"]
    drawn = {sample["parameters"]["backbone"]: sample for sample in plan["samples"]}
    assert "gatortrongpt-20b" not in drawn
    assert drawn["llama-3.1-8b"]["total_parameters"] > 8e9
    assert not any(sample["simulated"] for sample in plan["samples"])


def test_a_space_without_a_known_backbone_is_an_error(
    clinie: RunClinie, write_space: WriteSpace, space_content: dict[str, Any], tmp_path: Path
) -> None:
    space = write_space({**space_content, "space": {**space_content["space"], "backbone": "clinic/unknown"}})
    done = clinie("plan", space, **make_environment(tmp_path))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "'clinic/unknown' is neither a local folder nor in the local cache, and the Hub is unreachable" in line


def test_a_simulated_size_is_kept(
    clinie: RunClinie, write_space: WriteSpace, space_content: dict[str, Any], tmp_path: Path
) -> None:
    arguments = ("plan", write_space(space_content), "space.finetuning=full", "--samples", "1", "--json")
    environment = make_environment(tmp_path)
    (bound,) = json.loads(clinie(*arguments, **environment).stdout)["samples"]
    assert not bound["simulated"]
    (first,) = json.loads(clinie(*arguments, "--simulate", **environment).stdout)["samples"]
    assert first["simulated"]
    assert first["memory_mb"] >= bound["memory_mb"]
    for file in (tmp_path / "cache/estimates").iterdir():
        file.write_text(json.dumps({**json.loads(file.read_text()), "memory_mb": 4321}))
    (second,) = json.loads(clinie(*arguments, **environment).stdout)["samples"]
    assert second == {**first, "memory_mb": 4321}
