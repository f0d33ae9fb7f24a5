"""Names of the files that a format with one file per document writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinie_core.data.corpora.brat import Brat
from clinie_core.data.corpora.files import make_file_name, make_file_names
from clinie_core.data.document import Concept, Document, Span
from clinie_core.errors import InputError

TEXT = "Aspirin"


@pytest.mark.parametrize(
    ("id_", "name"),
    [
        ("note 1", "note 1"),
        ("p1/n", "p1/n"),
        ("Ä (2).v3+x@y", "Ä (2).v3+x@y"),
        ("../n", ".._n".lstrip(".")),
        ("/etc/n", "_etc_n"),
        ("a//b", "a__b"),
        (".hidden", "hidden"),
        (".git/n", "git_n"),
        ("test/n", "test_n"),
        ("a\\b\tc\n", "a_b_c_"),
        ("", "_"),
    ],
)
def test_file_names_keep_what_a_folder_can_hold(id_: str, name: str) -> None:
    assert make_file_name(id_) == name


def test_written_documents_keep_their_ids(tmp_path: Path) -> None:
    notes = [Document(id_, TEXT, (Concept("T1", "Drug", (Span(0, 7),)),)) for id_ in ("note 1", "note_1", "p1/a.b")]
    Brat().write(notes, tmp_path)
    assert list(Brat().read_all(tmp_path)) == notes


def test_name_collisions_are_reported_before_anything_is_written(tmp_path: Path) -> None:
    notes = [Document(id_, TEXT) for id_ in ("a", "x\ty", "x_y", ".a")]
    with pytest.raises(InputError) as caught:
        Brat().write(notes, tmp_path / "out")
    assert [problem.where for problem in caught.value.problems] == ["x_y", "a"]
    assert not (tmp_path / "out").exists()
    assert make_file_names(["a", "b c"]) == {"a": "a", "b c": "b c"}
