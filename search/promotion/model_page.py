"""The description of a registered model in MLflow: its champion with the reason, and all its versions."""

from __future__ import annotations

from collections.abc import Sequence

from search.promotion.gate import Decision
from search.promotion.history import Entry, History
from search.tracking.description_table import make_description_table

__all__ = ["describe_model", "update_model_page"]


def update_model_page(history: History) -> None:
    """Write the description of a registered model from its history."""
    history.client.update_registered_model(history.name, describe_model(history.name, history.read_entries()))


def describe_model(name: str, entries: Sequence[Entry]) -> str:
    """Describe a registered model as Markdown.

    Args:
        name: Name of the model.
        entries: Entries of its history, in order.
    """
    decisions = {
        str(e.content["promotion"]): Decision.from_json(e.content["decision"]) for e in entries if e.kind == "decision"
    }
    changes = [e for e in entries if e.kind in ("promoted", "rolled_back", "copied")]
    lines = [_describe_champion(name, changes[-1], decisions) if changes else "**No champion yet.**"]
    rows = [_describe_version(e, decisions) for e in entries if e.kind == "registered"]
    if rows:
        columns = ("version", "study", "trial", "test strict F1", "95 % interval", "decision")
        lines.append(make_description_table(columns, rows))
    lines.append(
        f"`clinie predict --model {name}@champion FILE` uses the champion; `clinie history {name}` lists all changes."
    )
    return "\n\n".join(lines)


def _describe_champion(name: str, change: Entry, decisions: dict[str, Decision]) -> str:
    version, day = change.content["version"], change.at.partition("T")[0]
    start = f"**Champion: version {version}**, since {day}."
    if change.kind == "rolled_back":
        return f"{start} `clinie rollback {name}` replaced version {change.content['from']} by it."
    if change.kind == "copied":
        return f"{start} It is a copy of {change.content['origin']}."
    decision = decisions.get(str(change.content.get("promotion")))
    if decision is None:
        return start
    low, high = decision.interval
    score = f"strict F1 {decision.test['strict_f1']:.4f} (95 % interval {low:.4f} to {high:.4f})"
    superior = next((check for check in decision.checks if check.rule == "alpha"), None)
    against = f" It is better than the champion before: {superior.detail}." if superior else " It is the first one."
    return f"{start} It passed the promotion policy with {score} on test.{against}"


def _describe_version(entry: Entry, decisions: dict[str, Decision]) -> tuple[object, ...]:
    content = entry.content
    start = (content["version"], content["study"], content["trial"])
    decision = decisions.get(str(content.get("promotion")))
    if decision is None:
        return (*start, "", "", "not decided")
    low, high = decision.interval
    result = "passed" if decision.promote else f"refused: {'; '.join(decision.refusals)}"
    return (*start, f"{decision.test['strict_f1']:.4f}", f"{low:.4f} to {high:.4f}", result)
