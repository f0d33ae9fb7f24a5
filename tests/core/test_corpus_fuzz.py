"""Damaged files of every format either load or result in problems with their location; no other error occurs."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Literal

import pytest

from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.checking import check_document
from clinie_core.data.corpora.document_comparison import count_differences
from clinie_core.data.corpora.reading import ReadingOptions
from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.data.document import Document
from clinie_core.errors import Problem
from tests.corpora import write_corpus

CORPORA = os.environ.get("CLINIE_CORPORA")
REAL = {
    "brat": "maccrobat-2020",
    "pubtator": "bc5cdr/CDR_TestSet.PubTator.txt",
    "bioc_xml": "bc5cdr/CDR_TestSet.BioC.xml",
}
Mutation = Callable[[bytes, random.Random], bytes]


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def flip(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]


def swap(data: bytes, draw: random.Random) -> bytes:
    a, b, c = sorted(draw.randrange(len(data) + 1) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def renumber(data: bytes, draw: random.Random) -> bytes:
    digits = [i for i, byte in enumerate(data) if 48 <= byte <= 57]
    if not digits:
        return data
    at = draw.choice(digits)
    number = draw.choice([b"0", b"7", b"-1", b"99999", b"9" * 30, b"1e9", b"\xd9\xa3", b"9" * 5000])
    return data[:at] + number + data[at + 1 :]


def edit_lines(data: bytes, draw: random.Random) -> bytes:
    lines = data.split(b"\n")
    at = draw.randrange(len(lines))
    edits: tuple[list[bytes], ...] = ([], [lines[at]] * 2, [lines[at] * 3], [draw.choice(lines)], [b""])
    return b"\n".join([*lines[:at], *draw.choice(edits), *lines[at + 1 :]])


def garble(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data) + 1)
    junk = [b"\xff\xfe", b"\xc3", b"\0", b"\t\t", b"|||", b'"', b"{[", b"</", b"&x;", b"\r", b"\xe2\x80\xa8"]
    return data[:at] + draw.choice(junk) + data[at:]


def lengthen(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.choice([b"x", b"9", b" ", b"[", b"<a>"]) * 2**20 + data[at:]


MUTATIONS: tuple[Mutation, ...] = (cut, flip, swap, renumber, edit_lines, garble)


def originals(name: str) -> list[Document]:
    """Return two short synthetic notes, and two real documents if real corpora are available."""
    notes = sorted((n for split in generate_splits(12, seed=2).values() for n in split), key=lambda n: len(n.text))[:2]
    real = Path(CORPORA) / REAL[name] if CORPORA and name in REAL else None
    read = islice(FORMATS.load(name)().read(real), 2) if real is not None else ()
    return [*notes, *(item for item in read if isinstance(item, Document))]


def check_mutants(
    name: str,
    folder: Path,
    count: int,
    mutations: tuple[Mutation, ...],
    seed: int,
    options: ReadingOptions | None = None,
) -> None:
    format_, draw = FORMATS.load(name)(options), random.Random(seed)
    intact, broken = folder / "intact", folder / "broken"
    write_corpus(name, originals(name), intact)
    shutil.copytree(intact, broken)
    files = sorted(file for file in intact.iterdir() if file.is_file() and file.stat().st_size)
    for _ in range(count):
        file = draw.choice(files)
        data = file.read_bytes()
        for mutation in draw.choices(mutations, k=draw.choice((1, 1, 2))):
            data = mutation(data, draw) if data else data
        (broken / file.name).write_bytes(data)
        for item in format_.read(broken):
            if isinstance(item, Problem):
                assert str(broken) in item.where
                assert "\n" not in str(item)
                assert len(str(item)) < 2000
            else:
                assert not check_document(item, "")
                assert not count_differences(item, item)
        shutil.copy(file, broken / file.name)


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_load_or_are_reported(name: str, tmp_path: Path) -> None:
    check_mutants(name, tmp_path, 15 if name == "hf_dataset" else 65, MUTATIONS, seed=1)
    check_mutants(name, tmp_path / "long", 6, (lengthen,), seed=2)


@pytest.mark.parametrize("name", FORMATS)
def test_valid_parts_of_damaged_files_are_read_on_request(name: str, tmp_path: Path) -> None:
    count = 10 if name == "hf_dataset" else 40
    check_mutants(name, tmp_path / "skip", count, MUTATIONS, seed=5, options=ReadingOptions(on_error="skip"))
    check_mutants(name, tmp_path / "trim", count, MUTATIONS, seed=6, options=ReadingOptions(on_error="trim"))


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_ten_thousand_damaged_files_load_or_are_reported(name: str, tmp_path: Path) -> None:
    check_mutants(name, tmp_path, 400 if name == "hf_dataset" else 1200, MUTATIONS, seed=3)
    check_mutants(name, tmp_path / "long", 10, (lengthen,), seed=4)


@pytest.mark.slow
@pytest.mark.parametrize("on_error", ["skip", "trim"])
@pytest.mark.parametrize("name", FORMATS)
def test_valid_parts_of_ten_thousand_damaged_files_are_read_on_request(
    name: str, on_error: Literal["skip", "trim"], tmp_path: Path
) -> None:
    count = -(-10_000 // len(FORMATS))
    check_mutants(name, tmp_path, count, MUTATIONS, seed=7, options=ReadingOptions(on_error=on_error))
