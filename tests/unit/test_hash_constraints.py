"""The hashed constraints cover the tested versions."""

from __future__ import annotations

import re

from hash_constraints import SOURCE, TARGET, collect_digests, read_pins, render


def test_every_pinned_package_has_a_digest() -> None:
    pins = read_pins(SOURCE)
    assert read_pins(TARGET) == pins, "run tools/hash_constraints.py"
    blocks = re.split(r"^(?=[A-Za-z0-9])", TARGET.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pins)
    for block in blocks:
        assert re.fullmatch(r"\S+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+\n", block), block


def test_the_digests_of_several_versions_of_python_are_joined() -> None:
    def report(name: str, version: str, digest: str) -> dict[str, object]:
        archive = {"archive_info": {"hashes": {"sha256": digest}}}
        return {"metadata": {"name": name, "version": version}, "download_info": archive}

    digests = collect_digests(
        [
            [report("My_Package", "1", "a"), report("torch", "2.13.0+cpu", "c")],
            [report("my-package", "1", "b"), report("torch", "2.13.0", "d")],
        ]
    )
    assert digests == {"my-package": {"a", "b"}, "torch": {"c"}}
    content = render({"My_Package": "1"}, digests)
    assert content.endswith("My_Package==1 \\\n    --hash=sha256:a \\\n    --hash=sha256:b\n")
