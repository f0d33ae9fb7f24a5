"""Each file of a corpus belongs to a split or a document, is a known file without documents, or is reported."""

from __future__ import annotations

import gzip
import random
import zipfile
from pathlib import Path

import pytest

from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.archive import unpack
from clinie_core.data.corpora.brat import Brat
from clinie_core.data.corpora.conversion import convert
from clinie_core.data.corpora.files import is_litter
from clinie_core.data.corpora.loading import CorpusSource, Shares, discover_splits, find_files, load_corpus
from clinie_core.data.corpora.split_names import find_split
from clinie_core.data.document import Concept, Corpus, Document, Span
from clinie_core.errors import InputError, Problem
from tests.corpora import WRITABLE

TEXT, ANNOTATIONS = "Aspirin", "T1\tDrug 0 7\tAspirin\n"
RECORD = "{}|t|Aspirin\n{}|a|x\n{}\t0\t7\tAspirin\tChemical\tD1\n"
LINE = '{{"version": 1, "document": {{"id": "{}", "text": "Aspirin", "concepts": [{{"id": "T1", "type": "Drug", \
"spans": [{{"start": 0, "end": 7}}]}}]}}}}\n'
MARK = b"\xef\xbb\xbf"


def write_notes(folder: Path, *names: str, text: str = ".txt", annotations: str = ".ann") -> None:
    """Write brat documents at paths relative to a folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}{text}").write_text(TEXT)
        (folder / f"{name}{annotations}").write_text(ANNOTATIONS)


def write_lines(folder: Path, **files: str) -> None:
    """Write jsonl files, each with the named documents."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, ids in files.items():
        (folder / f"{name}.jsonl").write_text("".join(LINE.format(id_) for id_ in ids.split()))


def list_ids(corpus: Corpus) -> dict[str, list[str]]:
    return {split: sorted(d.id for d in documents) for split, documents in corpus.splits.items()}


def load(path: Path, format_: str = "brat", *ignore: str) -> dict[str, list[str]]:
    return list_ids(load_corpus(discover_splits(path, format_, ignore)))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("TRAIN", "train"),
        ("train1", "train"),
        ("CDR_TrainingSet", "train"),
        ("CDRTrainingSet", "train"),
        ("trainset", "train"),
        ("DevelopmentSet", "dev"),
        ("devel", "dev"),
        ("ncbi-valid-2", "dev"),
        ("validation data", "dev"),
        ("val", "dev"),
        ("TestSet2014", "test"),
        ("testing", "test"),
        ("latest", None),
        ("contest", None),
        ("Testament", None),
        ("training_and_test", None),
        ("devices", None),
        ("tésté", None),
        ("", None),
    ],
)
def test_split_names_are_whole_words_in_any_case(name: str, split: str | None) -> None:
    assert find_split(name) == split


def test_words_that_contain_a_split_name_do_not_name_a_split(tmp_path: Path) -> None:
    write_lines(tmp_path / "c", latest="a", older="b c")
    assert load(tmp_path / "c", "jsonl") == {"train": ["a", "b", "c"]}
    report = convert(discover_splits(tmp_path / "c", "jsonl"), "brat", tmp_path / "out")
    assert (report.documents, report.files, report.concepts) == ({"train": 3}, 2, 3)


def test_documents_are_found_at_any_depth_with_unique_ids(tmp_path: Path) -> None:
    write_notes(tmp_path, "Train/n", "Train/p1/n", "Train/p2/n", "a/DevelopmentSet/n", "test/train/n")
    assert load(tmp_path) == {"train": ["n", "p1/n", "p2/n"], "dev": ["a/n"], "test": ["train/n"]}


def test_several_folders_and_files_of_one_split_are_read(tmp_path: Path) -> None:
    write_notes(tmp_path / "notes", "train-1/n", "train-2/n", "train-2/m", "dev/k")
    assert load(tmp_path / "notes") == {"train": ["m", "train-1/n", "train-2/n"], "dev": ["k"]}
    write_lines(tmp_path / "lines", train_1="a", train_2="b", dev="c")
    assert load(tmp_path / "lines", "jsonl") == {"train": ["a", "b"], "dev": ["c"]}


def test_names_of_documents_do_not_name_a_split(tmp_path: Path) -> None:
    write_notes(tmp_path, "stress test", "train ticket")
    assert load(tmp_path) == {"train": ["stress test", "train ticket"]}


def test_a_document_in_two_splits_is_an_error(tmp_path: Path) -> None:
    write_notes(tmp_path, "train/n", "dev/n", "train/m")
    with pytest.raises(InputError, match="document n is also in train; keep it in one split"):
        load(tmp_path)


def test_files_without_a_split_are_unread_if_others_have_one(tmp_path: Path) -> None:
    write_notes(tmp_path, "train/n", "dev/k", "extra/m")
    with pytest.raises(
        InputError, match=r"extra/m.ann: the path names no split or several, unlike those of other files"
    ):
        load(tmp_path)
    assert load(tmp_path, "brat", "extra") == {"train": ["n"], "dev": ["k"]}


@pytest.mark.parametrize("name", ["__MACOSX/._n.txt", "._n.txt", ".DS_Store", "Thumbs.db", "desktop.ini", ".git/x.txt"])
def test_files_of_other_programs_are_no_documents(tmp_path: Path, name: str) -> None:
    write_notes(tmp_path, "train/n")
    (tmp_path / "train" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "train" / name).write_bytes(b"\0\x05\x16\x07")
    (tmp_path / "annotation.conf").write_text("[entities]\nDrug\n")
    assert load(tmp_path) == {"train": ["n"]}


def test_unread_files_are_reported_by_suffix_unless_they_are_ignored(tmp_path: Path) -> None:
    write_notes(tmp_path, "1", "2")
    for name in ("1.a1", "2.a1", "README.md", "docs/guide.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    assert {(Path(p.where).name, p.found) for p in caught.value.problems} == {
        ("1.a1", "not read, like 1 other .a1 files"),
        ("README.md", "not read"),
        ("guide.pdf", "not read"),
    }
    assert "--ignore '*.a1'" in str(caught.value)
    assert load(tmp_path, "brat", "*.a1", "README.md", "docs/") == {"train": ["1", "2"]}


def test_annotations_without_a_text_are_an_error(tmp_path: Path) -> None:
    write_notes(tmp_path, "n")
    (tmp_path / "m.ann").write_text(ANNOTATIONS)
    with pytest.raises(InputError, match=r"m.ann: the text m.txt is missing"):
        load(tmp_path)


def test_two_files_of_one_document_are_an_error(tmp_path: Path) -> None:
    write_notes(tmp_path, "n")
    (tmp_path / "n.TXT").write_text(TEXT)
    with pytest.raises(InputError, match=r"another file is n.txt too"):
        load(tmp_path)


def test_suffixes_match_in_any_case(tmp_path: Path) -> None:
    write_notes(tmp_path / "b", "N", text=".TXT", annotations=".Ann")
    assert load(tmp_path / "b") == {"train": ["N"]}
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "Train.PubTator").write_text(RECORD.format(1, 1, 1))
    (tmp_path / "p" / "Dev.TXT").write_text(RECORD.format(2, 2, 2))
    assert load(tmp_path / "p", "pubtator") == {"train": ["1"], "dev": ["2"]}


def test_compressed_files_are_read(tmp_path: Path) -> None:
    for name, content in (("train.txt.gz", RECORD.format(1, 1, 1)), ("DEV.TXT.GZ", RECORD.format(2, 2, 2))):
        (tmp_path / name).write_bytes(gzip.compress(content.encode(), mtime=0))
    assert load(tmp_path, "pubtator") == {"train": ["1"], "dev": ["2"]}
    assert load(tmp_path / "train.txt.gz", "pubtator") == {"train": ["1"]}
    (tmp_path / "brat").mkdir()
    (tmp_path / "brat" / "n.txt.gz").write_bytes(gzip.compress(TEXT.encode(), mtime=0))
    (tmp_path / "brat" / "n.ann").write_text(ANNOTATIONS)
    assert load(tmp_path / "brat") == {"train": ["n"]}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", gzip.compress(b"{}", mtime=0), "gzip data in a file without the suffix .gz"),
        ("a.jsonl.gz", b"{}", "not gzip data, although the suffix is .gz"),
        ("a.jsonl.gz", gzip.compress(LINE.encode() * 9, mtime=0)[:-20], "damaged or incomplete gzip data"),
        ("a.jsonl.gz", gzip.compress(LINE.encode(), mtime=0)[:-6] + b"123456", "damaged or incomplete gzip data"),
        ("a.jsonl", "é".encode("utf-16"), "a byte order mark of UTF-16"),
        ("a.jsonl", b"a\xe9b\n", "broken UTF-8 at byte 1 of the line"),
    ],
)
def test_wrong_compression_and_encoding_are_named(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=expected) as caught:
        load(tmp_path, "jsonl")
    assert name in caught.value.problems[0].where


@pytest.mark.parametrize("name", WRITABLE)
def test_a_byte_order_mark_does_not_change_a_document(name: str, tmp_path: Path) -> None:
    document = Document("n", "No pain, but fever.", (Concept("T1", "Problem", (Span(3, 7),)),))
    format_ = FORMATS.load(name)()
    format_.write([document], tmp_path)
    before = format_.read_all(tmp_path)
    for file in tmp_path.iterdir():
        if file.is_file() and file.suffix not in (".arrow", ".spacy", ".parquet"):
            file.write_bytes(MARK + file.read_bytes())
    if name != "hf_dataset":  # datasets reads its own JSON files
        assert format_.read_all(tmp_path) == before
    assert before[0].concepts[0].extent[0] == 3


def test_the_first_token_after_a_byte_order_mark_is_a_marker(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_bytes(MARK + b"-DOCSTART- O\n\nchest B-P\npain I-P\n")
    (document,) = FORMATS.load("conll")().read_all(tmp_path)
    assert (document.text, document.concepts[0].extent) == ("chest pain", (0, 10))


def test_an_archive_from_macos_is_read_like_its_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as archive:
        archive.writestr("notes/n.txt", TEXT)
        archive.writestr("notes/n.ann", ANNOTATIONS)
        archive.writestr("__MACOSX/notes/._n.txt", b"\0\x05\x16\x07")
        archive.writestr("notes/.DS_Store", b"\0")
    with unpack(tmp_path / "mac.zip") as folder:
        assert load(folder) == {"train": ["n"]}


def test_named_places_count_only_their_own_files(tmp_path: Path) -> None:
    write_notes(tmp_path, "a/n", "a/inner/m", "b/k", "c/x")
    (tmp_path / "README").write_text("")
    splits: dict[str, str | list[str]] = {"train": "a", "dev": ["b"], "test": "a/inner"}
    corpus = load_corpus(CorpusSource(path=str(tmp_path), splits=splits))
    assert list_ids(corpus) == {"train": ["n"], "dev": ["k"], "test": ["m"]}
    (tmp_path / "a" / "README").write_text("")
    with pytest.raises(InputError, match="a/README: not read"):
        load_corpus(CorpusSource(path=str(tmp_path), splits=splits))
    ignored = CorpusSource(path=str(tmp_path), splits=splits, ignore=["a/README"])
    assert list_ids(load_corpus(ignored))["train"] == ["n"]
    assert find_files(ignored).ignored["train"] == 1


def test_documents_of_one_name_in_two_places_of_a_split_stay_apart(tmp_path: Path) -> None:
    write_notes(tmp_path, "a/n", "b/n", "b/m")
    corpus = load_corpus(CorpusSource(path=str(tmp_path), splits={"train": ["a", "b"]}))
    assert list_ids(corpus) == {"train": ["a/n", "b/n", "m"]}


def test_files_of_one_name_have_different_documents_in_formats_without_ids(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "data.conll").write_text("pain B-P\n")
    assert load(tmp_path, "conll") == {"train": ["train/data"], "dev": ["dev/data"]}
    named = CorpusSource(path=str(tmp_path), format="conll", splits={"train": "train", "dev": "dev"})
    assert list_ids(load_corpus(named)) == {"train": ["train/data"], "dev": ["dev/data"]}


def test_shares_divide_all_nested_documents(tmp_path: Path) -> None:
    write_notes(tmp_path, *(f"batch{i % 3}/n{i}" for i in range(12)))
    corpus = load_corpus(CorpusSource(path=str(tmp_path), shares=Shares(train=0.5, dev=0.25, test=0.25)))
    assert sorted(id_ for ids in list_ids(corpus).values() for id_ in ids) == sorted(
        f"batch{i % 3}/n{i}" for i in range(12)
    )


def test_lists_define_the_splits_and_name_every_document(tmp_path: Path) -> None:
    write_notes(tmp_path, "a", "p/b", "c")
    (tmp_path / "Train.list").write_bytes(MARK + b"a\n")
    (tmp_path / "dev.list").write_text("p/b\n")
    (tmp_path / "train-1.list").write_text("a\n")
    with pytest.raises(InputError, match=r"c.txt: the document is in no list"):
        load(tmp_path)
    assert load(tmp_path, "brat", "c.*") == {"train": ["a"], "dev": ["p/b"]}
    write_notes(tmp_path, "test/x")
    with pytest.raises(InputError, match="a list of ids is not used"):
        load(tmp_path)


def test_lists_of_a_cross_validation_are_no_splits(tmp_path: Path) -> None:
    write_notes(tmp_path, "a", "b")
    for fold, (train, dev) in enumerate((("a", "b"), ("b", "a"))):
        (tmp_path / f"fold-{fold}").mkdir()
        (tmp_path / f"fold-{fold}" / "train.list").write_text(train)
        (tmp_path / f"fold-{fold}" / "dev.list").write_text(dev)
    assert load(tmp_path) == {"train": ["a", "b"]}
    source = CorpusSource(path=str(tmp_path), splits={"train": "fold-1/train.list", "dev": "fold-1/dev.list"})
    assert list_ids(load_corpus(source)) == {"train": ["b"], "dev": ["a"]}


def test_lists_name_documents_of_split_folders_without_the_folder(tmp_path: Path) -> None:
    write_notes(tmp_path, "train/a", "dev/b")
    (tmp_path / "first.list").write_text("b\n")
    source = CorpusSource(path=str(tmp_path), splits={"train": "first.list"})
    assert list_ids(load_corpus(source)) == {"train": ["b"]}


def test_missing_annotations_are_an_error_that_describes_the_format(tmp_path: Path) -> None:
    write_notes(tmp_path, "train/n", "dev/k")
    (tmp_path / "train" / "n.ann").write_text("")
    with pytest.raises(InputError, match=r"no concept in train; annotations in NAME.txt with NAME.ann beside it"):
        load(tmp_path)
    (tmp_path / "train" / "n.ann").unlink()
    (tmp_path / "dev" / "k.ann").unlink()
    with pytest.raises(InputError, match=r"no concept in train, dev; annotations in NAME.txt"):
        load(tmp_path)
    with pytest.raises(InputError, match="no concept in dev"):
        load_corpus(discover_splits(tmp_path), ("dev",))


def test_another_kind_of_xml_is_not_a_corpus_without_concepts(tmp_path: Path) -> None:
    sentence = '<sentence id="d.s0" text="Aspirin helps."><entity id="e0" charOffset="0-6" type="drug"/></sentence>'
    (tmp_path / "d.xml").write_text(f'<document id="d">{sentence}</document>')
    with pytest.raises(InputError):
        load(tmp_path, "bioc_xml")


@pytest.mark.parametrize("seed", range(60))
def test_every_file_is_read_or_reported(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    folders = ["", "train", "Test", "p1", "a/b", "latest", "dev/train", "__MACOSX", ".git"]
    names = ["n", "m", "train", "Dev-2", "contest", "._n", "README"]
    suffixes = [".txt", ".ANN", ".ann", ".jsonl", ".JSONL", ".list", ".md", ".a1", "", ".TXT"]
    files = set()
    for _ in range(draw.randint(1, 12)):
        file = Path(tmp_path, draw.choice(folders), draw.choice(names) + draw.choice(suffixes))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
        files.add(file)
    for format_ in ("brat", "jsonl"):
        found = find_files(discover_splits(tmp_path, format_, ["*.md"]))
        groups = [group for part in found.splits.values() for group in part.groups]
        groups += found.pool if any(part.lists for part in found.splits.values()) else []
        read = {file for group in groups for file in group.files.values()}
        assert read.isdisjoint(found.unread)
        assert bool(found.unread) <= bool(found.problems)
        rest = files - read - {*found.unread}
        known = {f for f in rest if any(is_litter(part) for part in f.relative_to(tmp_path).parts)}
        assert {f.suffix for f in rest - known} <= {".md", ".list"}
        assert found.count_files() == len(read)
        for part in found.splits.values():
            assert len({group.name for group in part.groups}) == len(part.groups)


@pytest.mark.parametrize("name", ["brat", "jsonl", "conll", "bioc_xml"])
def test_a_converted_corpus_keeps_its_splits(name: str, tmp_path: Path) -> None:
    for splits in (("test",), ("train",), ("train", "dev")):
        source, out = tmp_path / "-".join(splits), tmp_path / f"out-{'-'.join(splits)}"
        write_notes(source, *(f"{split}/p{i}/n{split}" for split in splits for i in range(2)))
        convert(discover_splits(source), name, out)
        assert load(out, name) == load(source)


def test_a_file_name_that_names_two_splits_is_reported(tmp_path: Path) -> None:
    write_lines(tmp_path, train_dev="a", test="b")
    with pytest.raises(InputError, match=r"train_dev.jsonl: the path names no split or several"):
        load(tmp_path, "jsonl")


def test_a_file_name_that_is_not_utf_8_is_reported(tmp_path: Path) -> None:
    write_notes(tmp_path, "n\udce9")
    with pytest.raises(InputError, match="the file name is not UTF-8") as caught:
        load(tmp_path)
    assert [problem.where for problem in caught.value.problems][:2] == [
        f"{tmp_path}/n\ufffd{s}" for s in (".ann", ".txt")
    ]


def test_one_text_is_read_with_the_annotations_in_its_folder(tmp_path: Path) -> None:
    write_notes(tmp_path, "n", "m")
    assert load(tmp_path / "n.txt") == {"train": ["n"]}


def test_a_link_to_a_parent_folder_is_not_followed(tmp_path: Path) -> None:
    write_notes(tmp_path, "p/n")
    (tmp_path / "p" / "up").symlink_to(tmp_path)
    (tmp_path / "q").symlink_to(tmp_path / "p")
    assert load(tmp_path) == {"train": ["p/n", "q/n"]}


def test_reading_a_folder_reports_orphans(tmp_path: Path) -> None:
    (tmp_path / "n.ann").write_text(ANNOTATIONS)
    (problem,) = Brat().read(tmp_path)
    assert isinstance(problem, Problem)
    assert problem.found == "the text n.txt is missing"
