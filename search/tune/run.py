"""Execution of a study's trials with Ray Tune on a worker pool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ray
from ray import cloudpickle, tune
from ray.exceptions import RayActorError
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.stopper import Stopper

from clinie_core.errors import Problem
from search.cluster.capacity import HEAD_RESOURCE
from search.config.search_space import SearchSpace
from search.config.stopping import StoppingSettings
from search.control.command_processor import CommandProcessor
from search.ledger.budget import StudyBudget
from search.ledger.ledger import Ledger
from search.ledger.records import ENDED
from search.pool.pool import WorkerPool
from search.trials.job import DEFAULT_CLASS
from search.trials.listener import FinalState, TrialListener
from search.trials.result import EpochResult
from search.trials.retry import MAX_ACTOR_LOSSES
from search.trials.spec import TrialSpec
from search.tune.ended_trials import NoProgress
from search.tune.recorder import StudyRecorder
from search.tune.running_trials import RunningTrials
from search.tune.schedulers import make_scheduler, replay_trials
from search.tune.searcher import LedgerSearcher, ListClasses
from search.tune.shared_searcher import SharedSearcher
from search.tune.stop_signal import StopSignal
from search.tune.trainable import PoolUnavailable, RunSettings, TrialTrainable
from search.tune.trial_control import TrialControl
from search.tune.trials_elsewhere import TrialsElsewhere

__all__ = ["MAX_FAILED_TRIALS", "read_trial_error", "run_trials"]

AWS_SECRETS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"}
# Tune would copy them to each trial's runtime environment, which appears in command lines and in Ray's logs.
class_cache.ENV_VARS_TO_PROPAGATE.difference_update(AWS_SECRETS)

NODE_ID_LABEL = "ray.io/node-id"
ACTOR_SHARE = 0.0001
"""Share of the resource with the name of the driver's node that a Tune actor reserves; Tune refuses no resources."""
MAX_FAILED_TRIALS = 5
"""Number of failed trials that ends a search if no trial has finished an epoch."""


class _FailureMonitor(TrialListener):
    """Counter of failed trials.

    Args:
        any_epoch: Whether an earlier run of the search has recorded an epoch.
    """

    def __init__(self, *, any_epoch: bool) -> None:
        self._any_epoch = any_epoch
        self._failed = 0

    @property
    def all_fail(self) -> bool:
        """True if too many trials have failed and none has finished an epoch."""
        return not self._any_epoch and self._failed >= MAX_FAILED_TRIALS

    def on_epoch_end(self, number: int, result: EpochResult) -> None:
        """Note that trials can work."""
        self._any_epoch = True

    def on_trial_end(self, number: int, state: FinalState, reason: str | None) -> None:
        """Count a trial that failed."""
        self._failed += state in ("failed", "infeasible")


class _SearchStopper(Stopper):
    """Stopper that ends the search when its control does."""

    def __init__(self, control: TrialControl) -> None:
        self._control = control

    def __call__(self, trial_id: str, result: dict[str, object]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._control.is_over()

    def __getstate__(self) -> dict[str, object]:
        return {}


def read_trial_error(trial: Trial) -> str | None:
    """Return the reason why Tune ended a trial with an error, in one line without document text.

    Returns:
        None if the trial lost its Tune actor.
    """
    file = trial.pickled_error_file  # as this process wrote it: get_pickled_error reads a copy that may lag behind
    if file is None:
        return None
    error: BaseException = cloudpickle.loads(Path(file).read_bytes())
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, PoolUnavailable):
        return str(cause)
    if isinstance(cause, RayActorError):  # Tune does not retry if an actor dies between two trials
        return None
    return f"the Tune actor of the trial failed: {type(cause).__name__}"


def run_trials(
    pool: WorkerPool,
    ledger: Ledger,
    space: SearchSpace,
    listeners: list[TrialListener],
    *,
    stop: StopSignal,
    trials: int,
    budget: StudyBudget | None,
    trials_folder: Path | None,
    tune_folder: str | Path,
    dev_documents: int | None = None,
    list_classes: ListClasses = lambda config: (DEFAULT_CLASS,),
    commands: CommandProcessor | None = None,
    on_warning: Callable[[Problem], None] = lambda problem: None,
    on_wait: Callable[[str | None], None] = lambda wait: None,
) -> str | None:
    """Run trials until the budget is spent. Trials that are running then remain unchanged in the ledger.

    Args:
        pool: The started worker pool.
        ledger: The study.
        space: The search space.
        listeners: Notified of the events of trials; see :mod:`search.trials.listener` for their order.
        stop: Ends the search when it is given.
        trials: Number of trials to run, including interrupted ones.
        budget: Limits on time; None for no limit.
        trials_folder: Folder for the checkpoints of all trials; None writes none.
        tune_folder: Folder or URL for Tune's own files.
        dev_documents: Number of documents of the dev split, which determines the grace period unless it is given.
        list_classes: Returns the names of the resource classes that a trial tries in turn.
        commands: Decides the commands that the search receives; by default, one without a listener.
        on_warning: Receives the reason why a worker group was drained.
        on_wait: Receives, at every step, what the pool waits for; None while it does not wait for nodes.

    Returns:
        Why the search ended before it ran all trials; None if it ran all, or for another reason.

    Raises:
        DiskFull: If a disk is full.
        LedgerUnavailable: If the ledger cannot be written.
    """
    file, records = space.file, ledger.records()
    running = RunningTrials()
    monitor = _FailureMonitor(any_epoch=any(record.epochs for record in records))
    scheduler = make_scheduler(StoppingSettings.from_space_file(file, dev_documents))
    replay_trials(scheduler, (record for record in records if record.state in ENDED))
    settings = RunSettings(pool.queue_name, str(trials_folder) if trials_folder else None)
    recorder = StudyRecorder(ledger, running, [monitor, *([budget] if budget else []), *listeners], read_trial_error)
    processor = commands or CommandProcessor(ledger, space)
    searcher = LedgerSearcher(ledger, space, trials, running, pool.may_start_trial, recorder.answer, list_classes)
    if ledger.leases is not None:
        searcher = SharedSearcher(
            ledger,
            ledger.leases,
            space,
            running,
            pool.may_start_trial,
            recorder.answer,
            list_classes,
            read_budget=lambda: processor.trials,
            elsewhere=TrialsElsewhere(ledger, scheduler, recorder),
        )

    def must_end() -> bool:
        pool.refresh(searcher.unfinished)
        on_wait(pool.describe_wait() or _describe_pause(control, running))
        for warning in pool.take_warnings():
            on_warning(warning)
        if budget is not None:
            budget.add_time(is_paused=control.is_paused)
            if budget.is_use_spent:
                return True
        return stop.given or monitor.all_fail or pool.failure() is not None

    control = TrialControl(
        processor,
        running,
        searcher,
        recorder,
        pool.queue.withdraw.remote,
        hours=budget.hours_left if budget is not None else None,
        must_end=must_end,
    )
    if budget is not None:
        searcher.find_end = budget.find_end
    tuner = tune.Tuner(
        tune.with_resources(TrialTrainable, _request_drivers_node()),
        param_space=settings.to_tune_config(),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,  # the searcher ends the search
            max_concurrent_trials=pool.groups,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=ledger.name,
            storage_path=str(tune_folder),
            callbacks=[recorder, NoProgress()],
            failure_config=tune.FailureConfig(max_failures=MAX_ACTOR_LOSSES),
            stop=_SearchStopper(control),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except Exception:
        if running.error is None:
            raise
        raise running.error from None
    finally:
        if budget is not None and running.error is None:
            budget.add_time(is_paused=control.is_paused)
            budget.save()
    is_cut = searcher.unfinished > 0
    return searcher.ended_because or (budget.find_spent_limit() if budget is not None and is_cut else None)


def _describe_pause(control: TrialControl, running: RunningTrials) -> str | None:
    """Return what a command has paused; None if nothing runs or may start for another reason."""
    if control.is_paused:
        return "the search is paused"
    if running.paused and not len(running):
        return f"waiting for {len(running.paused)} paused trials"
    return None


def _request_drivers_node() -> tune.PlacementGroupFactory:
    """Return the resources of a Tune actor: a little of the driver's node, which trains nothing.

    Elsewhere the actor would keep a node busy that an autoscaler could release, and it would end with the node.
    """
    context = ray.get_runtime_context()
    node = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    resource = next(name for name in node["Resources"] if name.startswith("node:") and name != HEAD_RESOURCE)
    selector = {NODE_ID_LABEL: context.get_node_id()}  # nodes of one machine share the resource's name
    return tune.PlacementGroupFactory([{resource: ACTOR_SHARE}], bundle_label_selector=[selector])


def _trial_name(trial: Trial) -> str:
    return f"trial-{TrialSpec.from_tune_config(trial.config).number:05d}-{trial.trial_id}"
