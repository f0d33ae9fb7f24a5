"""CSV, TSV and Parquet files for prediction."""

from __future__ import annotations

import gzip
import random
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clinie_core.data.document import Document
from clinie_core.errors import InputError, Problem
from clinie_core.inference.tables import Columns, Tables, is_table

NOTES = ['No chest pain.\r\nAfebrile, "stable".', "\U0001f600 Kopfschmerz; übel", "one\ttab"]


def read(*files: Path, columns: Columns | None = None, skipped: list[Problem] | None = None) -> list[Document]:
    tables = Tables(files, columns or Columns())
    ids = tables.check(skipped)
    documents = [document for batch in tables.read_batches() for document in batch]
    assert [document.id for document in documents] == ids
    return documents


def fail_to_read(*files: Path, columns: Columns | None = None) -> list[str]:
    with pytest.raises(InputError) as caught:
        Tables(files, columns or Columns()).check()
    return [str(problem) for problem in caught.value.problems]


def quote(text: str) -> str:
    return '"{}"'.format(text.replace('"', '""'))


def write_csv(file: Path, delimiter: str = ",", header: str = "Note_ID,TEXT,ward") -> Path:
    rows = [f"n{number},{quote(text)},7" for number, text in enumerate(NOTES)]
    content = "\n".join([header, *rows]) + "\n\n"
    if delimiter != ",":
        content = "\n".join(delimiter.join([f"n{n}", quote(text), "7"]) for n, text in enumerate(NOTES))
        content = f"{header.replace(',', delimiter)}\n{content}\n"
    data = content.encode()
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)
    return file


def write_parquet(file: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), file)
    return file


@pytest.mark.parametrize(
    ("name", "delimiter"), [("a.csv", ","), ("A.CSV.gz", ","), ("a.csv", ";"), ("a.tsv", "\t"), ("a.TSV.gz", "\t")]
)
def test_texts_are_those_of_the_cells(tmp_path: Path, name: str, delimiter: str) -> None:
    file = write_csv(tmp_path / name, delimiter)
    assert is_table(file)
    assert [(d.id, d.text) for d in read(file)] == [(f"n{n}", text) for n, text in enumerate(NOTES)]
    if not name.endswith(".gz"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
        assert [d.text for d in read(file)] == NOTES


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_parquet_is_read(tmp_path: Path, type_: pa.DataType) -> None:
    file = write_parquet(tmp_path / "a.parquet", text=pa.array(NOTES, type_), id=[3, 1, 2])
    assert [(d.id, d.text) for d in read(file)] == [("3", NOTES[0]), ("1", NOTES[1]), ("2", NOTES[2])]


def test_columns_are_chosen_by_options_or_by_their_names(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("subject_id,row_id,report\np,7,A\np,8,B\n")
    assert fail_to_read(file) == [f"{file}: no column text; subject_id, row_id, report; pass --text-column NAME"]
    assert [d.id for d in read(file, columns=Columns("report"))] == ["7", "8"]
    assert fail_to_read(file, columns=Columns("report", "subject_id")) == [
        f"{file}: row 2: duplicate id, first at {file}: row 1; give each row its own id"
    ]
    assert fail_to_read(file, columns=Columns("report", "name"))[0].startswith(f"{file}: no column name; subject_id, ")
    file.write_text("note,text\nx,A\nx,B\n")
    assert [d.id for d in read(file)] == ["a-1", "a-2"]
    file.write_text("text,Text,TEXT\nA,B,C\n")
    assert [d.text for d in read(file)] == ["A"]
    file.write_text("Text,TEXT\nA,B\n")
    assert fail_to_read(file) == [f"{file}: 2 columns text; one; rename one, or pass --text-column"]


def test_a_missing_header_does_not_show_a_text(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('n1,"Mr. Smith has chest pain, and a cough since Monday."\n')
    (line,) = fail_to_read(file)
    assert "Smith" not in line
    assert "n1, (51 characters)" in line


def test_all_bad_rows_are_reported_and_can_be_left_out(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    lines = [b"id,text", b"a,x", b"b,caf\xe9", b"c,", b"d,y,z", b"a,again", b",no id", b"\xff,x", b"g,good"]
    file.write_bytes(b"\n".join(lines))
    expected = [
        "row 2: broken UTF-8",
        "row 3: no text",
        "row 4: 3 fields",
        f"row 5: duplicate id, first at {file}: row 1",
        "row 6: no id",
        "row 7: broken UTF-8",
    ]
    assert [line.partition("; ")[0] for line in fail_to_read(file)] == [f"{file}: {line}" for line in expected]
    skipped: list[Problem] = []
    assert [d.id for d in read(file, skipped=skipped)] == ["a", "g"]
    assert [str(problem).partition("; ")[0] for problem in skipped] == [f"{file}: {line}" for line in expected]
    assert {problem.severity for problem in skipped} == {"skipped"}


def test_bad_rows_of_parquet_are_reported(tmp_path: Path) -> None:
    broken = pa.array([b"x", b"\xff", None, b"", b"y", b"z"], pa.binary()).view(pa.string())
    file = write_parquet(tmp_path / "a.parquet", text=broken, id=pa.array([1.5, 2, 3, 4, None, float("nan")]))
    assert [line.partition("; ")[0] for line in fail_to_read(file)] == [
        f"{file}: row 2: broken UTF-8",
        f"{file}: row 3: no text",
        f"{file}: row 4: no text",
        f"{file}: row 5: no id",
        f"{file}: row 6: no id",
    ]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"", "a table without a header; names of columns in the first line"),
        ("a.csv", b"text\n", "a table without rows; at least one row"),
        ("a.csv", "text\nA\n".encode("utf-16"), "a byte order mark of UTF-16; UTF-8; convert the file to UTF-8"),
        ("a.csv", b"t\xe9xt\nA\n", "broken UTF-8 in the header; UTF-8; convert the file to UTF-8"),
        ("a.csv", b'text\n"A\n', "row 1: not a row of a table (unexpected end of data)"),
        ("a.csv", b'text\nA\n"B"x\n', "row 2: not a row of a table (',' expected after '\"')"),
        ("a.csv.gz", b"text\nA\n", "not gzip data, although the suffix is .gz"),
        ("a.parquet", b"PAR1", "not a Parquet file that can be read (ArrowInvalid)"),
    ],
)
def test_files_that_cannot_be_read_are_one_line(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    (line,) = fail_to_read(file)
    assert line.startswith(f"{file}: {expected}")


def test_a_column_of_numbers_is_refused(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", text=[1, 2])
    assert fail_to_read(file) == [f"{file}: the column text contains int64; strings; pass --text-column NAME"]


def test_the_faults_of_all_files_are_reported_together(tmp_path: Path) -> None:
    first, second = write_csv(tmp_path / "a.csv"), write_csv(tmp_path / "b.csv")
    third = tmp_path / "c.csv"
    assert [line.partition(";")[0] for line in fail_to_read(first, third, second)] == [
        f"{third}: cannot be read: No such file or directory",
        *(f"{second}: row {n}: duplicate id, first at {first}: row {n}" for n in (1, 2, 3)),
    ]


def test_a_file_that_changes_is_an_error(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "a.csv")
    tables = Tables([file], Columns())
    tables.check()
    file.write_text("id,text\na,b\n")
    with pytest.raises(InputError, match="has changed while it was read"):
        list(tables.read_batches())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    draw = random.Random(0)
    texts = ["".join(draw.choices("abcdefgh ", k=20_000)) for _ in range(50)]
    file = tmp_path / f"a.{kind}"
    if kind == "csv":
        file.write_text("text\n" + "".join(f"{text}\n" for text in texts * 20))
    else:
        pq.write_table(
            pa.table({"text": texts * 20}), file, row_group_size=100, use_dictionary=False, compression="none"
        )
    tables = Tables([file], Columns())
    tables.check()
    pool = pa.default_memory_pool()
    before, largest, count = pool.bytes_allocated(), 0, 0
    tracemalloc.start()
    for batch in tables.read_batches():
        count += len(batch)
        largest = max(largest, pool.bytes_allocated() - before)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 1000
    assert file.stat().st_size > 15e6
    assert peak + largest < 12e6
