"""The transfer protocol on Ray: a task for each corpus left out and each seed, as many at once as there is room for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import ray

from clinie_core.config import TrialConfig
from clinie_core.data.document import Corpus
from clinie_core.training.transfer import TransferResult
from search.config.space_file import Resources
from search.trials.failure import failure_reason

__all__ = ["TransferFailed", "run_transfers"]


class TransferFailed(RuntimeError):
    """A training of the protocol failed; the message is its reason and holds no document text."""


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
    """Run the protocol.

    Args:
        configs: What to train, one for each seed.
        corpora: Each by its name.
        shots: Numbers of documents of the corpus left out; 0 is always among the results.
        shot_epochs: How often those documents are trained on.
        split: On which split of the corpus left out to score.
        resources: What one training takes.
        folder: Takes the models; what is there already is not trained again.
        allow_text: Whether reasons may carry an error's own words.

    Yields:
        Each result, as soon as it is there.

    Raises:
        TransferFailed: If a training failed; the others have then been stopped.
    """
    shared = ray.put(dict(corpora))
    task = ray.remote(_leave_one_out).options(
        num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker, num_returns="streaming"
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
    """All results of one corpus left out and one seed; a reason in words where it failed."""
    import torch

    from clinie_core.modeling.model_cache import ModelCache
    from clinie_core.training.transfer import few_shot_result, zero_shot_result

    torch.set_num_threads(threads)
    config, every, shelf = TrialConfig.model_validate_json(config_json), ray.get(corpora[0]), ModelCache()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield zero_shot_result(config, every, holdout, folder, split=split, shelf=shelf)
        for count in shots:
            if count:
                yield few_shot_result(
                    config, every[holdout], holdout, folder, count, epochs=shot_epochs, split=split, shelf=shelf
                )
    except Exception as error:  # a traceback in Ray's logs could quote a note
        yield failure_reason(error, allow_text=allow_text)
