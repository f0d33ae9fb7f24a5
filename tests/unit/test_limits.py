"""Concepts that the formulations of a space cannot express are reported before the first trial."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import search
from clinie_core.data.document import Concept, Corpus, Document, Span
from search.config.validation import validate_space
from search.study.limits import SAMPLED_CHARACTERS, describe_limits, find_unexpected_limits, measure_limits
from search.study.runner import StudyRunner

Content = dict[str, Any]
WriteSpace = Callable[[Mapping[str, Any]], Path]
NOTE = "No chest pain, fever."
FLAT = ((3, 13), (15, 20))
NESTED = (*FLAT, (3, 8))
WITHIN_WORD = (*FLAT, (4, 8))


def make_corpus(**splits: tuple[tuple[int, int], ...]) -> Corpus:
    """Return a corpus of one note per split, with concepts at the given offsets."""
    return Corpus(
        {
            split: (Document(split, NOTE, tuple(Concept(f"T{i}", "P", (Span(*s),)) for i, s in enumerate(spans))),)
            for split, spans in splits.items()
        }
    )


def test_plan_states_the_share_of_each_split_and_type(space_content: Content, write_space: WriteSpace) -> None:
    planned = search.plan(write_space(space_content), samples=1)
    (limits,) = planned.limits
    assert (limits.title, limits.backbones, limits.sampled) == (
        "token_classification",
        ("tiny",),
        {"train": 14, "dev": 3},
    )
    row = planned.as_json()["representable"][0]
    for split in ("train", "dev"):
        assert row["splits"][split]["representable"] == 1.0
        assert set(row["splits"][split]["by_type"].values()) == {1.0}
        assert row["splits"][split]["lost"] == {}
    assert planned.warnings == []
    assert search.plan(write_space(space_content), ["corpus.path=/no/such/folder"], samples=1).limits == []


def test_counts_depend_on_the_parameters_that_limit_a_formulation(
    space_content: Content, write_space: WriteSpace
) -> None:
    content = copy.deepcopy(space_content)
    content["backbones"]["small"] = {
        "scratch": {**content["backbones"]["tiny"]["scratch"], "num_hidden_layers": 1},
        "allow_frozen": True,
    }
    content["space"]["backbone"] = {"choose": ["tiny", "small"]}
    content["space"]["formulation"]["choose"] = {
        "token_classification": {"unit": {"choose": ["word", "token"]}},
        "span_pointer": {"overlaps": {"choose": [True, False]}},
        "span_question": {},
    }
    limits, problems = measure_limits(validate_space(str(write_space(content))).space, make_corpus(train=NESTED))
    shares = {row.title: row.splits["train"].share for row in limits}
    assert shares == {
        "token_classification": pytest.approx(2 / 3),
        'token_classification (unit: "token")': pytest.approx(2 / 3),
        "span_pointer": 1.0,
        "span_pointer (overlaps: false)": pytest.approx(2 / 3),
        "span_question": 1.0,
    }
    assert all(row.backbones == ("tiny", "small") for row in limits)
    assert problems == []


@pytest.mark.parametrize(
    ("spans", "reason", "remedy"),
    [(NESTED, "1 overlap", "use span_pointer or span_question"), (WITHIN_WORD, "1 unit boundary", "use unit: word")],
)
def test_warning_names_formulation_split_share_reason_and_remedy(
    space_content: Content, write_space: WriteSpace, spans: tuple[tuple[int, int], ...], reason: str, remedy: str
) -> None:
    space = validate_space(str(write_space(space_content))).space
    limits, _ = measure_limits(space, make_corpus(train=FLAT, dev=spans))
    (warning,) = find_unexpected_limits(limits, "space.yaml")
    assert (warning.where, warning.severity) == ("space.yaml: space.formulation.token_classification", "warning")
    assert warning.found == (
        f"token_classification can express only 66.67 % of the 3 concepts of dev with tiny (lost: {reason};"
        " lowest: P 66.7 %)"
    )
    assert warning.remedy.startswith(remedy)
    shares = "100.0 % of train (1 documents), 66.7 % of dev (1 documents), by token_classification with tiny"
    assert describe_limits(limits) == f"{shares}; lowest types of dev: P 66.7 %"


def test_search_warns_before_the_first_trial(
    space_content: Content,
    write_space: WriteSpace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for split, text in (("train", "T1\tP 3 13\tchest pain\n"), ("dev", "T1\tP 3 13\tchest pain\nT2\tP 3 8\tchest\n")):
        (tmp_path / "notes" / split).mkdir(parents=True)
        (tmp_path / "notes" / split / f"{split}.txt").write_text(NOTE)
        (tmp_path / "notes" / split / f"{split}.ann").write_text(text)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(StudyRunner, "run", stop)
    file, place = write_space({**space_content, "corpus": {"path": str(tmp_path / "notes")}}), tmp_path / "home"
    expected = "token_classification can express only 50.00 % of the 2 concepts of dev"
    with pytest.warns(UserWarning, match=expected), pytest.raises(KeyboardInterrupt):
        search.run(file, home=place)
    with pytest.raises(KeyboardInterrupt):
        search.run(file, home=place, show_progress=True)
    assert expected in capsys.readouterr().err


def test_backbone_without_tokenizer_is_a_warning(
    space_content: Content, write_space: WriteSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_to_load(source: object) -> None:
        raise OSError("no file")

    monkeypatch.setattr("clinie_core.backbones.tokenizer.load_tokenizer", fail_to_load)
    limits, (problem,) = measure_limits(validate_space(str(write_space(space_content))).space, make_corpus(train=FLAT))
    assert limits == []
    assert problem.found == "the tokenizer of 'tiny' cannot be loaded (OSError)"


def test_large_split_is_sampled_at_regular_distances(space_content: Content, write_space: WriteSpace) -> None:
    text = f"{NOTE}{' ' * (SAMPLED_CHARACTERS // 10)}"
    documents = tuple(Document(f"n{i}", text, (Concept("T1", "P", (Span(3, 13),)),)) for i in range(40))
    space = validate_space(str(write_space(space_content))).space
    ((row,), _) = measure_limits(space, Corpus({"train": documents}))
    assert row.sampled == {"train": 8}
    assert row.splits["train"].concepts == {"P": 8}


def test_setting_of_the_tokenizers_library_is_restored(
    space_content: Content, write_space: WriteSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    measure_limits(validate_space(str(write_space(space_content))).space, make_corpus(train=FLAT))
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
