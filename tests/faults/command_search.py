"""A search in one process that receives random commands and is killed at random.

Ledger, searcher, recorder, trial control, job queue, checkpoint manager and MLflow tracking are the real ones. Ray Tune
and the workers are replaced: one action lets one of them take a step, in an order that a seed determines. A kill
discards everything but the ledger's file, the MLflow database and the epochs that were saved.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient
from optuna.storages import JournalStorage

from clinie_core.errors import InputError
from search.config.search_space import SearchSpace
from search.control.command_log import CommandLog
from search.control.command_processor import CommandProcessor
from search.control.commands import Command, CommandEntry, CommandKind
from search.control.control_state import ControlState
from search.ledger.journal import Journal, open_journal
from search.ledger.ledger import Ledger
from search.ledger.records import ENDED
from search.pool.job_queue import WITHDRAWN, JobQueue
from search.storage.home import Home
from search.study.checkpoint_manager import CheckpointManager
from search.tracking.metric_names import name_metric
from search.tracking.tracker import StudyFacts, Tracker
from search.trials.job import Job, JobEnded
from search.trials.result import EpochResult, TrialFailure
from search.trials.retry import Attempts, next_attempt
from search.tune.recorder import StudyRecorder
from search.tune.running_trials import RunningTrials
from search.tune.searcher import LedgerSearcher
from search.tune.trial_control import TrialControl

EPOCHS, GROUPS, TRIALS = 3, 2, 3
TURNS = 30
"""Number of turns of the event loop after which all messages are delivered."""


class Killed(BaseException):
    """The driver was killed."""


class FragileJournal(Journal):
    """Journal of a driver that is killed before a given number of writes.

    Args:
        file: The journal file.
    """

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.writes_left = -1  # no kill

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        if self.writes_left == 0:
            raise Killed
        self.writes_left -= 1
        super().append_logs(logs)


@dataclass
class TuneTrial:
    """The part of a Tune trial that the recorder reads, with the calls of its Tune actor."""

    config: dict[str, Any]
    number: int
    job: Job
    last_result: dict[str, Any] = field(default_factory=dict)
    metric_analysis: dict[str, Any] = field(default_factory=dict)
    metric_n_steps: dict[str, Any] = field(default_factory=dict)
    call: asyncio.Task[EpochResult | JobEnded] | None = None


class Driver:
    """A driver with its pool.

    Args:
        home: Home folder of the search.
        space: Its space.
        client: The MLflow client.
        saved: Number of saved epochs of each trial, which outlives the driver.
    """

    def __init__(self, home: Home, space: SearchSpace, client: MlflowClient, saved: dict[int, int]) -> None:
        self.journal = FragileJournal(str(home.ledger_file))
        self.space, self.client, self.home, self.saved = space, client, home, saved
        self.loop = asyncio.new_event_loop()
        self.tune: list[TuneTrial] = []
        self.workers: list[asyncio.Task[None]] = []
        self.permits: dict[int, asyncio.Event] = {}
        self.jobs = 0
        self.tracker: Any = None

    def start(self) -> None:
        """Continue the study as `clinie resume` does."""
        file = self.space.file
        self.ledger = Ledger.open(JournalStorage(self.journal), file.study, file.algorithm)
        self.tracker = Tracker(self.client, self.home, StudyFacts(file.study, {}, []), self.ledger.set_locations)
        checkpoints = CheckpointManager(self.ledger, self.tracker, self.home, file.objective, 1)
        self.commands = CommandProcessor(self.ledger, self.space, self._show)
        self.commands.end_pauses()
        ended = sum(record.state in ENDED for record in self.ledger.records())
        self.running = RunningTrials()
        self.recorder = StudyRecorder(self.ledger, self.running, [checkpoints, self.tracker], lambda trial: "error")
        self.searcher = LedgerSearcher(
            self.ledger,
            self.space,
            max(0, self.commands.trials - ended),
            self.running,
            lambda count: count <= GROUPS,
            self.recorder.answer,
        )
        self.queue = JobQueue(["default"] * GROUPS, unfinished=self.searcher.unfinished)
        self.control = TrialControl(
            self.commands,
            self.running,
            self.searcher,
            self.recorder,
            lambda number: self.run(self.queue.withdraw(number)),
            hours=1.0,
        )
        self.workers = [self.loop.create_task(self._run_group(group)) for group in range(GROUPS)]

    def _show(self, entry: CommandEntry) -> None:
        self.tracker.add_command(entry.command.id, entry.command.trial, str(entry))

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Run a call to the queue, and all messages that follow from it."""
        result = self.loop.run_until_complete(call)
        for _ in range(TURNS):
            self.loop.run_until_complete(asyncio.sleep(0))
        return result

    async def _run_group(self, group: int) -> None:
        """Be the host and the worker of a group."""
        while await self.queue.await_start(group):
            generation = await self.queue.join(group, f"node-{group}", f"node {group}", 0)
            while (job := await self.queue.take(group, generation, 1)) is not None:
                await self.queue.end(group, job.id, await self._train(group, job))

    async def _train(self, group: int, job: Job) -> JobEnded:
        withdrawal = asyncio.ensure_future(self.queue.await_withdrawal(job.id))
        try:
            for epoch in range(1, EPOCHS + 1):
                if epoch > self.saved.get(job.number, 0):
                    permit = self.permits[group] = asyncio.Event()
                    waiting = asyncio.ensure_future(permit.wait())
                    await asyncio.wait({waiting, withdrawal}, return_when=asyncio.FIRST_COMPLETED)
                    waiting.cancel()
                    self.permits.pop(group)
                    if withdrawal.done() and withdrawal.result():
                        return WITHDRAWN
                    self.saved[job.number] = epoch
                result = EpochResult(
                    epoch, {"strict_f1": job.number / 100 + epoch / 10, "train_loss": 1.0}, epoch == EPOCHS
                )
                if not await self.queue.report(job.id, result):
                    break
            return JobEnded("finished")
        finally:
            withdrawal.cancel()

    def suggest(self) -> bool:
        """Let Tune request a trial; return whether the search can continue."""
        found = self.searcher.suggest("id")
        if isinstance(found, str):
            return False
        if found is not None:
            self.jobs += 1
            number = int(found["number"])
            trial = TuneTrial(found, number, Job(f"job-{self.jobs}", number, "{}", "tiny"))
            self.tune.append(trial)
            self.recorder.on_trial_start(0, [], trial)
            trial.call = self.loop.create_task(self.queue.submit(trial.job))
        self.run(self.queue.expect(self.searcher.unfinished))
        return True

    def deliver(self) -> bool:
        """Pass the next message of a Tune actor to the recorder; return whether there was one."""
        trial = next((t for t in self.tune if t.call is not None and t.call.done()), None)
        if trial is None or trial.call is None:
            return False
        message, trial.call = trial.call.result(), None
        if isinstance(message, EpochResult):
            trial.last_result |= message.to_tune_result()
            is_last = message.finished
        else:
            decision = next_attempt(Attempts(), message, epoch=1)
            assert isinstance(decision, TrialFailure)
            trial.last_result |= decision.to_tune_result()
            is_last = True
        if is_last:
            self.tune.remove(trial)
        self.recorder.on_trial_result(0, [], trial, trial.last_result)
        if is_last:
            self.recorder.on_trial_complete(0, [], trial)
        else:
            trial.call = self.loop.create_task(self.queue.next_report(trial.job.id))
        self.run(self.queue.expect(self.searcher.unfinished))
        return True

    def train(self, group: int) -> None:
        """Let the worker of a group finish an epoch, if it trains one."""
        if group in self.permits:
            self.permits[group].set()
            self.run(asyncio.sleep(0))

    def settle(self) -> None:
        """Apply the commands and deliver all messages, without training."""
        self.control.apply_commands()
        while self.deliver():
            self.control.apply_commands()
        self.control.apply_commands()
        self.drain()

    def drain(self) -> None:
        """Wait until MLflow has all events; the thread that delivers them may have been killed."""
        if self.tracker.drain():
            raise Killed

    def close(self) -> None:
        """Discard all processes. A batch of events that MLflow is receiving is completed."""
        if self.tracker is not None:
            self.tracker.stop()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks))
        self.loop.close()


class CommandSearch:
    """A study whose drivers are killed, and a client that sends it commands.

    Args:
        folder: Home folder.
        space: The space.
        client: The MLflow client.
        tracking_uri: URL of MLflow.
        seed: Determines all actions.
    """

    def __init__(self, folder: Path, space: SearchSpace, client: MlflowClient, tracking_uri: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.home = Home.open(folder, tracking_uri, create=True)
        self.space, self.client = space, client
        file = space.file
        storage = JournalStorage(open_journal(self.home.ledger_file))
        Ledger.create(storage, file.study, file.objective, file.algorithm, {})
        self.ledger = Ledger.open(JournalStorage(open_journal(self.home.ledger_file)), file.study)
        self.log = CommandLog(self.ledger)
        self.saved: dict[int, int] = {}
        self.sent: list[Command] = []
        self.kills = 0
        self.driver = self._start()

    def _start(self) -> Driver:
        while True:
            driver = Driver(self.home, self.space, self.client, self.saved)
            if self.random.random() < 0.2:
                driver.journal.writes_left = self.random.randrange(8)
            try:
                driver.start()
            except Killed:
                driver.close()
                self.kills += 1
                continue
            driver.journal.writes_left = -1
            return driver

    @contextmanager
    def _restart_if_killed(self) -> Iterator[None]:
        try:
            yield
        except Killed:
            self.kill()

    def kill(self) -> None:
        """Kill the driver and start the next one."""
        self.kills += 1
        self.driver.close()
        self.driver = self._start()

    def act(self) -> None:
        """Take one random action."""
        action = self.random.choices(
            ["suggest", "deliver", "train", "apply", "send", "repeat", "kill", "kill later", "check"],
            [6, 8, 8, 4, 6, 1, 1, 1, 2],
        )[0]
        driver = self.driver
        with self._restart_if_killed():
            if action == "suggest":
                driver.suggest()
            elif action == "deliver":
                driver.deliver()
            elif action == "train":
                driver.train(self.random.randrange(GROUPS))
            elif action == "apply":
                driver.control.apply_commands()
            elif action == "send":
                self._send(self._draw_command())
            elif action == "repeat" and self.sent:
                self._send(self.random.choice(self.sent))
            elif action == "kill":
                self.kill()
            elif action == "kill later":
                driver.journal.writes_left = self.random.randrange(6)
            elif action == "check":
                driver.settle()
                self.check()

    def _draw_command(self) -> Command:
        kinds: list[CommandKind] = ["stop", "pause", "pause", "resume", "resume", "clone", "add-budget"]
        kind = self.random.choice(kinds)
        number: int | None = self.random.randrange(5)
        id_, at = f"c{len(self.sent)}", len(self.sent)
        if kind == "clone":
            return Command(id_, kind, at, number, {"batch_size": self.random.choice([8, 16, 9])})
        if kind == "add-budget":
            return Command(id_, kind, at, trials=self.random.randrange(2), hours=self.random.choice([0.0, 1.0]))
        if kind != "stop" and self.random.random() < 0.4:
            number = None
        return Command(id_, kind, at, number)

    def _send(self, command: Command) -> None:
        with suppress(InputError):
            self.log.send(command)
        self.sent.append(command)

    def finish(self) -> None:
        """Resume everything and train until the search ends."""
        self._send(Command("last", "resume", len(self.sent)))
        for _ in range(2000):
            is_over = False
            with self._restart_if_killed():
                self.driver.settle()
                has_ended = not self.driver.suggest()
                for group in range(GROUPS):
                    self.driver.train(group)
                self.driver.drain()
                is_over = has_ended
            if is_over:
                return
        raise AssertionError("the search does not end")

    def check(self) -> None:
        """Compare ledger, pool and MLflow."""
        driver, state = self.driver, ControlState.from_entries(self.log.read())
        # A draw that a kill has interrupted is repeated with the next suggestion.
        records = {record.number: record for record in self.ledger.records() if record.config is not None}
        queue = driver.queue
        jobs = [job.number for job in (*queue._jobs.waiting.values(), *queue._jobs.running.values())]
        assert len(jobs) == len(set(jobs)), "a trial has two jobs"
        for number in jobs:
            assert records[number].state == "running"
            assert not state.holds(number)
            assert number not in state.stopped
        for record in records.values():
            if record.number in driver.running.numbers:
                has_started = any(trial.number == record.number for trial in driver.tune)
                assert record.state == "running" or (record.state == "paused" and not has_started)
            elif record.number in driver.running.paused:
                assert record.state == "paused"
                assert state.holds(record.number)
            else:
                waits = record.number in driver.searcher.interrupted
                assert waits or record.state in ENDED, f"trial {record.number} is {record.state} but nothing has it"
            if record.number in state.stopped:
                assert record.state in ("pruned", "complete")
        self._check_clones(state)
        self._check_mlflow(records)

    def _check_clones(self, state: ControlState) -> None:
        clones = self.ledger.queue.find_clones()
        assert set(clones) == set(state.clones)
        assert len(set(clones.values())) == len(clones)
        for id_, number in clones.items():
            record, entry = self.ledger.find_record(number), self.log.find(id_)
            assert entry is not None
            assert entry.decision is not None
            assert entry.decision.note == f"trial {number}"
            if record is not None and record.config is not None:
                assert record.parameters["batch_size"] == state.clones[id_].changes["batch_size"]

    def _check_mlflow(self, records: Mapping[int, Any]) -> None:
        experiment = self.client.get_experiment_by_name(self.space.file.study)
        runs = self.client.search_runs([experiment.experiment_id])
        found: dict[int, Any] = {}
        for run in runs:
            if run.data.tags["clinie.kind"] == "study":
                tags = {k.removeprefix("clinie.command."): v for k, v in run.data.tags.items() if "command." in k}
                decided = [entry for entry in self.log.read() if entry.decision is not None]
                assert tags == {entry.command.id: str(entry) for entry in decided}
            else:
                assert int(run.data.tags["clinie.trial"]) not in found, "a trial has two runs"
                found[int(run.data.tags["clinie.trial"])] = run
        for number, record in records.items():
            if number in self.driver.searcher.interrupted or number not in found:
                # MLflow is updated when the trial starts again, or has it from then on.
                assert record.state not in ENDED
                continue
            run = found[number]
            assert run.data.tags["clinie.state"] == record.state
            steps = {m.step for m in self.client.get_metric_history(run.info.run_id, name_metric("strict_f1"))}
            assert steps == set(record.epochs)

    def check_end(self) -> None:
        """Check a search that has ended."""
        self.check()
        entries = self.log.read()
        assert all(entry.decision is not None for entry in entries)
        state = ControlState.from_entries(entries)
        records = self.ledger.records()
        assert len(records) == TRIALS + state.added_trials
        assert all(record.state in ENDED for record in records)
        for record in records:
            assert record.state != "complete" or len(record.epochs) == EPOCHS
            assert record.state == "complete" or record.number in state.stopped or record.same_as is not None
        assert not self.driver.queue._jobs.waiting
        assert not self.driver.queue._jobs.running
