"""Speed of generation, compared with `model.generate` on the same prompts."""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

import numpy as np
import torch

from clinie_core.heads import LanguageHead
from gpu_sections.results import Figure
from gpu_sections.setting import Setting, build_trainer

__all__ = ["measure_generation"]

BASELINE_ROWS = 16
"""Rows of a batch of `model.generate`, in the order of the notes."""


def measure_generation(setting: Setting) -> list[Figure]:
    """Measure generation with a decoder whose answers have a fixed limit."""
    budget = (16 if setting.quick else 32) if setting.fake else 64
    notes = (6 if setting.quick else 16) if setting.fake else (64 if setting.quick else 128)
    trainer = build_trainer(setting, setting.configure_decoder(batch_size=4), steps=1, dev=notes)
    (component,) = trainer._components
    encoded = trainer._dev_encoded[component]
    prompts = [example.input_ids for document in encoded for example in document.examples]
    model = trainer._model.eval()
    head = model.get_head(component)
    assert isinstance(head, LanguageHead)
    head.set_budget(budget, head.eos_id)
    theirs: Any = copy.deepcopy(model.backbone).to(model.precision.dtype)

    def generate() -> list[list[int]]:
        found: list[list[int]] = []
        for start in range(0, len(prompts), BASELINE_ROWS):
            rows = prompts[start : start + BASELINE_ROWS]
            width = max(map(len, rows))
            ids = torch.tensor([[trainer._pad_id] * (width - len(row)) + list(row) for row in rows])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
            out = theirs.generate(
                input_ids=ids.to(setting.device),
                attention_mask=mask.to(setting.device),
                max_new_tokens=budget,
                do_sample=False,
                eos_token_id=head.eos_id,
                pad_token_id=head.eos_id,
            )
            found += [_truncate(row[width:].tolist(), head.eos_id) for row in out.cpu()]
        return found

    def predict() -> list[list[int]]:
        outputs = trainer._predictor._compute_outputs(component, encoded)
        return [np.asarray(row).tolist() for row in outputs]

    ours_per_second, theirs_per_second, equal = [], [], 0
    generate(), predict()  # the first calls select kernels
    for _ in range(setting.rounds):
        mine, own = _time(setting, predict)
        other, baseline = _time(setting, generate)
        ours_per_second.append(_count(mine, budget) / own)
        theirs_per_second.append(_count(other, budget) / baseline)
        equal = sum(a == b for a, b in zip(mine, other, strict=True))
    ours, compared = statistics.median(ours_per_second), statistics.median(theirs_per_second)
    return [
        Figure("clinie", ours, "tokens/s"),
        Figure("model.generate", compared, "tokens/s"),
        Figure("ratio to model.generate", ours / compared),
        Figure("equal answers", f"{equal} of {len(prompts)}"),
    ]


def _time(setting: Setting, work: Any) -> tuple[list[list[int]], float]:
    setting.synchronize()
    started = time.perf_counter()
    found = work()
    setting.synchronize()
    return found, time.perf_counter() - started


def _count(answers: list[list[int]], budget: int) -> int:
    """Return the number of generated tokens, ends of answers included."""
    return sum(min(len(answer) + 1, budget) for answer in answers)


def _truncate(row: list[int], stop: int) -> list[int]:
    return row[: row.index(stop)] if stop in row else row
