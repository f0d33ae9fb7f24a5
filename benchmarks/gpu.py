"""Speed, memory and faults of clinie on one GPU, without a hub and without Ray.

Each section runs in its own process with a time limit. All models have random weights. The result is a table, and one
JSON object as the last line. ``--fake`` runs the sections on a CPU with small models: its figures are simulated and
say nothing about a GPU.

    python benchmarks/gpu.py [--fake] [--quick] [--only SECTION ...]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gpu_sections.results import Figure, NotRun, SectionResult
from gpu_sections.setting import Setting
from pydantic import TypeAdapter

LIMIT, FAKE_LIMIT = 470.0, 600.0
"""Time limit of all sections in seconds, on a GPU and on a CPU, which may be busy."""
SHORTEST = 5.0
"""A section with fewer seconds left does not start."""


@dataclass(frozen=True)
class Section:
    """One part of the benchmark.

    Args:
        module: Module of ``gpu_sections`` that measures it.
        function: Function of that module.
        seconds: Time limit on a GPU; a CPU has four times as long.
    """

    module: str
    function: str
    seconds: float


SECTIONS = {
    "training-encoder": Section("training", "measure_encoder_training", 90),
    "training-decoder": Section("training", "measure_decoder_training", 90),
    "generation": Section("generation", "measure_generation", 90),
    "memory-estimate": Section("memory", "measure_estimate", 120),
    "qlora": Section("qlora", "measure_qlora", 60),
    "out-of-memory": Section("memory", "measure_ladder", 60),
    "memory-after-trials": Section("memory", "measure_leftovers", 60),
    "unusable-context": Section("processes", "measure_unusable_context", 60),
    "two-processes": Section("processes", "measure_sharing", 90),
}
RESULT: TypeAdapter[SectionResult] = TypeAdapter(SectionResult)


def run_section(name: str, setting: Setting, result: Path) -> None:
    """Measure a section in this process and write its result.

    Args:
        name: Name of the section.
        setting: Device and size.
        result: The file to write.
    """
    import importlib

    import torch

    started = time.perf_counter()
    if setting.fake:
        torch.set_num_threads(1)
    section, device = SECTIONS[name], setting.name_device()
    measure: Callable[[Setting], list[Figure]] = getattr(
        importlib.import_module(f"gpu_sections.{section.module}"), section.function
    )
    try:
        figures = tuple(measure(setting))
        found = SectionResult("simulated" if setting.fake else "measured", 0.0, figures, device=device)
    except NotRun as reason:
        found = SectionResult("not run", 0.0, reason=str(reason), device=device)
    seconds = round(time.perf_counter() - started, 1)
    result.write_bytes(RESULT.dump_json(replace(found, seconds=seconds)))


def start_section(name: str, setting: Setting, limit: float) -> SectionResult:
    """Measure a section in a process of its own.

    Args:
        name: Name of the section.
        setting: Device and size.
        limit: Seconds after which its processes are killed.
    """
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    if setting.fake:
        environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    options = [option for option in ("fake", "quick") if getattr(setting, option)]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "errors").open("w+", encoding="utf-8") as errors:
        result = Path(folder) / "result.json"
        command = [sys.executable, __file__, *(f"--{option}" for option in options)]
        process = subprocess.Popen(
            [*command, "--section", name, "--result", str(result)],
            stdout=errors,
            stderr=errors,
            env=environment,
            start_new_session=True,  # so that its own processes end with it
        )
        try:
            process.wait(limit)
            reason = f"the process ended with {process.returncode}"
        except subprocess.TimeoutExpired:
            reason = f"not finished after {limit:.0f} s"
        finally:
            with suppress(ProcessLookupError):  # all of its processes may have ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        seconds = round(time.perf_counter() - started, 1)
        if result.is_file() and process.returncode == 0:
            return replace(RESULT.validate_json(result.read_bytes()), seconds=seconds)
        errors.seek(0)
        lines = [line for line in errors.read().splitlines() if line.strip()]
        print(*lines[-30:], sep="\n", file=sys.stderr)
        last = f": {lines[-1][:200]}" if lines and process.returncode > 0 else ""
        return SectionResult("failed", seconds, reason=reason + last)


def print_header() -> None:
    """Print the header of the table."""
    print(f"{'section':<21}{'figure':<42}{'value':>26} {'unit':<9}status", flush=True)


def print_rows(name: str, result: SectionResult) -> None:
    """Print one row for each figure of a section, or one that says why there is none.

    Rows are printed when a section ends, so that they remain if the benchmark is ended early.
    """
    for figure in result.figures:
        print(f"{name:<21}{figure.name:<42}{figure.format_value():>26} {figure.unit:<9}{result.status}", flush=True)
    if not result.figures:
        print(f"{name:<21}{result.status}: {result.reason}", flush=True)


def build_summary(results: Mapping[str, SectionResult], setting: Setting, seconds: float) -> dict[str, Any]:
    """Return the JSON object of all results."""
    import torch

    return {
        "device": next((r.device for r in results.values() if r.device), ""),
        "simulated": setting.fake,
        "quick": setting.quick,
        "torch": torch.__version__,
        "seconds": round(seconds, 1),
        "sections": {
            name: {k: v for k, v in asdict(result).items() if k not in ("device", "figures") and v != ""}
            | {"figures": [asdict(figure) for figure in result.figures]}
            for name, result in results.items()
        },
    }


def main() -> int:
    """Run the sections; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fake", action="store_true", help="use small models on a CPU; figures are simulated")
    parser.add_argument("--quick", action="store_true", help="repeat less")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--section", choices=list(SECTIONS), help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    setting = Setting(arguments.fake, arguments.quick)
    if arguments.section:
        run_section(arguments.section, setting, arguments.result)
        return 0
    import torch

    missing = "" if setting.fake or torch.cuda.is_available() else "no CUDA GPU (--fake simulates one on a CPU)"
    started, results = time.perf_counter(), {}
    print_header()
    for name in arguments.only:
        left = (FAKE_LIMIT if setting.fake else LIMIT) - (time.perf_counter() - started)
        if missing or left < SHORTEST:
            results[name] = SectionResult("not run", 0.0, reason=missing or "the benchmark's time limit is reached")
        else:
            print(f"{name} ...", file=sys.stderr, flush=True)
            results[name] = start_section(name, setting, min(left, SECTIONS[name].seconds * (4 if setting.fake else 1)))
        print_rows(name, results[name])
    print(json.dumps(build_summary(results, setting, time.perf_counter() - started)))
    return int(any(result.status == "failed" for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
