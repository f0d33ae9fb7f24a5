from pathlib import Path

import check_language
import pytest


@pytest.mark.parametrize(
    ("source", "opener"),
    [
        ('def encode():\n    """What a document becomes."""', "What"),
        ('def encode():\n    """The tokens of a document."""', "The"),
        ('def encode():\n    """Encoding of a document."""', "Encoding"),
        ('def encode():\n    """Encodes a document."""', "Encodes"),
        ('class Encoder:\n    """How documents are encoded."""', "How"),
        ('class Encoder:\n    """Writes documents."""', "Writes"),
        ('"""Whether a document fits."""', "Whether"),
    ],
)
def test_reports_docstring_openers(source: str, opener: str) -> None:
    (finding,) = check_language.check_docstrings("a.py", source)
    assert repr(opener) in finding.message


@pytest.mark.parametrize(
    "source",
    [
        'def encode():\n    """Return the tokens of a document."""',
        'def read():\n    """Embed and process tokens."""',
        'class Encoder:\n    """Encoder of documents."""',
        'class Example:\n    @property\n    def size(self):\n        """Number of tokens."""',
        'def test_encoding():\n    """The empty document has one window."""',
        'import pytest\n@pytest.fixture\ndef corpus():\n    """A corpus of two documents."""',
    ],
)
def test_accepts_imperatives_and_noun_phrases(source: str) -> None:
    assert check_language.check_docstrings("a.py", source) == []


def test_finds_phrases_across_lines_and_suggests_others() -> None:
    (finding,) = check_language.check_phrases("a.py", "# first\n# The search goes\n# on after a failure.\n")
    assert finding == check_language.Finding("a.py", 2, "banned phrase 'goes # on' (use: continue, resume)")


def test_ignores_phrases_within_longer_words_and_in_markdown_code() -> None:
    assert check_language.check_phrases("a.py", "dashboard = keyboard + world_size + 'stand-off'") == []
    assert check_language.check_phrases("a.md", "Not `the shelf`.\n\n```\nthe shelf\n```\n[a](shelf.md)\n") == []


def test_limits_markdown_lines_except_tables_links_and_code() -> None:
    long = "word " * 30
    text = f"{long}\n| {long}|\n[a](b.md) {long}\n```\n{long}\n```\n{long}\n"
    assert [finding.line for finding in check_language.check_line_lengths("a.md", text)] == [1, 7]


def test_counts_long_sentences_without_failing(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Short.\n\n" + "word\n" * 31 + "end.\n")
    (long,) = check_language.find_long_sentences(page)
    assert (long.line, long.message[:20]) == (3, "sentence of 32 words")
    assert check_language.check_files([tmp_path]) == []


@pytest.mark.parametrize(
    ("name", "is_verb"), [("written", False), ("_collected", False), ("write", True), ("feed", True)]
)
def test_function_names_must_not_be_participles(name: str, is_verb: bool) -> None:
    findings = check_language.check_function_names("a.py", f"def {name}_rows():\n    pass\n")
    assert (findings == []) == is_verb
    assert check_language.check_function_names("a.py", f"@property\ndef {name}():\n    pass\n") == []
