"""The runner of a study: connects space, corpus, ledger, tracking, worker pool and Tune."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from clinie_core.data.corpora.summary import summarize
from clinie_core.data.schema import Schema
from clinie_core.errors import Problem, fail
from search.config.resources import find_currency
from search.config.validation import ValidatedSpace, validate_space_file
from search.control.command_log import CommandLog
from search.control.command_processor import CommandProcessor
from search.control.commands import CommandEntry, now
from search.control.control_state import ControlState
from search.ledger.budget import StudyBudget, read_spent_hours
from search.ledger.ledger import Ledger, Storage
from search.ledger.records import ENDED, sum_usage
from search.ledger.storage import open_storage
from search.ledger.stored_space import conceal_paths, locate_corpora, read_stored_space, store_space
from search.ledger.studies import has_study
from search.ledger.winners import CorpusIdentity
from search.storage.home import LEDGER_VARIABLE, Home, hide_password
from search.study.creation import create_study
from search.study.gpu_shares import choose_gpu_shares
from search.study.joining import require_new_name, require_same_space
from search.study.limits import FormulationLimits, describe_limits, find_unexpected_limits, measure_limits
from search.study.lock import hold_study
from search.study.outcome import StudyFailed, StudyOutcome
from search.study.placement import Placement
from search.study.progress import DEV_DOCUMENTS, Progress
from search.study.sizes import SizeEstimator
from search.tracking.metric_names import name_best
from search.trials.job import FittingMemory
from search.trials.listener import TrialListener

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from search.study.checkpoint_manager import CheckpointManager
    from search.tracking.tracker import Tracker

__all__ = ["StudyRunner"]

Result = TypeVar("Result")

PARENT_RUN = "parent_run"
"""Attribute of a study: the id of its MLflow run."""
FITTING = "fitting_memory"
"""Attribute of a study: micro-batch and recomputation that fitted into memory after a shortage, by memory key."""


class StudyRunner:
    """Runner of a study over a validated space and its corpus.

    Args:
        validated: The space with its corpus.
        home: The home folder.
    """

    def __init__(self, validated: ValidatedSpace, home: Home) -> None:
        assert validated.corpus is not None, "a search needs a corpus that could be read"
        self.file = validated.file
        self.home = home
        self.where = validated.where
        self.space = validated.space
        self.corpus = validated.corpus
        self.detections = validated.detections
        self._stopped = False
        self._ended_because: str | None = None
        self._limits: list[FormulationLimits] = []
        self.warnings: list[Problem] = [*self.corpus.notices, *summarize(self.corpus).warnings()]

    @classmethod
    def open(cls, home: Home, name: str) -> StudyRunner:
        """Return the runner of a study that exists.

        Raises:
            InputError: If there is no study of that name, or its corpus has changed since it began.
        """
        attributes = Ledger.open(open_storage(home), name).attributes
        file = locate_corpora(read_stored_space(attributes), home)
        study = cls(validate_space_file(file, str(attributes["where"])), home)
        if study.corpus.digest() != attributes["corpus_digest"]:
            fail("corpus.path", f"the corpus of study {name!r} has changed since it began", remedy="start a new study")
        return study

    @classmethod
    def extend(
        cls, home: Home, name: str, *, trials: int, hours: float | None, cost: float | None = None
    ) -> StudyRunner:
        """Add trials to the budget of a study in the ledger, and return the study's runner.

        Args:
            home: The home folder.
            name: Name of the study.
            trials: Number of additional trials.
            hours: Limit on the run time from now, in hours; None keeps the present limit over all runs.
            cost: Limit on the cost from now, in the currency of ``budget.cost``; None keeps the present limit.

        Raises:
            InputError: As for :meth:`open`, if a search of the study is running, or if a limit on time or money is
                spent.
        """
        study = cls.open(home, name)
        # The user asks for these trials, so that the rule does not end the search again.
        budget = study.file.budget.model_copy(update={"trials": study.file.budget.trials + trials, "stop_when": None})
        storage = open_storage(home)
        ledger = Ledger.open(storage, name)
        spent = read_spent_hours(ledger)
        added = ControlState.from_entries(CommandLog(ledger).read()).added_hours
        if cost is not None:
            if budget.cost is None:
                fail("--cost", f"study {name!r} has no limit on its cost (budget.cost)", remedy="remove the option")
            amount = StudyBudget(ledger, budget).cost + cost
            budget = budget.model_copy(update={"cost": budget.cost.model_copy(update={"amount": amount})})
        elif budget.cost is not None and StudyBudget(ledger, budget).cost >= budget.cost.amount:
            fail("--cost", f"study {name!r} has spent its {budget.cost}", remedy="pass the amount to add")
        if hours is not None:
            least = budget.hours or 0.0  # what commands have added remains
            budget = budget.model_copy(update={"hours": max(least, spent + hours - added)})
        elif budget.hours is not None and spent >= budget.hours + added:
            fail("--hours", f"study {name!r} has spent its {budget.hours:g} hours", remedy="pass the hours to add")
        study.space = study.space.with_budget(budget)
        study.file = study.space.file
        with hold_study(home, name, storage) as leases:
            if leases is not None and leases.has_others():
                remedy = f"add to its budget with: clinie add-budget {name} --trials {trials}"
                fail("study", f"a search of {name!r} is running", remedy=remedy)
            Ledger.open(storage, name).set_attribute("space", store_space(study.file, home))
        return study

    @classmethod
    def repeat_trial(cls, home: Home, name: str, number: int, *, seed: int | None = None) -> StudyRunner:
        """Prepare to train the configuration of one trial again, as a study named ``NAME-trial-NUMBER``.

        Args:
            home: The home folder.
            name: Name of the study that has the trial.
            number: The trial's number.
            seed: Another seed than the trial's; it becomes part of the new study's name.

        Raises:
            InputError: If there is no such study or trial.
        """
        ledger = Ledger.open(open_storage(home), name)
        record = next((record for record in ledger.records() if record.number == number), None)
        config = record.config if record is not None else None
        if record is None or config is None:
            fail("trial", f"study {name!r} has no trial {number}", allowed="a number that `clinie status` shows")
        if config.fold is not None:
            found = f"trial {number} is the run of trial {record.repeats} on fold {config.fold}"
            fail("trial", found, allowed="a trial on the first fold", remedy=f"repeat trial {record.repeats}")
        repeated = f"{name}-trial-{number}"
        if seed is not None:
            config, repeated = config.model_copy(update={"seed": seed}), f"{repeated}-seed-{seed}"
        stored = locate_corpora(read_stored_space(ledger.attributes), home)
        file = stored.with_single_configuration(config, repeated)
        return cls(validate_space_file(file, str(ledger.attributes["where"])), home)

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.file.study

    def find_unexpected_limits(self) -> list[Problem]:
        """Return warnings for formulations that cannot express a part of the concepts; loads the tokenizers."""
        self._limits, problems = measure_limits(self.space, self.corpus)
        return find_unexpected_limits(self._limits, self.where) + problems

    def run(
        self,
        *,
        resume: bool = False,
        join: bool = False,
        progress: Progress | None = None,
        allow_text: bool = False,
    ) -> StudyOutcome:
        """Run or resume the search until its budget is spent or it is interrupted.

        Args:
            resume: Continue the study of this name in the home folder. On a PostgreSQL ledger, take part in its search
                if other drivers are running.
            join: As ``resume``, if there is a study of this name.
            progress: Progress display; None for no display.
            allow_text: Let failure reasons quote error messages.

        Returns:
            The outcome, with all trials of the study.

        Raises:
            InputError: If a study of that name exists (without ``resume``), is running and cannot be joined, or has
                another space (with ``join``).
            StudyFailed: If every trial failed, or the workers cannot start.
            DiskFull: If a disk is full.
            LedgerUnavailable: If the ledger cannot be written.
        """
        from search.cluster.capacity import check_cluster
        from search.cluster.session import ray_session
        from search.study.checkpoint_manager import CheckpointManager
        from search.study.page import make_view
        from search.tracking.connection import connect, require_reachable, require_run
        from search.tracking.datasets import summarize_splits
        from search.tracking.tracker import StudyFacts, Tracker

        storage, client = open_storage(self.home), connect(self.home)
        require_reachable(client)
        if progress:
            progress.prepare(self.name, str(self.home.root))
        _show(check_cluster(self.file.resources, self.where, self.home.root), progress)  # before the study exists
        with hold_study(self.home, self.name, storage) as leases, ExitStack() as stack:
            if join and leases is None and has_study(storage, self.name):
                fail(
                    "--join",
                    "several drivers need a PostgreSQL ledger, or the proxy of one",
                    remedy=f"set {LEDGER_VARIABLE}",
                )
            run_exclusively = leases.run_exclusively if leases is not None else _call
            if not resume:
                resume = run_exclusively(lambda: self._create_or_join(storage, client, join=join))
            ledger = Ledger.open(storage, self.name, self.file.algorithm)
            ledger.leases = leases
            if leases is not None and leases.has_others():
                require_run(client, ledger.attributes.get(PARENT_RUN))
            facts = StudyFacts(
                self.name,
                self._make_tags(allow_text=allow_text),
                summarize_splits(self.corpus, self.file.corpus_title),
                make_view(self.space),
                [row.as_json() for row in self._limits],
            )
            tracker = run_exclusively(lambda: Tracker(client, self.home, facts, ledger.set_locations))
            stack.callback(tracker.stop)
            ledger.set_attribute(PARENT_RUN, tracker.parent)
            ledger.set_attribute(DEV_DOCUMENTS, len(self.corpus["dev"]))
            if self.home.server and hide_password(self.home.server) == self.home.server:
                ledger.set_attribute("server", self.home.server)
            checkpoints = CheckpointManager(
                ledger, tracker, self.home, self.file.objective, self.file.budget.checkpoints
            )
            listeners: list[TrialListener] = [checkpoints, tracker, *([progress] if progress else [])]
            ended = [record for record in ledger.records() if record.state in ENDED]
            checkpoints.remove_stale_files(record.number for record in ended)
            commands = self._read_commands(ledger, tracker, progress, resume=resume)
            remaining = commands.trials - sum(record.repeats is None for record in ended)
            broken = None
            self._ended_because = StudyBudget(ledger, commands.budget).find_spent_limit()
            is_open = remaining > 0 or ledger.count_finals(self.file.final_runs) > 0
            if is_open and self._ended_because is None:
                with ray_session(self.home.root):
                    broken = self._run_trials(
                        ledger, listeners, max(0, remaining), commands, progress, allow_text=allow_text
                    )
            return self._finish(ledger, tracker, checkpoints, commands.trials, broken)

    def _read_commands(
        self, ledger: Ledger, tracker: Tracker, progress: Progress | None, *, resume: bool
    ) -> CommandProcessor:
        """Decide the commands that were sent while no search was running.

        A resumed search ends all pauses, unless other drivers are running.
        """
        started = now()

        def show(entry: CommandEntry) -> None:
            decision = entry.decision
            assert decision is not None, "the entry was decided"
            trial = entry.command.trial if decision.is_accepted else None
            tracker.add_command(entry.command.id, trial, str(entry))
            if progress and decision.at >= started:
                progress.show_command(entry)

        commands = CommandProcessor(ledger, self.space, on_decision=show)
        if progress:
            progress.add_trials(commands.state.added_trials)
        if resume and not (ledger.leases is not None and ledger.leases.has_others()):
            commands.end_pauses()
        else:
            commands.process()
        return commands

    def _make_tags(self, *, allow_text: bool) -> dict[str, str]:
        from search.tracking.history import make_history_tags

        return {
            "clinie.space_digest": conceal_paths(self.file).digest(),
            "clinie.corpus": self.file.corpus_title,
            "clinie.corpus_format": "+".join(source.format for source in self.file.corpus),
            **make_history_tags(self.file.task, self.file.objective[0], CorpusIdentity.from_corpus(self.corpus)),
            "clinie.text": "allowed" if allow_text else "kept out",
            **({"clinie.representable": describe_limits(self._limits)} if self._limits else {}),
        }

    def _create_or_join(self, storage: Storage, client: MlflowClient, *, join: bool) -> bool:
        """Create the study, and return whether it existed."""
        if not has_study(storage, self.name):
            create_study(storage, client, self.space, self.corpus, self.where, self.home)
            return False
        ledger = Ledger.open(storage, self.name)
        if not join:
            require_new_name(ledger, self.file)
        require_same_space(ledger, self.file, self.corpus.digest(), self.home)
        return True

    def _run_trials(
        self,
        ledger: Ledger,
        listeners: list[TrialListener],
        trials: int,
        commands: CommandProcessor,
        progress: Progress | None,
        *,
        allow_text: bool,
    ) -> str | None:
        """Run the remaining trials; return why the worker pool failed, or None if it did not."""
        from search.cluster.capacity import read_capacity
        from search.pool.pool import WorkerPool
        from search.pool.program import TrainingProgram
        from search.tune.run import run_trials
        from search.tune.stop_signal import StopSignal

        folder = self.home.study_folder(self.name)
        program = TrainingProgram.share(self.corpus, self.home.trials_url(self.name))
        stop = StopSignal()
        known = {key: FittingMemory(*values) for key, values in ledger.attributes.get(FITTING, {}).items()}
        place = self.home.ray_folder(self.name)
        schema = Schema.from_documents(self.corpus["train"], self.file.view.descriptions)
        estimator = SizeEstimator(self.space, schema, self.corpus, ())
        placement = Placement(self.file, estimator.measure)
        with WorkerPool(
            choose_gpu_shares(self.space, estimator, read_capacity()),
            program,
            place,
            allow_text=allow_text,
            fitting=known,
            trials=trials + ledger.count_finals(self.file.final_runs),
            wait_minutes=self.file.budget.wait_minutes,
            where=self.where,
        ) as pool:
            shares = {own.name: own.gpus_per_worker for own in pool.classes}
            ledger.set_attribute("gpus_per_worker", shares if len(shares) > 1 else pool.classes[0].gpus_per_worker)
            with progress.watch(ledger) if progress else nullcontext(), stop.listen():
                gpus = max(float(own.gpus_per_worker) * own.workers_per_trial for own in pool.classes)
                budget = StudyBudget(ledger, commands.budget, gpus)
                self._ended_because = run_trials(
                    pool,
                    ledger,
                    self.space,
                    listeners,
                    stop=stop,
                    trials=trials,
                    budget=budget,
                    trials_folder=folder / "trials",
                    tune_folder=f"{self.home.ray_folder(self.name)}/tune",
                    list_classes=placement.list_names,
                    commands=commands,
                    dev_documents=len(self.corpus["dev"]),
                    on_warning=lambda problem: _show([problem], progress),
                    on_wait=progress.show_wait if progress else lambda wait: None,
                )
            fitting = {key: [f.micro_batch, f.recomputation] for key, f in pool.get_fitting_memory().items()}
            if fitting:
                ledger.set_attribute(FITTING, {**ledger.attributes.get(FITTING, {}), **fitting})
            broken = pool.failure()
        self._stopped = stop.given
        return broken

    def _finish(
        self, ledger: Ledger, tracker: Tracker, checkpoints: CheckpointManager, trials: int, broken: str | None
    ) -> StudyOutcome:
        """Mark the open trials of this driver as interrupted, and close the study's run if this is its last driver."""
        from search.study.page import describe_study

        tracker.drain()  # then the ledger has the runs of all trials
        for number in ledger.interrupt(broken or "the search ended before the trial"):
            checkpoints.mark_interrupted(ledger.record(number))
        is_last = ledger.leases is None or ledger.leases.begin_closing()
        if is_last:
            checkpoints.end()
        tracker.drain()  # then the ledger has the locations of all checkpoints
        records, ranked = ledger.records(), ledger.rank()
        best = ranked[0].record if ranked else None
        interrupted = [record.number for record in records if record.state == "interrupted"]
        summary: dict[str, Any] = {f"trials/{state}": sum(r.state == state for r in records) for state in ENDED}
        usage, currency = sum_usage(records).as_metrics(), find_currency(self.file.resources)
        summary |= {f"usage/{name}": value for name, value in usage.items()}
        summary |= {"clinie.currency": currency} if currency and "cost" in usage else {}
        if best is not None:
            summary |= name_best(best.metrics)
            summary["clinie.best_trial"] = str(best.number)
            summary[f"best_mean_{ledger.metrics[0]}"] = ranked[0].mean
        if self._ended_because is not None:
            summary["clinie.ended_because"] = self._ended_because
        failed = [record for record in records if record.state in ("failed", "infeasible")]
        all_failed = bool(records) and len(failed) == len(records)
        status = "FAILED" if all_failed else "SCHEDULED" if interrupted else "FINISHED"
        if is_last:
            tracker.close(status, summary, describe_study(self.file, ranked[0] if ranked else None))
        waiting = tracker.drain()
        if all_failed:
            raise StudyFailed(f"all {len(failed)} trials failed; the last one: {failed[-1].reason}")
        if broken and sum(r.state in ENDED for r in records) < trials:
            raise StudyFailed(f"{broken}; then continue with: clinie resume {self.name}")
        return StudyOutcome(self.name, records, best, interrupted, self._stopped, waiting, self._ended_because)


def _show(problems: list[Problem], progress: Progress | None) -> None:
    """Show warnings in the progress display, or as Python warnings without one."""
    if progress:
        progress.show_warnings(problems)
        return
    for problem in problems:
        warnings.warn(str(problem), stacklevel=2)


def _call(section: Callable[[], Result]) -> Result:
    return section()
