"""The default portfolio: it results from the recorded tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from recorded_tables import RecordedTrial, append_trials

from search.config.portfolio import find_default_points


def test_the_shipped_portfolio_results_from_the_recorded_tables() -> None:
    import derive_portfolio
    from replay_tables import load_replay_space

    assert derive_portfolio.PORTFOLIO.read_text(encoding="utf-8") == derive_portfolio.render()
    points = find_default_points(load_replay_space(["budget.trials=100"]))
    assert [point["finetuning"] for point in points] == [
        entry["finetuning"]
        for entry in yaml.safe_load(derive_portfolio.render())
        if entry["formulation"] == "token_classification"
    ]


def test_selection_covers_corpora_with_different_winners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import derive_portfolio
    import recorded_tables
    from record import RecordingChooser
    from replay_tables import load_replay_space

    monkeypatch.setattr(derive_portfolio, "read_table", lambda name: recorded_tables.read_table(name, tmp_path))
    space = load_replay_space()
    best = {"ncbi-disease": "full", "bc5cdr": "lora"}
    for table, winner in best.items():
        for number in range(40):
            chooser = RecordingChooser(number, {"finetuning": {"full": 4, "lora": 4}})
            space.suggest(chooser)
            score = 0.8 if chooser.parameters["finetuning"] == winner else 0.1
            append_trials(table, [RecordedTrial(number, 13, chooser.parameters, ({"strict_f1": score},))], tmp_path)
    recorded = derive_portfolio.RecordedScores.load("concepts")
    assert {entry["finetuning"] for entry in derive_portfolio.select(recorded, 2)} == {"full", "lora"}
    without = derive_portfolio.select(recorded, 1, without="bc5cdr")
    assert [entry["finetuning"] for entry in without] == ["full"]
