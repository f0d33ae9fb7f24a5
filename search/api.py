"""The Python API: run a study, open one that exists, and read, report, continue or promote it.

The command line is a thin layer over this module. It imports Ray, MLflow and the parts that run a search when a
function needs them, because a command that reads a study takes less time than these imports.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.ledger.ledger import Ledger
from search.ledger.ranking import RankedTrial
from search.ledger.records import TrialRecord, mark_interrupted
from search.ledger.storage import open_storage
from search.ledger.studies import list_study_names
from search.storage.home import Home
from search.storage.permissions import create_private_files
from search.storage.relocation import Relocation
from search.study.control import StudyControl
from search.study.lock import find_drivers, is_running

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from search.config.space_file import SpaceFile
    from search.promotion.candidate import Promotion
    from search.promotion.registration import Base
    from search.report.best_trial import BestTrial
    from search.report.comparison import StudyComparison
    from search.report.study_report import ReportFormat, StudyReport
    from search.study.outcome import StudyOutcome
    from search.study.plan import SearchPlan
    from search.study.runner import StudyRunner

__all__ = ["DEFAULT_HOME", "Study", "list_studies", "load_study", "plan", "run"]

DEFAULT_HOME = Path("clinie-home")
Overrides = Mapping[str, object] | Iterable[str]


class Study:
    """A study with its trials, and the operations on it.

    Args:
        name: The study's name.
        home: The home folder. If it names no MLflow server, the server that the study recorded is used.

    Raises:
        InputError: If the home folder has no study of that name.
    """

    def __init__(self, name: str, home: Home) -> None:
        self._storage = open_storage(home)
        self._ledger = Ledger.open(self._storage, name)
        self.name = name
        self.home = replace(home, server=home.server or self._ledger.attributes.get("server"))
        self.outcome: StudyOutcome | None = None
        """Outcome of the search that this object has run last; None if it has run none."""

    def __repr__(self) -> str:
        return f"Study({self.name!r}, home={str(self.home.root)!r})"

    @property
    def space(self) -> SpaceFile:
        """The space that the study searches, with digests instead of the paths of its corpora."""
        from search.ledger.stored_space import read_stored_space

        return read_stored_space(self._ledger.attributes)

    @property
    def metric(self) -> str:
        """Name of the first objective's metric, which ranks the trials."""
        return self._ledger.metrics[0]

    @property
    def is_maximized(self) -> bool:
        """True if a higher value of :attr:`metric` is better."""
        return self._ledger.maximized

    @property
    def is_running(self) -> bool:
        """True if a search of the study is running, in this home folder or on another machine."""
        return is_running(self.home, self.name, self._storage)

    @property
    def drivers(self) -> list[str]:
        """Names of the drivers that search the study; empty unless the ledger is a PostgreSQL database."""
        return find_drivers(self.name, self._storage)

    @property
    def control(self) -> StudyControl:
        """Commands to the running search: stop, pause and clone trials, add to the budget."""
        return StudyControl(self._ledger, lambda: self.is_running)

    def follow(self, console: Console | None = None) -> str:
        """Display the running search until it ends.

        Args:
            console: Console to print to; standard output if None.

        Returns:
            The counts of the ended trials and the best one, in one line.

        Raises:
            InputError: If no search of the study is running.
        """
        from search.study.follower import follow_study

        return follow_study(self._ledger, self.space.budget, console, lambda: self.is_running)

    @property
    def records(self) -> list[TrialRecord]:
        """All trials in order of number; without a running search an unfinished trial is ``interrupted``."""
        found = self._ledger.records() if self.is_running else mark_interrupted(self._ledger.records())
        moved = Relocation.read(self.home.root)
        return [replace(r, checkpoint=moved.apply(r.checkpoint)) if r.checkpoint else r for r in found]

    @property
    def trials(self) -> pd.DataFrame:
        """All trials as a DataFrame with one row per trial, in order of number.

        Columns:
            number: 0-based number of the trial.
            state: ``complete``, ``pruned``, ``infeasible``, ``failed``, ``interrupted``, ``paused`` or
                ``running``.
            One column per objective, named after its metric: its value in the best epoch.
            configuration: One-line description of the configuration.
            epochs: Number of finished epochs.
            best_epoch: 1-based number of the best epoch.
            train_seconds: Training time of all epochs in seconds.
            started, ended: Start and end, in local time of the driver.
            reason: Why the trial failed or was interrupted.
            checkpoint: URI of its best checkpoint; None if it was deleted.
            run_id: Id of its MLflow run.
            One column per dimension of the space, named ``params.`` and the dimension's path.
        """
        import pandas as pd

        metrics = self._ledger.metrics
        rows = [_make_row(record, metrics) for record in self.records]
        return pd.DataFrame(rows, columns=None if rows else [*_make_row(None, metrics)])

    @property
    def best(self) -> TrialRecord | None:
        """The complete trial with the best value of the first objective; None if none satisfies the limits."""
        return self._ledger.best()

    @property
    def ranking(self) -> list[RankedTrial]:
        """The complete trials within the limits with the scores of all their seeds, the best first."""
        return self._ledger.rank()

    @property
    def disk_usage_mb(self) -> float:
        """Disk space in MB that the study's files take in the home folder."""
        return self.home.disk_usage_mb(self.name)

    @create_private_files()
    def resume(self, *, allow_text: bool = False, show_progress: bool = False) -> Study:
        """Continue an interrupted study; each trial resumes after its last finished epoch.

        Also sends the events that MLflow could not receive while its server was unavailable.

        Args:
            allow_text: Let failure reasons quote error messages, which may contain patient text.
            show_progress: Show the search's progress on standard error.

        Returns:
            This study.

        Raises:
            InputError: If the corpus has changed since the study began, or the study is running.
            StudyFailed: As for :func:`run`.
        """
        from search.study.runner import StudyRunner

        runner = StudyRunner.open(self.home, self.name)
        self.outcome = _run_study(runner, resume=True, allow_text=allow_text, show_progress=show_progress)
        return self

    @create_private_files()
    def extend(
        self,
        trials: int,
        *,
        hours: float | None = None,
        cost: float | None = None,
        allow_text: bool = False,
        show_progress: bool = False,
    ) -> Study:
        """Continue the study beyond its budget, with everything that its sampler has learned.

        Args:
            trials: Number of additional trials.
            hours: Limit on the run time from now, in hours; None keeps the present limit over all runs.
            cost: Limit on the cost from now, in the currency of ``budget.cost``; None keeps the present limit.
            allow_text: As for :meth:`resume`.
            show_progress: As for :meth:`resume`.

        Returns:
            This study.

        Raises:
            InputError: As for :meth:`resume`.
            StudyFailed: As for :func:`run`.
        """
        from search.study.runner import StudyRunner

        runner = StudyRunner.extend(self.home, self.name, trials=trials, hours=hours, cost=cost)
        self.outcome = _run_study(runner, resume=True, allow_text=allow_text, show_progress=show_progress)
        return self

    @create_private_files()
    def repeat_trial(
        self, number: int, *, seed: int | None = None, allow_text: bool = False, show_progress: bool = False
    ) -> Study:
        """Train the configuration of one trial again, as a new study named ``STUDY-trial-NUMBER``.

        Args:
            number: The trial's number.
            seed: Another seed than the trial's; it becomes part of the new study's name.
            allow_text: As for :meth:`resume`.
            show_progress: As for :meth:`resume`.

        Returns:
            The new study.

        Raises:
            InputError: If there is no such trial, or the new study exists already.
            StudyFailed: As for :func:`run`.
        """
        from search.study.runner import StudyRunner

        runner = StudyRunner.repeat_trial(self.home, self.name, number, seed=seed)
        outcome = _run_study(runner, resume=False, allow_text=allow_text, show_progress=show_progress)
        return _open(runner.name, self.home, outcome)

    @create_private_files()
    def report(self, output: str | Path | None = None, *, format: ReportFormat = "html") -> StudyReport:
        """Build a report on the best configuration, the evidence for it, and its cost.

        Args:
            output: File to write the report to; it is also stored with the study in MLflow.
            format: Format of the file: ``html``, ``md`` or ``json``.

        Returns:
            The report, with its sections as data.
        """
        from search.report.study_report import build_study_report, write_report

        report = build_study_report(self.home, self.name, self.records)
        if output is not None:
            write_report(self.home, report, Path(output), format)
        return report

    @create_private_files()
    def read_best(self) -> BestTrial | None:
        """Return the best trial with the interval of its score; None if no complete trial satisfies the limits."""
        from search.report.best_trial import read_best_trial

        return read_best_trial(
            self.home,
            self.name,
            self.records,
            self.metric,
            maximized=self.is_maximized,
            limits=self._ledger.limits,
        )

    @create_private_files()
    def promote(
        self,
        name: str,
        *,
        trial: int | None = None,
        policy: str | Path | None = None,
        base: Base = "whole",
        dry_run: bool = False,
        accept_fault: str | None = None,
    ) -> Promotion:
        """Judge a trial on the test split and make it ``NAME@champion`` if it passes the promotion policy.

        The history of the model records each promotion that reads the test split, including dry runs. Each of them
        lowers the significance level of the next one.

        Args:
            name: Name of the registered model.
            trial: Number of the trial; None for the best trial.
            policy: YAML file of the promotion policy; None for the policy that comes with clinie.
            base: ``whole`` stores the backbone with the adapter, ``merged`` merges them into one set of weights,
                ``pinned`` stores only the commit and sha256 of the backbone.
            dry_run: Decide without registering a version.
            accept_fault: Reason for which the faults of a damaged history are accepted; the history records it.

        Returns:
            The result, with scores on dev and test and the checks of the policy.

        Raises:
            InputError: If the trial is not complete, its checkpoint was deleted, or the policy is invalid.
            PredictionsDiffer: If the registered model predicts differently from the trained one.
            HistoryBroken: If the history of the registered model was modified.
        """
        from search.promotion.policy import read_policy
        from search.promotion.study_promotion import promote_study

        rules = read_policy(Path(policy) if policy is not None else None)
        return promote_study(
            self.home,
            self.name,
            name=name,
            trial=trial,
            policy=rules,
            base=base,
            dry_run=dry_run,
            accept_fault=accept_fault,
        )

    def compare(self, other: Study) -> StudyComparison:
        """Compare the best trials of two studies document by document, and the two searches as a whole.

        Args:
            other: A study with the same objective, scored on the same dev documents.

        Raises:
            InputError: If a study has no complete trial, or the objectives differ.
        """
        from search.report.comparison import compare_studies

        return compare_studies(self.report().findings, other.report().findings)


@create_private_files()
def run(
    space: str | Path,
    overrides: Overrides = (),
    *,
    home: str | Path = DEFAULT_HOME,
    tracking_uri: str | None = None,
    join: bool = False,
    allow_text: bool = False,
    show_progress: bool = False,
) -> Study:
    """Search a space: train and score configurations until the budget is spent.

    Ctrl-C stops the search cleanly; :meth:`Study.resume` continues it.

    Args:
        space: Path of a space file, or the name of a space that comes with clinie.
        overrides: Changes to the space: a mapping from key paths to values (``{"budget.trials": 4}``), or strings
            as on the command line (``["budget.trials=4"]``).
        home: Folder for the ledger, the MLflow database, artifacts and checkpoints; it is created if missing.
        tracking_uri: URL of an MLflow server or database; a database in the home folder if None.
        join: Take part in the search of this study if it exists. Several drivers, each with its own home folder, need a
            ledger in PostgreSQL and the same MLflow server.
        allow_text: Let failure reasons quote error messages, which may contain patient text.
        show_progress: Show the search's progress on standard error.

    Returns:
        The study, with :attr:`Study.outcome` set.

    Raises:
        InputError: If the space or the corpus is invalid, a study of that name exists (without ``join``), or it has
            another space.
        StudyFailed: If every trial failed, or the workers cannot start.
        DiskFull: If a disk is full.
        LedgerUnavailable: If the ledger cannot be written.
    """
    from search.config.validation import validate_space
    from search.study.runner import StudyRunner

    validated = validate_space(str(space), _format_overrides(overrides))
    place = Home(Path(home).expanduser().resolve(), tracking_uri)
    runner = StudyRunner(validated, place)
    Home.open(place.root, create=True)  # after validation, so that an invalid space creates no folder
    outcome = _run_study(runner, resume=False, join=join, allow_text=allow_text, show_progress=show_progress)
    return _open(runner.name, place, outcome)


def load_study(name: str, *, home: str | Path = DEFAULT_HOME, tracking_uri: str | None = None) -> Study:
    """Open a study that exists.

    Args:
        name: Name of the study.
        home: Its home folder.
        tracking_uri: URL of its MLflow server or database; the one that the study recorded if None.

    Raises:
        InputError: If there is no such folder, or no study of that name in it.
    """
    return Study(name, Home.open(Path(home), tracking_uri))


def list_studies(home: str | Path = DEFAULT_HOME) -> list[str]:
    """Return the names of all studies in a home folder, in alphabetical order.

    Raises:
        InputError: If there is no such folder.
    """
    return list_study_names(Home.open(Path(home)))


def plan(space: str | Path, overrides: Overrides = (), *, samples: int = 5) -> SearchPlan:
    """Validate a space and draw some of its configurations, without training.

    Args:
        space: As for :func:`run`.
        overrides: As for :func:`run`.
        samples: Number of configurations to draw.

    Returns:
        The dimensions of the space, its number of configurations, and the drawn ones with their memory estimates.

    Raises:
        InputError: If the space is invalid.
    """
    from search.config.validation import validate_space
    from search.study.plan import plan_search

    return plan_search(validate_space(str(space), _format_overrides(overrides), plan_only=True), samples)


def _open(name: str, home: Home, outcome: StudyOutcome) -> Study:
    study = Study(name, home)
    study.outcome = outcome
    return study


def _run_study(
    runner: StudyRunner, *, resume: bool, allow_text: bool, show_progress: bool, join: bool = False
) -> StudyOutcome:
    from rich.console import Console

    from search.study.progress import Progress

    progress = None
    found = runner.warnings + ([] if resume else runner.find_unexpected_limits())
    if show_progress:
        console = Console(stderr=True, highlight=False)
        finals = runner.file.final_runs.most_runs if runner.file.final_runs is not None else 0
        progress = Progress(console, runner.file.budget.trials + finals, runner.file.budget.hours)
        progress.show_formats(runner.detections)
        progress.show_warnings(found)
    else:
        for warning in found:
            warnings.warn(str(warning), stacklevel=3)
    return runner.run(resume=resume, join=join, progress=progress, allow_text=allow_text)


def _format_overrides(overrides: Overrides) -> list[str]:
    if isinstance(overrides, Mapping):
        return [f"{path}={json.dumps(value)}" for path, value in overrides.items()]  # JSON is valid YAML
    return list(overrides)


def _make_row(record: TrialRecord | None, metrics: Sequence[str]) -> dict[str, Any]:
    """Return a trial's row of :attr:`Study.trials`; without a record a row that has only the common columns."""
    from search.config.description import describe_config

    r = record or TrialRecord(0, "running", None, {})
    row: dict[str, Any] = {"number": r.number, "state": r.state}
    row |= {metric: r.metrics.get(metric) for metric in metrics}
    row |= {
        "configuration": describe_config(r.config) if r.config else None,
        "epochs": len(r.epochs),
        "best_epoch": r.best_epoch,
        "train_seconds": sum(values.get("seconds", 0.0) for values in r.epochs.values()),
        "started": r.started,
        "ended": r.ended,
        "reason": r.reason,
        "checkpoint": r.checkpoint,
        "run_id": r.run_id,
    }
    return row | {f"params.{path}": value for path, value in r.parameters.items()}
