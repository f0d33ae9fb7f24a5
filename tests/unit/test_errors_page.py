"""Page with the errors of a model, and the places where it is not written."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinie_core.data.document import Concept, Document, Relation, Span
from clinie_core.errors import InputError
from search.report.errors_page import render_errors_page
from search.storage.text_folder import check_text_folder

TEXT = "Takes <b>aspirin</b> 81 mg daily."


def make_document(*spans: tuple[int, int, str], relation: str | None = None) -> Document:
    concepts = tuple(Concept(f"T{i}", type_, (Span(a, b),)) for i, (a, b, type_) in enumerate(spans))
    links = (Relation("R1", relation, "T0", "T1"),) if relation else ()
    return Document("note-1", TEXT, concepts, links)


def test_both_sides_are_marked_with_the_kind_of_error_and_text_is_escaped() -> None:
    gold = make_document((9, 16, "Drug"), (21, 26, "Dose"), relation="dose_of")
    predicted = make_document((9, 16, "Drug"), (21, 23, "Dose"))
    page = render_errors_page("Errors", [(gold, predicted)], "joint")
    assert "Takes &lt;b&gt;<mark" in page
    assert '<mark class="boundary" data-kind="boundary" data-types="Dose" title="Dose: boundary">81 mg<b>Dose' in page
    assert '<mark class="boundary" data-kind="boundary" data-types="Dose" title="Dose: boundary">81<b>Dose' in page
    assert '<tr data-kind="missed" data-types="dose_of">' in page
    assert "aspirin - dose_of -&gt; 81 mg" in page
    assert "2 errors" in page
    assert "<script src" not in page
    assert "dose_of" not in render_errors_page("Errors", [(gold, predicted)], "concepts")


@pytest.mark.parametrize("marker", ["ledger.journal", "MLmodel", ".git/HEAD"])
def test_a_home_an_artifact_folder_and_a_checkout_are_refused(tmp_path: Path, marker: str) -> None:
    (tmp_path / marker).parent.mkdir(exist_ok=True)
    (tmp_path / marker).touch()
    with pytest.raises(InputError, match="would contain document text") as caught:
        check_text_folder(tmp_path / "below" / "errors.html", tmp_path / "elsewhere")
    assert TEXT not in str(caught.value)


def test_another_folder_is_accepted_and_the_given_home_is_not(tmp_path: Path) -> None:
    check_text_folder(tmp_path / "errors.html", tmp_path / "home")
    with pytest.raises(InputError, match="a clinie home"):
        check_text_folder(tmp_path / "home" / "errors.html", tmp_path / "home")
