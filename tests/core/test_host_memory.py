"""The memory estimate of a step on a CPU agrees with the memory of the process, not only with that of its tensors.

The C library must return freed tensors to the system, which it does for blocks above a fixed threshold. By default,
glibc raises this threshold to 32 MiB while it runs, and the freed blocks fragment the heap.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from clinie_core.config import BackboneSource, TrialConfig
from clinie_core.training.memory_estimate import estimate_memory
from clinie_core.training.memory_meter import MemoryMeter
from clinie_core.training.peak_estimator import PeakEstimator
from clinie_core.training.synthetic_inputs import assume_largest_inputs
from tests.core.test_memory_estimate import CASES, SCHEMA

WIDE = {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 2048}
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": "1000000"}

pytestmark = [
    pytest.mark.slow,  # a process with a wide model for each case
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux"),
]


def make_case(name: str, sizes: dict[str, int], **changes: Any) -> TrialConfig:
    scratch = {**(CASES[name].backbone.scratch or {}), **sizes}
    if "num_key_value_heads" in scratch:
        scratch["num_key_value_heads"] = sizes["num_attention_heads"]
    else:
        scratch["max_position_embeddings"] = 512
    return CASES[name].model_copy(update={"backbone": BackboneSource(name="other", scratch=scratch), **changes})


def read_status(name: str) -> float:
    """Return a memory figure of this process in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def measure(config: TrialConfig) -> float:
    """Return the memory of tensors in a training step and a prediction in MiB."""
    inputs, micro_batch = assume_largest_inputs(config, SCHEMA), config.micro_batch or config.batch_size
    estimator = PeakEstimator.of(MemoryMeter(config, SCHEMA, inputs))
    return estimator.measure(micro_batch, accumulates=config.micro_batch is not None)


def measure_growth(name: str) -> dict[str, float]:
    """Return the growth of this process by a step of a wide model, and the memory of its tensors, in MiB."""
    torch.set_num_threads(1)
    measure(make_case(name, SMALL, window_tokens=64, batch_size=1, micro_batch=None))  # loads libraries
    gc.collect()
    before = read_status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
    tensors = measure(make_case(name, WIDE, window_tokens=256))
    return {"tensors": tensors, "growth": read_status("VmHWM") - before}


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_estimate_is_within_a_tenth_of_the_growth_of_a_process(name: str) -> None:
    command = [sys.executable, "-W", "ignore", "-m", __name__, name]
    root, env = Path(__file__).parents[2], os.environ | RETURNED
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=root, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    estimate = estimate_memory(make_case(name, WIDE, window_tokens=256), SCHEMA)
    assert estimate.memory_mb == pytest.approx(found["growth"], rel=0.1)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure_growth(sys.argv[1])) + "\n")
