"""Several processes: one whose CUDA context is unusable, and two that share a GPU."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any
from unittest.mock import patch

import torch

from gpu_sections.results import Figure
from gpu_sections.setting import Setting, build_trainer
from search.cluster.devices import is_usable, limit_memory

__all__ = ["measure_sharing", "measure_unusable_context"]

START_SECONDS = 60
"""Time limit for the other process to be ready."""


def measure_unusable_context(setting: Setting) -> list[Figure]:
    """Cause a device-side assertion in a process, and check that it is found there and harms no other process."""
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.SimpleQueue()
    process = spawn.Process(target=_break_context, args=(setting, answers))
    process.start()
    process.join()
    if answers.empty():
        raise RuntimeError(f"the process ended with {process.exitcode} before it answered")
    before, error, after = answers.get()
    found = float(torch.ones(8, 8, device=setting.device).sum())
    if after or not before or found != 64:
        raise RuntimeError(f"usable before: {before}, after {error}: {after}; sum in another process: {found}")
    return [
        Figure("usable before the assertion", "yes"),
        Figure("error of the assertion", error),
        Figure("usable after the assertion", "no"),
        Figure("device usable in another process", "yes"),
    ]


def _break_context(setting: Setting, answers: Any) -> None:
    """Send whether the device is usable before and after an assertion, and the type of the error between."""
    device = torch.device("cuda", 0)
    if setting.fake:
        with patch.object(torch.cuda, "synchronize", lambda device: None):
            before = is_usable(device)
        failure = torch.AcceleratorError("CUDA error: device-side assert triggered")
        with patch.object(torch.cuda, "synchronize", side_effect=failure):
            answers.put((before, type(failure).__name__, is_usable(device)))
        return
    before, error = is_usable(device), "none"
    try:
        torch.zeros(4, device=device)[torch.tensor([10], device=device)].sum().item()
    except RuntimeError as found:
        error = type(found).__name__
    answers.put((before, error, is_usable(device)))
    os._exit(0)  # the usual end of a process would call CUDA again


def measure_sharing(setting: Setting) -> list[Figure]:
    """Compare the speed of two processes at the same time with that of one."""
    alone = _run_processes(setting, 1)
    both = _run_processes(setting, 2)
    return [
        Figure("one process", alone[0], "tokens/s"),
        Figure("two processes, first", both[0], "tokens/s"),
        Figure("two processes, second", both[1], "tokens/s"),
        Figure("both / one", sum(both) / alone[0]),
    ]


def _run_processes(setting: Setting, count: int) -> list[float]:
    """Return the tokens per second of each process."""
    spawn = multiprocessing.get_context("spawn")
    start, answers = spawn.Barrier(count), spawn.SimpleQueue()
    processes = [spawn.Process(target=_train, args=(setting, 1 / count, start, answers)) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a process ended with {process.exitcode}")
    return [answers.get() for _ in processes]


def _train(setting: Setting, share: float, start: Any, answers: Any) -> None:
    """Train several epochs when all processes are ready, and send the tokens per second of all."""
    limit_memory(setting.device, share)
    trainer = build_trainer(setting, setting.configure_encoder(), steps=setting.steps)
    trainer.train_epoch(1)
    start.wait(START_SECONDS)
    speeds = [trainer.train_epoch(1)["tokens_per_second"] for _ in range(setting.rounds)]
    answers.put(len(speeds) / sum(1 / speed for speed in speeds))  # epochs have equal numbers of tokens
