"""Layout of terminal tables, and the settings that their columns show."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from clinie_core.config import BackboneSource, ComponentChoice, TrialConfig
from search.report.markdown import render_markdown
from search.report.section import ReportSection
from search.report.settings import separate_settings
from search.report.terminal import print_table
from search.report.text_table import Column, TextTable

WORDS = st.text("abcdefghij", min_size=1, max_size=12)
CELLS = st.lists(WORDS, max_size=6).map(" ".join)


def make_config(rank: int | None, **changes: object) -> TrialConfig:
    finetuning = ComponentChoice(name="full", parameters={"learning_rate": 3e-4})
    if rank is not None:
        finetuning = ComponentChoice(name="lora", parameters={"learning_rate": 2e-3, "rank": rank})
    return TrialConfig(
        backbone=BackboneSource(name="minilm", hub="any"),
        formulation=ComponentChoice(name="token_classification", parameters={"head": "crf"}),
        finetuning=finetuning,
        epochs=3,
        **changes,
    )


@given(st.integers(20, 140), st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=4))
def test_no_word_is_broken_and_no_line_is_too_long(width: int, rows: list[tuple[str, str, str]]) -> None:
    table = TextTable([Column("name"), Column("description"), Column("more words here", is_optional=True)], rows)
    fitted = table.fit(width)
    lines = [*fitted.render_head(), *fitted.render_rows()]
    longest = [max((len(w) for row in rows for w in row[i].split()), default=0) for i in range(2)]
    if max(longest[0], 4) + 2 + max(longest[1], 11) <= width:
        assert max(map(len, lines)) <= width
    shown = 2 if fitted.hidden else 3
    expected = sorted(word for row in rows for cell in row[:shown] for word in cell.split())
    assert sorted(word for line in fitted.render_rows() for word in line.split()) == expected


def test_a_narrow_table_joins_settings_and_leaves_out_optional_columns() -> None:
    columns = [
        Column("trial"),
        Column("method", is_setting=True, is_named=False),
        Column("rank", is_setting=True),
        Column("seconds per epoch", is_optional=True),
    ]
    table = TextTable(columns, [("1", "lora", "8", "3.25"), ("12", "full", "-", "10.0")])
    wide = table.fit(40)
    assert wide.render_head()[0].split() == ["trial", "method", "rank", "seconds", "per", "epoch"]
    assert [line.split() for line in wide.render_rows()] == [["1", "lora", "8", "3.25"], ["12", "full", "-", "10.0"]]
    narrow = table.fit(22)
    assert narrow.hidden == ("seconds per epoch",)
    assert [line.split() for line in narrow.render_rows()] == [["1", "lora", "rank=8"], ["12", "full"]]
    assert table.fit(None).hidden == ()


def test_numbers_are_aligned_to_the_right() -> None:
    table = TextTable([Column("name"), Column("score")], [("a", "0.5"), ("b", "10.25"), ("c", "-")])
    assert table.fit(80).render_rows() == ["a       0.5", "b     10.25", "c         -"]


def test_only_settings_that_vary_have_a_column() -> None:
    settings = separate_settings([make_config(None), make_config(8), make_config(8, dropout=0.0)])
    assert settings.names == ("method", "lr", "r", "dropout")
    assert settings.rows == [
        ("full", "0.0003", "-", "None"),
        ("lora", "0.002", "8", "None"),
        ("lora", "0.002", "8", "0"),
    ]
    assert settings.common == {"backbone": "minilm", "formulation": "token_classification", "head": "crf"}
    alone = separate_settings([make_config(8), None])
    assert alone.names == ()
    assert alone.common["r"] == "8"


def test_no_color_removes_all_escape_sequences(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("NO_COLOR", "1")
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=80)
    print_table(console, TextTable([Column("name")], [("a",)]))
    assert "\x1b[3" not in output.getvalue()


def test_markdown_escapes_what_would_change_a_table() -> None:
    section = ReportSection("key", "A question?", "An | answer.", ("a|b", "c"), [("x_y", "1")])
    text = render_markdown("Title", ["fact"], [section])
    assert "## A question?" in text
    assert "| a\\|b | c |\n| --- | --- |\n| x\\_y | 1 |" in text
