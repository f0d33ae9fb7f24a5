"""Objects are sent by a gloo group whose time limit is independent of that of the main group."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from torch import distributed as dist

from clinie_core.modeling.checkpoint import Checkpoint
from clinie_core.modeling.distributed import DistributedContext
from clinie_core.modeling.weight_file import GatheredTensors
from clinie_core.training.train import train
from tests.core.test_sharding import make_corpus, make_tiny_config

LIMIT = timedelta(seconds=4)
"""Time limit of the main group, which represents NCCL's watchdog."""
DELAY = 1.5 * LIMIT.total_seconds()


def run_rank(folder: Path) -> None:
    """Send objects with a delay, train with slow checkpoints, and write what happened."""
    dist.init_process_group("gloo", timeout=LIMIT)
    found: dict[str, Any] = {}
    groups: list[tuple[str, bool]] = []
    send, gather = dist.broadcast_object_list, dist.all_gather_object

    def record(call: Any) -> Any:
        def recorded(*arguments: Any, group: dist.ProcessGroup | None = None, **options: Any) -> None:
            groups.append((dist.get_backend(group), group is dist.group.WORLD))
            call(*arguments, group=group, **options)

        return recorded

    dist.broadcast_object_list, dist.all_gather_object = record(send), record(gather)
    context = DistributedContext.current()
    context.all_gather(context.rank)
    if context.rank == 0:
        time.sleep(DELAY)
    found["received"] = context.broadcast_from_rank_zero("answer" if context.rank == 0 else None)

    save, delays = Checkpoint.save, [DELAY]

    def save_slowly(self: Checkpoint, folder: Path, weights: GatheredTensors) -> None:
        if delays:  # the best checkpoint of the first epoch, before its first weight is gathered
            time.sleep(delays.pop())
        save(self, folder, weights)

    Checkpoint.save = save_slowly  # type: ignore[method-assign]
    result = train(make_tiny_config("encoder", epochs=2), make_corpus(2), folder=folder / "trial")
    found |= {"epochs": result.last_epoch, "groups": sorted(set(groups))}

    try:  # the main group does not wait that long
        dist.barrier() if context.rank else time.sleep(DELAY)
        found["main"] = "waited"
    except RuntimeError:
        found["main"] = "time limit exceeded"
    (folder / f"{context.rank}.json").write_text(json.dumps(found), encoding="ascii")


@pytest.mark.integration
def test_messages_wait_for_rank_zero_longer_than_the_main_group(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", __name__, str(tmp_path)]
    root = Path(__file__).parents[2]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=root)
    assert process.returncode == 0, process.stderr[-9000:]
    zero, one = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for found in (zero, one):
        assert found["received"] == "answer"
        assert found["epochs"] == 2
        assert found["groups"] == [["gloo", False]]
    assert one["main"] == "time limit exceeded"


if __name__ == "__main__":
    run_rank(Path(sys.argv[1]))
