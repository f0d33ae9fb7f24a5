"""The GPU benchmark runs on a CPU with simulated figures, and says why a section does not run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gpu_sections.training import find_peak

ROOT = Path(__file__).parents[2]
SECTIONS = {
    "training-encoder",
    "training-decoder",
    "generation",
    "memory-estimate",
    "qlora",
    "out-of-memory",
    "memory-after-trials",
    "unusable-context",
    "two-processes",
}


def run_benchmark(*options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Return the finished process without a visible GPU, and the JSON object of its last line."""
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *options]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    )
    return done, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_all_sections_run_on_a_cpu_and_mark_their_figures_as_simulated() -> None:
    done, summary = run_benchmark("--fake", "--quick")
    assert done.returncode == 0, done.stderr[-3000:]
    sections = summary["sections"]
    assert set(sections) == SECTIONS
    assert summary["simulated"]
    assert {name: s["status"] for name, s in sections.items()} == dict.fromkeys(SECTIONS, "simulated")
    rows = [line for line in done.stdout.splitlines()[1:-1] if line]
    assert len(rows) == sum(len(s["figures"]) for s in sections.values())
    assert all(row.endswith("simulated") for row in rows)
    figures = {f["name"]: f["value"] for section in sections.values() for f in section["figures"]}
    assert 1 <= figures["micro-batch that fitted"] < 32
    assert figures["usable after the assertion"] == "no"
    assert figures["encoder, full: estimate / measured"] == pytest.approx(1, rel=0.1)


@pytest.mark.integration
def test_without_a_gpu_each_section_says_why_it_did_not_run() -> None:
    done, summary = run_benchmark()
    assert done.returncode == 0
    assert set(summary["sections"]) == SECTIONS
    for section in summary["sections"].values():
        assert section["status"] == "not run"
        assert "no CUDA GPU" in section["reason"]


@pytest.mark.parametrize(
    ("device", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("an unknown device", None),
    ],
)
def test_the_peak_of_a_device_is_found_by_its_name(device: str, teraflops: float | None) -> None:
    assert find_peak(device) == teraflops
