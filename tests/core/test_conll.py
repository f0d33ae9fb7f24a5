"""The CoNLL format: tags without types, comments, document starts and the columns of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinie_core.data.corpora.conll import Conll
from clinie_core.data.corpora.reading import ReadingOptions
from clinie_core.data.document import Document
from clinie_core.errors import Problem


def read(folder: Path, content: str, **options: str) -> tuple[list[Document], list[Problem]]:
    (folder / "a.conll").write_bytes(content.encode())
    items = list(Conll(ReadingOptions.model_validate(options)).read(folder))
    return [i for i in items if isinstance(i, Document)], [i for i in items if isinstance(i, Problem)]


def concepts_of(document: Document) -> list[tuple[str, str]]:
    return [(c.type, document.mention(c)) for c in document.concepts]


@pytest.mark.parametrize(
    "content",
    [
        "No\tO\nchest\tB\npain\tI\ntoday\tO\n",
        "No O\nchest B-\npain I-\ntoday O\n",
        "No O\nchest B\npain E\ntoday O\n",
        "No O\nchest B\npain L\ntoday O\n",
        "No O\nchest I\npain I\ntoday O\n",
    ],
)
def test_tags_without_a_type_are_one_type_with_a_warning(content: str, tmp_path: Path) -> None:
    (document,), (warning,) = read(tmp_path, content)
    assert concepts_of(document) == [("ENTITY", "chest pain")]
    assert warning.severity == "warning"
    assert warning.where == f"{tmp_path}/a.conll"
    assert "tags without a type; their type is ENTITY" in warning.found
    (document,), (warning,) = read(tmp_path, content, bare_tag_type="Problem")
    assert concepts_of(document) == [("Problem", "chest pain")]


def test_the_warning_is_given_once_per_file(tmp_path: Path) -> None:
    documents, problems = read(tmp_path, "# newdoc id = 1\na B\n\nb B\n\n# newdoc id = 2\nc B\nd B\n")
    assert [concepts_of(d) for d in documents] == [
        [("ENTITY", "a"), ("ENTITY", "b")],
        [("ENTITY", "c"), ("ENTITY", "d")],
    ]
    assert len(problems) == 1


def test_types_without_prefixes_are_still_types(tmp_path: Path) -> None:
    (document,), problems = read(tmp_path, "No O\nchest Problem\npain Problem\nBNP Test\n")
    assert concepts_of(document) == [("Problem", "chest pain"), ("Test", "BNP")]
    assert not problems


def test_tags_in_lower_case_are_tags(tmp_path: Path) -> None:
    (document,), problems = read(tmp_path, "No o\nchest b-Problem\npain i-Problem\nBNP B-Test\n")
    assert concepts_of(document) == [("Problem", "chest pain"), ("Test", "BNP")]
    assert not problems


@pytest.mark.parametrize(
    ("content", "text", "concepts"),
    [
        ("# id 7\tx\nfever B-P\n", "fever", ["fever"]),
        ("# text = No fever\n# sent_id = 1\nNo O\nfever B-P\n", "No fever", ["fever"]),
        ("# text = No fever\nNo\tO\nfever\tB-P\n\n# text = Pain\nPain\tB-P\n", "No fever\nPain", ["fever", "Pain"]),
        ("#begin document (a); part 000\nNo O\nfever B-P\n#end document\n", "No fever", ["fever"]),
        ("# O\n5 O\nfever B-P\n", "# 5 fever", ["fever"]),
        ("#\tO\n5\tO\n#fever\tB-P\n", "# 5 #fever", ["#fever"]),
        ("#fever P\n5 O\nfever P\n", "#fever 5 fever", ["#fever", "fever"]),
    ],
)
def test_comments_are_no_tokens_and_number_signs_are(
    content: str, text: str, concepts: list[str], tmp_path: Path
) -> None:
    (document,), problems = read(tmp_path, content)
    assert not problems
    assert document.text == text
    assert [mention for _, mention in concepts_of(document)] == concepts


@pytest.mark.parametrize("start", ["-DOCSTART-", "-DOCSTART- O", "-DOCSTART- -X- -X- O", "-DOCSTART-\t-X-\tO\tO"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_document_start_is_no_token(start: str, mark: str, tmp_path: Path) -> None:
    documents, problems = read(tmp_path, f"{mark}{start}\n\nNo O\nfever B-P\n\n{start}\n\nPain B-P\n")
    assert not problems
    assert [d.text for d in documents] == ["No fever", "Pain"]
    assert [d.id for d in documents] == ["a-1", "a-2"]


def test_comments_before_the_first_document_are_no_document(tmp_path: Path) -> None:
    documents, _ = read(
        tmp_path, "# made by a tool\n\n# newdoc id = x\nNo O\n\n# newdoc id = empty\n# newdoc id = y\nb O\n"
    )
    assert [(d.id, d.text) for d in documents] == [("x", "No"), ("empty", ""), ("y", "b")]


@pytest.mark.parametrize(
    "content",
    [
        "No DT B-NP _ x O\nfever NN I-NP _ y B-P\n",
        "No\tDT\tB-NP\t0\t2\tO\nfever\tNN\tI-NP\t3\t8\tB-P\n",
        "1\tNo\tDT\t_\tO\n2\tfever\tNN\t_\tB-P\n",
        "1 No O\n2 fever B-P\n",
        "0 No O\n1 fever B-P\n",
    ],
)
def test_the_last_of_any_number_of_columns_is_the_tag(content: str, tmp_path: Path) -> None:
    (document,), problems = read(tmp_path, content)
    assert not problems
    assert document.text == "No fever"
    assert concepts_of(document) == [("P", "fever")]


def test_numbers_that_are_tokens_are_kept(tmp_path: Path) -> None:
    (document,), _ = read(tmp_path, "1 CD O\n2 CD B-P\n\nmg NN O\n")
    assert document.text == "1 2\nmg"
    (document,), _ = read(tmp_path, "1\t0\t1\tO\n2\t2\t3\tB-P\n")
    assert (document.text, concepts_of(document)) == ("1 2", [("P", "2")])


def test_a_last_column_without_tags_is_an_error(tmp_path: Path) -> None:
    documents, (problem,) = read(tmp_path, "# text = No\n1\tNo\tO\t-\tann1\n2\tfever\tB-P\t-\tann1\n")
    assert not documents
    assert problem.where == f"{tmp_path}/a.conll:2"
    assert "no tag in the last column" in problem.found


@pytest.mark.parametrize("line", ["fever", "fe ver\tB-P", "fever\t", "\tB-P"])
def test_a_line_without_token_or_tag_is_an_error(line: str, tmp_path: Path) -> None:
    documents, (problem,) = read(tmp_path, f"No\tO\n{line}\n")
    assert not documents
    assert problem.where == f"{tmp_path}/a.conll:2"
