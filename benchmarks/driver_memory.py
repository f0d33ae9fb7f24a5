"""Growth of the driver's memory: its resident set after 100 and after 1,000 empty trials."""

from __future__ import annotations

import gc
import json
import tempfile
from pathlib import Path

import psutil
from pool_trials import EndTimes, make_empty_program, run_pool_trials

from search.cluster.session import ray_session

TRIALS = 1000


def main() -> None:
    """Measure the memory and print a table and one JSON object."""
    resident: dict[int, float] = {}

    def measure(count: int) -> None:
        if count % 100 == 0:
            gc.collect()
            resident[count] = psutil.Process().memory_info().rss / 2**20

    ends = EndTimes(measure)
    with tempfile.TemporaryDirectory() as scratch, ray_session(Path(scratch), cpus=2):
        run_pool_trials(Path(scratch), TRIALS, make_empty_program, ends)
    print(f"{'trials':>8}{'RSS MiB':>10}")
    for count, mb in resident.items():
        print(f"{count:>8}{mb:>10.0f}")
    seconds = (ends.times[-1] - ends.times[0]) / (TRIALS - 1)
    growth = (resident[1000] - resident[100]) / 900
    print(
        json.dumps(
            {
                "rss_mb_at_100": round(resident[100]),
                "rss_mb_at_1000": round(resident[1000]),
                "kib_per_trial": round(growth * 1024, 1),
                "seconds_per_trial": round(seconds, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
