"""The state of a search that results from its accepted commands, and the check of further commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from clinie_core.errors import Problem
from search.config.domains import Fixed
from search.config.search_space import SearchSpace
from search.control.commands import Command, CommandEntry
from search.ledger.records import ENDED, TrialRecord

__all__ = ["ControlState", "check_clone", "check_command", "make_clone_point"]


@dataclass
class ControlState:
    """State of a search that results from its accepted commands, applied in the order of the decisions.

    Args:
        decisions: Number of decisions, including rejections.
        stopped: Trials that a command has stopped, with the id of the first one.
        paused: Trials that are paused one by one.
        is_paused: Whether the whole search is paused.
        clones: The accepted ``clone`` commands, by id.
        added_trials: Number of trials that commands have added to the budget.
        added_hours: Run time that commands have added to the budget, in hours.
    """

    decisions: int = 0
    stopped: dict[int, str] = field(default_factory=dict)
    paused: set[int] = field(default_factory=set)
    is_paused: bool = False
    clones: dict[str, Command] = field(default_factory=dict)
    added_trials: int = 0
    added_hours: float = 0.0

    @classmethod
    def from_entries(cls, entries: Iterable[CommandEntry]) -> ControlState:
        """Return the state after some entries, in the order of their decisions."""
        state = cls()
        for entry in entries:
            if entry.decision is not None:
                state.apply(entry.command, is_accepted=entry.decision.is_accepted)
        return state

    def apply(self, command: Command, *, is_accepted: bool) -> None:
        """Apply a command that was decided."""
        self.decisions += 1
        if not is_accepted:
            return
        number = command.trial
        if command.kind == "stop" and number is not None:
            self.stopped.setdefault(number, command.id)
            self.paused.discard(number)
        elif command.kind == "pause":
            self.paused |= set() if number is None else {number}
            self.is_paused |= number is None
        elif command.kind == "resume":
            self.paused = set() if number is None else self.paused - {number}
            self.is_paused &= number is not None
        elif command.kind == "clone":
            self.clones[command.id] = command
            self.added_trials += 1
        elif command.kind == "add-budget":
            self.added_trials += command.trials
            self.added_hours += command.hours

    def holds(self, number: int) -> bool:
        """Return whether a trial must not run now: it is paused, or the whole search is."""
        return self.is_paused or number in self.paused

    @property
    def has_pause(self) -> bool:
        """True if a trial or the whole search is paused."""
        return self.is_paused or bool(self.paused)


def check_command(
    command: Command, state: ControlState, record: TrialRecord | None, *, trials: int, has_time_limit: bool
) -> Problem | str:
    """Check a command against the trial that it names.

    Args:
        command: The command; see :func:`check_clone` for the values of a ``clone``.
        state: State after the earlier commands.
        record: Record of the command's trial; None if it has none, or there is no such trial.
        trials: Number of trials of the study.
        has_time_limit: Whether the run time of the search is limited.

    Returns:
        Why the command is rejected; else a note, empty if the command has its effect without a remark.
    """
    number = command.trial
    if number is not None:
        if record is None:
            known = f"a trial that has started, from 0 to {trials - 1}" if trials else "no trial has started yet"
            return Problem("trial", f"there is no trial {number}", allowed=known)
        if record.state in ENDED and command.kind != "clone":
            reason = f": {record.reason}" if record.reason else ""
            return Problem("trial", f"trial {number} has ended ({record.state}{reason})", allowed="a running trial")
    match command.kind:
        case "stop":
            return "was stopped before" if number in state.stopped else ""
        case "pause":
            already = number in state.paused if number is not None else state.is_paused
            return "was paused before" if already else ""
        case "resume":
            return _check_resume(number, state)
        case "clone":
            return ""
        case "add-budget":
            return _check_budget(command, has_time_limit=has_time_limit)


def _check_resume(number: int | None, state: ControlState) -> Problem | str:
    if number is not None and state.is_paused:
        return Problem("trial", "the whole search is paused", remedy="resume it without the number of a trial")
    is_paused = state.has_pause if number is None else number in state.paused
    return "" if is_paused else "was not paused"


def _check_budget(command: Command, *, has_time_limit: bool) -> Problem | str:
    if command.trials < 0 or command.hours < 0 or not (command.trials or command.hours):
        return Problem("add-budget", "nothing to add", allowed="--trials of at least 1, or --hours above 0")
    if command.hours and not has_time_limit:
        return Problem("--hours", "the search has no time limit (budget.hours)", remedy="add trials only")
    return ""


def make_clone_point(space: SearchSpace, source: TrialRecord, changes: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the values of a clone: those of its trial with some changes.

    Values that no configuration with the changes has are left out, such as the rank of LoRA after a change to full
    fine-tuning. Dimensions that the changes add are not in the result; the sampler draws them.
    """
    point = {**source.parameters, **changes}
    backbone = point.get("backbone", source.config.backbone.name if source.config else "")
    available = space.list_available_dimensions(str(backbone), point)
    return {path: value for path, value in point.items() if path in available or path in changes}


def check_clone(space: SearchSpace, source: TrialRecord, changes: Mapping[str, JsonValue]) -> Problem | None:
    """Return why a clone is impossible; None if it is possible.

    Args:
        space: The search space.
        source: The trial to clone.
        changes: Values that differ, by path.
    """
    known = dict(space.dimensions())
    searched = [path for path, domain in known.items() if not isinstance(domain, Fixed)]
    if not changes:
        return Problem("clone", "no change", allowed="key=value", remedy="train the same again with: clinie repeat")
    for path, value in changes.items():
        if path not in known:
            return Problem(path, "not a dimension of the space", allowed="allowed: " + ", ".join(searched))
        domain = known[path]
        if isinstance(domain, Fixed):
            return Problem(path, f"the space fixes it to {domain}", allowed="allowed: " + ", ".join(searched))
        if not domain.contains(value):
            return Problem(path, f"found {value!r}", allowed=str(domain))
    point = make_clone_point(space, source, changes)
    backbone = str(point.get("backbone", source.config.backbone.name if source.config else ""))
    missing = sorted(set(changes) - space.list_available_dimensions(backbone, point))
    if missing:
        remedy = "change also the dimension that selects its branch, or the backbone"
        return Problem(
            missing[0], f"no configuration with the other values of trial {source.number} has it", remedy=remedy
        )
    if all(source.parameters.get(path) == value for path, value in changes.items()):
        return Problem("clone", f"trial {source.number} has these values", remedy="repeat it with: clinie repeat")
    return None
