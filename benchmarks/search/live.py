"""Compare searches on real corpora at equal seconds on one core each: the best dev score against time.

    CLINIE_CORPORA=FOLDER python benchmarks/search/live.py --corpora ncbi-disease --seconds 1800 --seeds 13 14 15 -o OUT

The methods are those of :data:`live_methods.METHODS`: clinie's default, clinie with TPE, Hugging Face's
``Trainer.hyperparameter_search``, a plain Ray Tune script with ASHA, and one hand-written training run. Each starts in
a new process on its own core, and its time includes the start of Python, Ray and MLflow. Results in the output folder
are kept, and a second call runs what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from live_methods import METHODS
from subsets import SUBSETS

from clinie_core.data.corpora.brat import Brat

SIZES = {"ncbi-disease": (80, 50), "bc5cdr": (60, 40), "phee": (500, 150), "maccrobat-2020": (30, 15)}
"""Training and dev documents of each corpus: about 30 seconds per epoch on one core."""
GRACE_SECONDS = 900.0
"""Time for a search to end after its limit."""


def write_corpora(names: Sequence[str], folder: Path) -> None:
    """Write subsets of corpora in brat's format."""
    for name in names:
        target = folder / "corpora" / name
        if not target.exists():
            train, dev = SIZES[name]
            corpus = replace(SUBSETS[name], train=train, dev=dev).load()
            for split in ("train", "dev"):
                Brat().write(corpus[split], target / split)


def run_search(folder: Path, name: str, method: str, seed: int, seconds: float, core: int) -> Path:
    """Run one search on one core, unless its curve exists, and return the curve's file."""
    file = folder / "curves" / f"{name}.{method}.{seed}.jsonl"
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.unlink(missing_ok=True)
    script = str(Path(__file__).parent / "live_methods.py")
    options = ["--corpus", folder / "corpora" / name, "--curve", part, "--seconds", seconds, "--seed", seed]
    subprocess.run(
        [sys.executable, "-W", "ignore", script, method, *map(str, options)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        timeout=seconds + GRACE_SECONDS,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    part.rename(file)
    return file


def read_best_so_far(file: Path, seconds: float) -> Iterator[tuple[float, float]]:
    """Yield seconds and best score each time that the best score of a search rises, within the limit."""
    best = 0.0
    for line in file.read_text(encoding="utf-8").splitlines():
        point = json.loads(line)
        if point["score"] > best and point["seconds"] <= seconds:
            best = point["score"]
            yield point["seconds"], best


def find_best(file: Path, seconds: float) -> float:
    """Return the best score that a search reached within a time; 0 before its first epoch."""
    return max((score for _, score in read_best_so_far(file, seconds)), default=0.0)


def draw_plot(curves: dict[str, list[Path]], seconds: float, file: Path, title: str) -> None:
    """Draw the mean of the best score so far over the seeds, against time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    times = [seconds * i / 200 for i in range(201)]
    for method, files in curves.items():
        means = [statistics.mean(find_best(file, time) for file in files) for time in times]
        axes.plot(times, means, label=method, drawstyle="steps-post")
    axes.set(xlabel="seconds since the start of the command", ylabel="best strict F1 on dev", title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Run what is missing, and print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", nargs="+", choices=sorted(SIZES), default=["ncbi-disease"])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--seeds", nargs="+", type=int, default=[13, 14, 15])
    parser.add_argument("--cores", nargs="+", type=int, default=sorted(os.sched_getaffinity(0)), help="one search each")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of curves and plots")
    options = parser.parse_args()
    folder: Path = options.output.resolve()
    write_corpora(options.corpora, folder)
    free = list(options.cores)

    def run(name: str, method: str, seed: int) -> None:
        core = free.pop()
        try:
            run_search(folder, name, method, seed, options.seconds, core)
        finally:
            free.append(core)

    with ThreadPoolExecutor(len(free)) as executor:
        jobs = [
            executor.submit(run, name, method, seed)
            for seed in options.seeds
            for name in options.corpora
            for method in options.methods
        ]
        for job in jobs:
            job.result()
    shares = (1 / 3, 2 / 3, 1.0)
    result: dict[str, dict[str, list[list[float]]]] = {}
    for name in options.corpora:
        curves = {
            method: [folder / "curves" / f"{name}.{method}.{seed}.jsonl" for seed in options.seeds]
            for method in options.methods
        }
        draw_plot(curves, options.seconds, folder / f"{name}.png", f"{name}, {SIZES[name][0]} documents, one core")
        print(f"{name:<20}" + "".join(f"{f'{options.seconds * share:.0f} s':>24}" for share in shares))
        for method, files in curves.items():
            rows = [[round(find_best(file, options.seconds * share), 4) for file in files] for share in shares]
            result.setdefault(name, {})[method] = rows
            cells = [f"{statistics.mean(row):.3f} [{min(row):.3f}, {max(row):.3f}]" for row in rows]
            print(f"  {method:<18}" + "".join(f"{cell:>24}" for cell in cells))
    print(json.dumps({"seconds": options.seconds, "seeds": options.seeds, "best_at_thirds": result}))


if __name__ == "__main__":
    main()
