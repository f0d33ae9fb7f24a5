"""Every guarantee on the security page names a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| .+ \| `(tests/[\w/]+\.py)::(test_\w+)` \|$")


def test_each_guarantee_names_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    _, table = page.split("| guarantee | test |\n|---|---|\n")
    rows = table.split("\n\n")[0].splitlines()
    assert rows
    for row in rows:
        found = ROW.match(row)
        assert found, f"the row names no test: {row}"
        content = ast.parse((ROOT / found[1]).read_text(encoding="utf-8"))
        assert found[2] in {node.name for node in content.body if isinstance(node, ast.FunctionDef)}, row
