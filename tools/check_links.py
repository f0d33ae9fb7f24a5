"""Check the relative links of Markdown files: the target exists, and an anchor is a heading of its page.

Usage: ``python tools/check_links.py [PATH ...]``. Nothing is downloaded, so links to other sites are not checked.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from check_language import CODE_SPAN, blank_fences, list_files

DEFAULT_PATHS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs")
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)


def list_anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, in the form that GitHub and MkDocs give them."""
    anchors: set[str] = set()
    for heading in HEADING.findall(blank_fences(text)):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
        number = 1
        anchor = slug
        while anchor in anchors:
            anchor = f"{slug}-{number}"
            number += 1
        anchors.add(anchor)
    return anchors


def find_broken_links(page: Path) -> Iterator[str]:
    """Yield a line ``path:line: message (remedy)`` for each relative link of a page that leads nowhere."""
    text = page.read_text(encoding="utf-8")
    prose = CODE_SPAN.sub(lambda match: re.sub(r"[\[\]()]", "x", match[0]), blank_fences(text))
    for match in LINK.finditer(prose):
        link = unquote(match[1] or match[2])
        if re.match(r"[a-z][a-z+.-]*:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        where = f"{page.as_posix()}:{prose.count(chr(10), 0, match.start()) + 1}"
        if not file.exists():
            yield f"{where}: link to {link!r}, which does not exist (use: a path relative to {page.parent.as_posix()})"
        elif anchor and file.suffix == ".md":
            anchors = list_anchors(file.read_text(encoding="utf-8"))
            if anchor not in anchors:
                yield f"{where}: link to {link!r}, which has no such heading (use: {', '.join(sorted(anchors))})"


def main() -> int:
    """Print all broken links of the pages on the command line; exit with 1 if there are any."""
    parser = argparse.ArgumentParser(description="Check the relative links and anchors of Markdown files.")
    parser.add_argument("paths", nargs="*", type=Path, help="files and folders; default: all documentation")
    root = Path(__file__).resolve().parent.parent
    paths = parser.parse_args().paths or [root / path for path in DEFAULT_PATHS]
    pages = [file for file in list_files(paths) if file.suffix == ".md"]
    broken = [line for page in pages for line in find_broken_links(page)]
    for line in broken:
        print(line)
    print(f"{len(broken)} broken links in {len(pages)} pages", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
