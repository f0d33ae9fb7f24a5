"""The precision of a trial follows from its configuration and from what the device computes fast."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clinie_core.config import TrialConfig
from clinie_core.data.document import Corpus
from clinie_core.modeling.precision import Precision, choose_precision
from clinie_core.training.train import EpochReport, train

MakeConfig = Callable[..., TrialConfig]
FLOAT32, FLOAT16 = Precision(), Precision(torch.float16, scales_gradients=True)
BFLOAT16 = Precision(torch.bfloat16, tf32=True)
GPUS = {
    "GTX 980": ((5, 2), FLOAT32),
    "P100": ((6, 0), FLOAT32),
    "V100": ((7, 0), FLOAT16),
    "T4": ((7, 5), FLOAT16),
    "A100": ((8, 0), BFLOAT16),
    "A10": ((8, 6), BFLOAT16),
    "L4": ((8, 9), BFLOAT16),
    "H100": ((9, 0), BFLOAT16),
    "B200": ((10, 0), BFLOAT16),
}


@pytest.mark.parametrize("name", GPUS)
def test_a_gpu_uses_the_fastest_format_that_it_does_not_emulate(name: str) -> None:
    capability, expected = GPUS[name]
    assert choose_precision("auto", "cuda", capability=capability) == expected


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [("avx2 avx512f", "float32"), ("avx512f avx512_bf16", "bfloat16"), ("amx_tile amx_bf16", "bfloat16")],
)
def test_a_cpu_uses_bfloat16_if_it_has_instructions_for_it(flags: str, dtype: str) -> None:
    assert choose_precision("auto", "cpu", cpu_flags=flags.split()) == Precision(getattr(torch, dtype))


def test_a_configured_format_is_used_on_any_device() -> None:
    assert choose_precision("bfloat16", "cuda", capability=(7, 5)) == Precision(torch.bfloat16)
    assert choose_precision("float16", "cpu") == FLOAT16
    assert choose_precision("float32", "cuda", capability=(8, 0)) == Precision(tf32=True)


def test_training_in_float16_resumes_with_the_scale_of_the_gradients(
    make_config: MakeConfig, corpus: Corpus, tmp_path: Path
) -> None:
    config = make_config(epochs=4, precision="float16")

    def curve(folder: Path | None, stop_after: int) -> list[Any]:
        reports: list[EpochReport] = []

        def on_epoch(report: EpochReport) -> bool:
            reports.append(report)
            return report.epoch < stop_after

        train(config, corpus, folder=folder, on_epoch=on_epoch)
        return [(report.metrics["train_loss"], report.metrics["strict_f1"]) for report in reports]

    whole = curve(None, 4)
    curve(tmp_path, 2)
    state = torch.load(tmp_path / "last" / "training_state.pt", weights_only=True)
    assert state["scaler"]["scale"] > 1
    assert curve(tmp_path, 4) == whole
    assert whole[-1][0] < 0.8 * whole[0][0]
