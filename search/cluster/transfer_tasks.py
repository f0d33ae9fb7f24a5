"""The transfer protocol on Ray: one task per left-out corpus and seed, in parallel as resources allow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import ray

from clinie_core.config import TrialConfig
from clinie_core.data.document import Corpus
from clinie_core.training.transfer import TransferResult
from search.cluster.devices import get_cluster_gpus, get_granted_device, resolve_resources
from search.config.resources import Resources
from search.trials.failure import failure_reason

__all__ = ["TransferFailed", "run_transfers"]


class TransferFailed(RuntimeError):
    """A training of the transfer protocol failed; the message is the reason and contains no document text."""


def run_transfers(
    configs: Sequence[TrialConfig],
    corpora: Mapping[str, Corpus],
    shots: Sequence[int],
    *,
    shot_epochs: int,
    split: str,
    resources: Resources,
    folder: Path,
    allow_text: bool,
) -> Iterator[TransferResult]:
    """Run the transfer protocol.

    Args:
        configs: Configurations to train, one per seed.
        corpora: Corpora by name.
        shots: Numbers of documents of the left-out corpus to train on; 0 is always part of the results.
        shot_epochs: Number of epochs on those documents.
        split: Split of the left-out corpus to score on.
        resources: Resources of one training.
        folder: Folder for the models; finished trainings in it are reused.
        allow_text: Let failure reasons quote error messages.

    Yields:
        Results in the order in which they finish.

    Raises:
        TransferFailed: If a training failed; the others have been cancelled.
    """
    shared = ray.put(dict(corpora))
    resources = resolve_resources(resources, get_cluster_gpus())
    task = ray.remote(_leave_one_out).options(
        num_cpus=resources.cpus_per_worker, num_gpus=float(resources.gpus_per_worker), num_returns="streaming"
    )
    calls = [
        task.remote(
            config.model_dump_json(),
            [shared],
            holdout,
            folder / holdout / f"seed-{config.seed}",
            tuple(shots),
            shot_epochs,
            split,
            max(1, int(resources.cpus_per_worker)),
            allow_text,
        )
        for config in configs
        for holdout in corpora
    ]
    waiting = {call: call for call in calls}
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1)
        for stream in ready:
            try:
                found = ray.get(next(stream))
            except StopIteration:
                del waiting[stream]
                continue
            if isinstance(found, str):
                for call in waiting:
                    ray.cancel(call, force=True)
                raise TransferFailed(found)
            yield found


def _leave_one_out(
    config_json: str,
    corpora: list[ray.ObjectRef[dict[str, Corpus]]],
    holdout: str,
    folder: Path,
    shots: tuple[int, ...],
    shot_epochs: int,
    split: str,
    threads: int,
    allow_text: bool,
) -> Iterator[TransferResult | str]:
    """Yield the results for one left-out corpus and one seed; after a failure, its reason as a string."""
    import torch

    from clinie_core.modeling.distributed import DistributedContext
    from clinie_core.modeling.model_cache import ModelCache
    from clinie_core.training.transfer import evaluate_few_shot, evaluate_zero_shot

    torch.set_num_threads(threads)
    distributed = DistributedContext(device=get_granted_device())
    config, by_name, cache = TrialConfig.model_validate_json(config_json), ray.get(corpora[0]), ModelCache()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield evaluate_zero_shot(config, by_name, holdout, folder, split=split, cache=cache, distributed=distributed)
        for count in shots:
            if count:
                yield evaluate_few_shot(
                    config,
                    by_name[holdout],
                    holdout,
                    folder,
                    count,
                    epochs=shot_epochs,
                    split=split,
                    cache=cache,
                    distributed=distributed,
                )
    except Exception as error:  # Ray would log a traceback, which could quote a note
        yield failure_reason(error, allow_text=allow_text)
