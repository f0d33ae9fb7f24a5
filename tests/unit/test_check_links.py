from pathlib import Path

import check_links
import pytest


def test_anchors_follow_githubs_rules() -> None:
    text = "# A *title*, with `code`\n## Twice\n## Twice\n```\n# no heading\n```\n"
    assert check_links.list_anchors(text) == {"a-title-with-code", "twice", "twice-1"}


@pytest.mark.parametrize(
    ("link", "broken"),
    [
        ("other.md", False),
        ("other.md#its-heading", False),
        ("#own-heading", False),
        ("https://example.org/missing", False),
        ("missing.md", True),
        ("other.md#own-heading", True),
        ("#its-heading", True),
    ],
)
def test_finds_links_that_lead_nowhere(link: str, broken: bool, tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Its heading\n")
    page = tmp_path / "page.md"
    page.write_text(f"# Own heading\n\nSee [it]({link}).\n\n`[not](a-link.md)`\n")
    lines = list(check_links.find_broken_links(page))
    assert [line.startswith(f"{page.as_posix()}:3: link to {link!r}") for line in lines] == [True] * broken
