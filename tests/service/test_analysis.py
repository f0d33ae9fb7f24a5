"""Comparisons of trials detect true differences and reject absent ones at the stated rates."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from clinie_core.scoring.document_counts import DocumentCounts
from clinie_core.scoring.significance import compute_rates
from search.analysis.comparisons import compare_groups, compute_expected_best, compute_trend, correct_best_score
from search.analysis.findings import CorpusRow, Findings, analyze, compare_with_single
from search.analysis.scored_trials import ScoredTrial
from search.ledger.records import TrialRecord
from search.report.page import render_page
from search.report.section import NO_EVIDENCE
from search.report.sections import build_sections

Counts = NDArray[np.float64]
DOCUMENTS = 100


def study_of(
    draw: np.random.Generator, shifts: list[float], *, documents: int = DOCUMENTS, spread: float = 0.03
) -> Counts:
    """Draw counts of trials of varying quality on documents of varying difficulty, ``[trials, documents, 3]``."""
    hardness = draw.normal(0, 0.15, size=documents)
    concepts = draw.integers(3, 15, size=documents)
    quality = 0.8 + np.array(shifts) + draw.normal(0, spread, size=len(shifts))
    found = np.clip(quality[:, None] + hardness, 0.02, 0.98)
    tp = draw.binomial(concepts, found)
    fp = draw.binomial(concepts, 1 - found)
    return np.stack([tp, fp, concepts - tp], axis=2).astype(np.float64)


@given(scores=st.lists(st.floats(0, 1), min_size=1, max_size=8), data=st.data())
def test_the_expected_best_is_the_mean_over_all_choices(scores: list[float], data: st.DataObject) -> None:
    tries = data.draw(st.integers(1, len(scores)))
    expected = np.mean([max(chosen) for chosen in itertools.combinations(scores, tries)])
    assert compute_expected_best(np.array(scores), tries) == pytest.approx(expected)


@pytest.mark.parametrize("sizes", [(4, 4), (12, 12), (20, 8)])
def test_groups_without_a_difference_are_called_no_evidence(sizes: tuple[int, int]) -> None:
    draw = np.random.default_rng(5)
    decided = 0
    for _ in range(120):
        counts = study_of(draw, [0.0] * sum(sizes))
        decided += compare_groups(counts[: sizes[0]], counts[sizes[0] :]).significant
    # At a rate of 0.05 more than 13 of 120 come up once in a hundred thousand times.
    assert decided <= 13


def test_a_planted_difference_between_groups_is_found() -> None:
    draw = np.random.default_rng(6)
    found = 0
    for _ in range(60):
        counts = study_of(draw, [0.06] * 12 + [0.0] * 12)
        comparison = compare_groups(counts[:12], counts[12:])
        found += comparison.significant and comparison.difference > 0
    assert found >= 45


def test_groups_change_sides() -> None:
    counts = study_of(np.random.default_rng(7), [0.05] * 6 + [0.0] * 6)
    there, back = compare_groups(counts[:6], counts[6:]), compare_groups(counts[6:], counts[:6])
    assert there.difference == pytest.approx(-back.difference)
    assert there.p == pytest.approx(back.p, abs=0.03)


def test_three_trials_against_three_decide_nothing() -> None:
    counts = study_of(np.random.default_rng(8), [0.15] * 3 + [-0.3] * 3)
    comparison = compare_groups(counts[:3], counts[3:])
    assert comparison.low > 0  # the documents are sure, three trials are not
    assert not comparison.significant


def test_the_correction_takes_away_what_choosing_added() -> None:
    draw = np.random.default_rng(9)
    naive, corrected, covered = [], [], 0
    for _ in range(300):
        counts = study_of(draw, [0.0] * 20, documents=840, spread=0.005)
        seen, others = counts[:, :40], counts[:, 40:]
        best = correct_best_score(seen)
        truth = float(compute_rates(others.sum(axis=1), "f1")[best.best])
        naive.append(best.score - truth)
        corrected.append(best.corrected - truth)
        covered += best.low <= truth <= best.high
    error = np.std(corrected) / np.sqrt(300)
    assert np.mean(naive) > 5 * error
    assert abs(np.mean(corrected)) < 3 * error
    assert covered >= 262  # 285 expected at 95 %, and fewer than 262 with a method of 90 %


def test_a_trend_is_found_and_noise_is_not() -> None:
    draw = np.random.default_rng(10)
    rising, noise = 0, 0
    for _ in range(60):
        ranks = draw.uniform(1, 64, size=20)
        found = compute_trend(ranks.tolist(), (0.7 + 0.002 * ranks + draw.normal(0, 0.03, 20)).tolist())
        none = compute_trend(ranks.tolist(), draw.normal(0.7, 0.03, 20).tolist())
        assert found is not None
        assert none is not None
        rising += found.significant and found.correlation > 0
        noise += none.significant
    assert rising >= 55
    assert noise <= 9
    assert compute_trend([1, 2, 3], [1, 2, 3]) is None
    assert compute_trend([1, 1, 1, 1], [1, 2, 3, 4]) is None


def findings_of(shifts: dict[str, float], each: int, *, seed: int = 11) -> Findings:
    """Return the findings of a study with ``each`` trials per method and the given differences between methods."""
    draw = np.random.default_rng(seed)
    names = [name for name in shifts for _ in range(each)]
    counts = study_of(draw, [shifts[name] for name in names])
    scores = compute_rates(counts.sum(axis=1), "f1")
    tiny = BackboneSource(name="tiny", scratch={"model_type": "bert", "hidden_size": 8})
    records, kept = [], {}
    began = datetime(2026, 1, 1)
    for number, name in enumerate(names):
        config = TrialConfig(
            backbone=tiny,
            formulation=ComponentChoice(name="token_classification"),
            finetuning=ComponentChoice(name=name, parameters={"learning_rate": 1e-3}),
            epochs=1,
        )
        metrics = {
            "strict_f1": float(scores[number]),
            "trainable_parameters": 100.0 + number,
            "peak_memory_mb": 10.0,
            "documents_per_second": 5.0,
            "seconds": 36.0,
        }
        parameters = {"finetuning": name, f"finetuning.{name}.learning_rate": float(draw.uniform(1e-4, 1e-2))}
        records.append(
            TrialRecord(
                number,
                "complete",
                config,
                parameters,
                {1: metrics},
                ended=began + timedelta(minutes=number),
            )
        )
        kept[number] = DocumentCounts("strict_f1", "digest", counts[number])
    return analyze("planted", records, "strict_f1", maximized=True, counts=kept, importances={})


def test_a_report_says_which_method_wins_and_which_differences_are_none() -> None:
    findings = findings_of({"full": 0.0, "lora": 0.0, "ia3": -0.2}, each=8)
    rows = {row.name: row for row in findings.methods}
    assert rows["full"].is_reference
    assert rows["ia3"].against is not None
    assert rows["ia3"].against.significant
    assert rows["lora"].against is not None
    assert not rows["lora"].against.significant
    section = next(s for s in build_sections(findings, shots={}, accesses=[]) if s.key == "methods")
    assert "full beats ia3" in section.answer
    assert f"{NO_EVIDENCE} that lora and full differ" in section.answer
    assert findings.winner is not None
    assert findings.winner.method in ("full", "lora")
    assert findings.corrected is not None
    assert findings.corrected.corrected < findings.winner.score


def test_stopped_trials_are_compared_at_equal_epochs_only() -> None:
    """Trials of full stop after one epoch; those of lora gain much in the second one."""
    findings = findings_of({"full": 0.0, "lora": -0.02}, each=6)
    first = {t.record.number: t.record.epochs[1] for t in findings.trials}
    records = [
        replace(t.record, state="pruned")
        if t.method == "full" and t.record.number > 0
        else replace(t.record, epochs={1: first[t.record.number], 2: {**first[t.record.number], "strict_f1": 0.99}})
        for t in findings.trials
    ]
    counts = {t.record.number: t.counts for t in findings.trials if t.counts is not None}
    again = analyze("planted", records, "strict_f1", maximized=True, counts=counts, importances={})
    assert again.equal_epochs == 1
    rows = {row.name: row for row in again.methods}
    assert {name: (row.complete, row.trials) for name, row in rows.items()} == {"full": (1, 6), "lora": (6, 6)}
    assert rows["lora"].best.score == 0.99
    assert rows["lora"].against is not None
    assert rows["lora"].against.trials == (6, 1)
    for name, row in rows.items():
        assert row.score_at_equal_epochs == max(
            first[t.record.number]["strict_f1"] for t in again.trials if t.method == name
        )
    assert {t.record.state for t in again.front} == {"complete"}
    assert again.trends == findings.trends
    sections = {s.key: s for s in build_sections(again, shots={}, accesses=[])}
    assert "Stopped trials have fewer epochs; the column after 1 epoch includes them" in sections["methods"].answer
    assert "Scores are those after 1 epoch, which all trials have" in sections["trends"].answer


def test_a_method_without_a_complete_trial_is_not_compared() -> None:
    findings = findings_of({"full": 0.0, "lora": 0.1}, each=4)
    records = [replace(t.record, state="pruned" if t.method == "lora" else "complete") for t in findings.trials]
    counts = {t.record.number: t.counts for t in findings.trials if t.counts is not None}
    again = analyze("planted", records, "strict_f1", maximized=True, counts=counts, importances={})
    full, lora = again.methods
    assert (full.name, lora.name, lora.complete, lora.against, lora.relative_score) == ("full", "lora", 0, None, None)
    assert again.history[-1][2] == full.best.score


def test_counts_of_other_documents_are_not_compared() -> None:
    findings = findings_of({"full": 0.0, "lora": 0.0}, each=4)
    kept = {t.record.number: t.counts for t in findings.trials if t.counts is not None}
    for number in range(4, 8):
        kept[number] = DocumentCounts("strict_f1", "other", kept[number].counts)
    again = analyze(
        "planted",
        [t.record for t in findings.trials],
        "strict_f1",
        maximized=True,
        counts=kept,
        importances={},
    )
    (other,) = [row for row in again.methods if not row.is_reference]
    assert other.against is None


def test_one_model_for_several_corpora_is_compared_with_one_for_each_on_the_same_documents() -> None:
    findings = findings_of({"full": 0.1, "lora": -0.1}, each=1)
    (better, worse) = findings.trials
    assert better.counts is not None
    assert worse.counts is not None
    names = tuple("ab"[i % 2] for i in range(DOCUMENTS))
    together = ScoredTrial(worse.record, "strict_f1", replace(worse.counts, corpora=names))
    alone = ScoredTrial(better.record, "strict_f1", replace(better.counts, counts=better.counts.counts[::2]))
    compared = compare_with_single(together, "a", alone)
    assert compared is not None
    assert compared.high < 0
    rows = [CorpusRow("a", together.score, "just-a", alone.score, compared), CorpusRow("b", 0.5)]
    section = next(s for s in build_sections(findings, shots={}, accesses=[], corpora=rows) if s.key == "corpora")
    assert "a: its own model (just-a) beats one model for all" in section.answer
    assert section.rows[1][2:] == ("-", "-", "-")
    assert compare_with_single(together, "b", ScoredTrial(better.record, "strict_f1", better.counts)) is None


def test_the_front_holds_what_no_other_beats() -> None:
    findings = findings_of({"full": 0.0, "lora": 0.0}, each=5)
    front = {t.record.number for t in findings.front}
    for trial in findings.trials:
        beaten = any(
            other.score >= trial.score and other.record.number < trial.record.number for other in findings.trials
        )
        assert (trial.record.number in front) == (not beaten)  # parameters grow with the number, all else is equal


def test_the_page_needs_nothing_else_and_answers_in_order() -> None:
    findings = findings_of({"full": 0.0, "lora": 0.02, "ia3": -0.2}, each=8)
    shots = {"corpus, held out": [(0, 0.4, 0.3, 0.5), (5, 0.6, 0.5, 0.7)]}
    sections = build_sections(findings, shots=shots, accesses=[])
    page = render_page("Report on <planted>", ["facts"], sections, findings, shots)
    assert "Report on &lt;planted&gt;" in page
    assert "<script src" not in page
    assert "<link" not in page
    keys = [section.key for section in sections]
    assert keys == ["winner", "methods", "trends", "shots", "front", "curves", "history", "cost", "test", "trials"]
    places = [page.index(f'<section id="{key}">') for key in keys]
    assert places == sorted(places)
    assert page.count("plotly-graph-div") >= 6
    assert "clinie repeat planted TRIAL" in page
    assert "The test split has not been read" in page
