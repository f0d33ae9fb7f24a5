"""Runs a study's trials with Ray Tune on a warm pool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ray import cloudpickle, tune
from ray.exceptions import RayActorError
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.stopper import Stopper

from clinie_core.config import TrialConfig
from search.config.search_space import SearchSpace
from search.ledger.ledger import Ledger
from search.ledger.records import ENDED, State
from search.pool.pool import CLIENT_CPUS, WorkerPool
from search.tune.schedulers import make_scheduler, replay_trials
from search.tune.searcher import CLIENT_DEATHS, LedgerSearcher, StudyRecorder, TrialListener
from search.tune.stop_signal import StopSignal
from search.tune.trainable import TrialFailure, TrialTrainable

__all__ = ["run_trials", "trial_failure"]

AWS_SECRETS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"}
# Tune would hand them on in each trial's runtime environment, which stands in command lines and in Ray's logs.
class_cache.ENV_VARS_TO_PROPAGATE.difference_update(AWS_SECRETS)

HOPELESS = 5
"""So many failed trials, and no epoch of any, end a search."""


class _SearchStopper(Stopper):
    """Ends the search when the user asks for it, the pool cannot go on, or one trial after the other fails."""

    def __init__(self, pool: WorkerPool, stop: StopSignal, ledger: Ledger) -> None:
        self._pool = pool
        self._stop = stop
        self._failed = 0
        self._hopeful = any(record.epochs for record in ledger.records())

    def __call__(self, trial_id: str, result: dict[str, object]) -> bool:
        return False

    def stop_all(self) -> bool:
        hopeless = not self._hopeful and self._failed >= HOPELESS
        return self._stop.given or hopeless or self._pool.failure() is not None

    def trial_started(self, number: int, config: TrialConfig) -> None:
        """Nothing follows from that."""

    def trial_epoch(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        self._hopeful = True

    def trial_ended(self, number: int, state: State, reason: str | None) -> None:
        self._failed += state in ("failed", "infeasible")

    def trial_recorded(self, number: int) -> None:
        """Nothing follows from that."""

    def __getstate__(self) -> dict[str, object]:
        return {}


def trial_failure(trial: Trial) -> str | None:
    """Why a trial failed, in one line without document text; None where its thin process was lost."""
    file = trial.pickled_error_file  # as this process wrote it: get_pickled_error reads a copy that may lag behind
    if file is None:
        return None
    error: BaseException = cloudpickle.loads(Path(file).read_bytes())
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, TrialFailure):
        return str(cause)
    if isinstance(cause, RayActorError):  # Tune does not try again where a process dies between two trials
        return None
    return f"the trial's own process failed: {type(cause).__name__}"


def run_trials(
    pool: WorkerPool,
    ledger: Ledger,
    space: SearchSpace,
    listeners: list[TrialListener],
    *,
    stop: StopSignal,
    trials: int,
    hours: float | None,
    trials_folder: Path | None,
    tune_folder: str | Path,
) -> None:
    """Run trials until the budget is spent; what is still under way then stays as it is in the ledger.

    Args:
        pool: Started; runs the jobs.
        ledger: Suggests and records.
        space: What to draw from.
        listeners: Who is told after the ledger.
        stop: Asked at every step whether to end.
        trials: How many to run, interrupted ones that go on among them.
        hours: After so long no trial goes on; None for no limit.
        trials_folder: Where each trial's checkpoints go; None keeps none.
        tune_folder: Where Tune keeps its own files; a folder or a URL.

    Raises:
        DiskFull: If a disk is full.
        LedgerUnavailable: If the ledger cannot be written.
    """
    file = space.file
    searcher = LedgerSearcher(ledger, space, trials)
    stopper = _SearchStopper(pool, stop, ledger)
    scheduler = make_scheduler(file.algorithm, file.objective[0], file.budget.epochs)
    replay_trials(scheduler, (record for record in ledger.records() if record.state in ENDED))
    config = {"board": pool.board_name, "folder": str(trials_folder) if trials_folder else None}
    tuner = tune.Tuner(
        tune.with_resources(TrialTrainable, {"cpu": CLIENT_CPUS}),
        param_space=config,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,  # the searcher says when there are enough
            max_concurrent_trials=pool.groups,
            time_budget_s=hours * 3600 if hours else None,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=ledger.name,
            storage_path=str(tune_folder),
            callbacks=[StudyRecorder(ledger, searcher, [stopper, *listeners], trial_failure)],
            failure_config=tune.FailureConfig(max_failures=CLIENT_DEATHS),
            stop=stopper,
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except Exception:
        if searcher.error is None:
            raise
        raise searcher.error from None


def _trial_name(trial: Trial) -> str:
    return f"trial-{trial.config['number']:05d}-{trial.trial_id}"
