"""Tables of recorded trials: one JSON object per line and trial, without text of documents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import JsonValue

TABLES = Path(__file__).parent / "tables"
DIGITS = 5


@dataclass(frozen=True)
class RecordedTrial:
    """One trained configuration.

    Args:
        number: Number of the draw; with the table's name it determines the configuration.
        seed: Seed of the training.
        parameters: Value of each searched dimension, by its path in the space.
        epochs: Metrics of each epoch, the first epoch first: the dev scores, ``train_loss``, ``seconds``,
            ``cpu_seconds`` of the process, ``peak_memory_mb`` and ``trainable_parameters``.
        error: Type of the error that ended the trial; None if it ran to its last epoch.
    """

    number: int
    seed: int
    parameters: Mapping[str, JsonValue]
    epochs: tuple[Mapping[str, float], ...] = field(repr=False)
    error: str | None = None

    @property
    def key(self) -> tuple[int, int]:
        """Number and seed, which identify a trial in its table."""
        return self.number, self.seed

    def to_line(self) -> str:
        """Return the trial as one line of JSON; numbers are rounded to five significant digits."""
        content = asdict(self)
        content["epochs"] = [{k: float(f"{v:.{DIGITS}g}") for k, v in epoch.items()} for epoch in self.epochs]
        return json.dumps(content, sort_keys=True)

    @classmethod
    def from_line(cls, line: str) -> RecordedTrial:
        """Read a trial from one line of JSON."""
        content = json.loads(line)
        return cls(**{**content, "epochs": tuple(content["epochs"])})


def table_file(name: str, folder: Path = TABLES) -> Path:
    """Return the file of a table."""
    return folder / f"{name}.jsonl"


def read_table(name: str, folder: Path = TABLES) -> list[RecordedTrial]:
    """Read a table; it is empty if nothing has been recorded.

    An incomplete last line, left by a recording that was killed, is ignored.
    """
    file = table_file(name, folder)
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    return [RecordedTrial.from_line(line) for line in lines[:-1] if line]


def append_trials(name: str, trials: Iterable[RecordedTrial], folder: Path = TABLES) -> None:
    """Append trials to a table."""
    file = table_file(name, folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():  # remove an incomplete last line
        content = file.read_bytes()
        with file.open("rb+") as out:
            out.truncate(content.rfind(b"\n") + 1)
    with file.open("a", encoding="utf-8") as out:
        out.writelines(f"{trial.to_line()}\n" for trial in trials)
