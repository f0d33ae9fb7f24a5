"""Hugging Face datasets on disk with columns of tokens and tags, read by the ``datasets`` library.

A folder is the output of ``Dataset.save_to_disk``. Tags are strings or class labels. Each row is a document,
whose id is the ``id`` column or the row's index.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from clinie_core.data.corpora.corpus_format import CorpusFormat
from clinie_core.data.corpora.files import FileGroup
from clinie_core.data.corpora.reading import AnnotationErrors
from clinie_core.data.corpora.tokens import Token, build_document, tag_sentences
from clinie_core.data.document import Document
from clinie_core.errors import InputError, Problem, fail
from clinie_core.shown_ids import show_id

__all__ = ["HfDataset"]

INFO = "dataset_info.json"
TOKENS, TAGS, ID = "tokens", ("ner_tags", "tags", "labels"), "id"


class HfDataset(CorpusFormat):
    """Folders with ``dataset_info.json`` and Arrow files."""

    files_without_documents: ClassVar[tuple[str, ...]] = ("dataset_dict.json",)
    example: ClassVar[str] = "output of Dataset.save_to_disk, with columns tokens and ner_tags, tags or labels"

    def group_files(self, files: Sequence[Path], root: Path) -> list[FileGroup]:
        """See :meth:`CorpusFormat.group_files`; each folder with ``dataset_info.json`` is a group."""
        found: dict[Path, dict[str, Path]] = {file.parent: {INFO: file} for file in files if file.name == INFO}
        for file in files:
            if file.parent in found:
                found[file.parent][file.name] = file
        return [FileGroup(folder.relative_to(root).as_posix(), found[folder]) for folder in sorted(found)]

    def read_groups(self, groups: Iterable[FileGroup]) -> Iterator[Document | Problem]:
        """See :meth:`CorpusFormat.read_groups`."""
        seen: set[str] = set()
        for group in groups:
            yield from self._read_folder(group, seen)

    def _read_folder(self, group: FileGroup, seen: set[str]) -> Iterator[Document | Problem]:
        path = group.main.parent
        prefix = "" if group.name == "." else f"{group.name}/"  # rows are numbered from 0 in each folder
        try:
            dataset = _load(path)
            tags = next((name for name in TAGS if name in dataset.column_names), None)
            if TOKENS not in dataset.column_names or tags is None:
                found = f"columns {', '.join(dataset.column_names)}"
                fail(str(path), found, allowed=f"{TOKENS} and one of {', '.join(TAGS)}", remedy="rename the columns")
            names = getattr(getattr(dataset.features[tags], "feature", None), "names", None)
            for number, row in enumerate(_read_rows(dataset, path)):
                id_ = str(row.get(ID, f"{prefix}{number}"))
                yield from self._read_row(row, f"{path}: row {number}", id_, tags, names, seen)
        except InputError as error:
            yield from self.skip(error.problems, rest=True)

    def _read_row(
        self, row: dict[str, Any], where: str, id_: str, tags: str, names: list[str] | None, seen: set[str]
    ) -> Iterator[Document | Problem]:
        try:
            document = _build_document(row, id_, tags, names, where, self.collect_errors())
        except InputError as error:
            yield from self.skip(error.problems)
            return
        yield from self.take_notices()
        if id_ in seen:
            found = f"duplicate document id {show_id(id_)}"
            yield from self.skip([Problem(where, found, remedy="give each row its own id")])
            return
        seen.add(id_)
        yield from self.validate(document, where)

    def write(self, documents: Iterable[Document], folder: Path) -> None:
        """See :meth:`CorpusFormat.write`; sentence boundaries are lost."""
        datasets = _import_datasets()
        features = datasets.Features(
            {
                ID: datasets.Value("string"),
                TOKENS: datasets.List(datasets.Value("string")),
                TAGS[0]: datasets.List(datasets.Value("string")),
            }
        )
        with tempfile.TemporaryDirectory() as cache:
            table = datasets.Dataset.from_generator(
                _RowGenerator(documents), features=features, cache_dir=cache, fingerprint=uuid.uuid4().hex
            )
            table.save_to_disk(str(folder))

    def round_trip(self, document: Document) -> Document:
        """See :meth:`CorpusFormat.round_trip`."""
        return _build_document(_build_row(document), document.id, TAGS[0], None, document.id, self.collect_errors())


def _import_datasets() -> Any:
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    try:
        import datasets
    except ModuleNotFoundError:
        fail("corpus.format", "hf_dataset needs the datasets library", remedy="pip install 'clinie[datasets]'")
    datasets.disable_progress_bars()
    return datasets


def _load(path: Path) -> Any:
    try:
        return _import_datasets().load_from_disk(str(path))
    except InputError:
        raise
    except Exception as error:  # a damaged file raises errors of datasets, Arrow or JSON
        fail(
            str(path),
            f"not a dataset that can be loaded ({type(error).__name__})",
            allowed="the output of save_to_disk",
        )


def _read_rows(dataset: Any, path: Path) -> Iterator[dict[str, Any]]:
    rows = None
    while True:
        try:
            if rows is None:
                dataset.data.validate(full=True)  # Arrow does not check the offsets in a damaged file when reading
                rows = iter(dataset)
            row = next(rows, None)
        except Exception as error:  # as in _load, since rows are read lazily
            fail(str(path), f"a row cannot be read ({type(error).__name__})", allowed="the output of save_to_disk")
        if row is None:
            return
        yield row


def _build_row(document: Document) -> dict[str, Any]:
    flat = [(document.text[s.start : s.end], tag) for sentence in tag_sentences(document) for s, tag in sentence]
    return {ID: document.id, TOKENS: [text for text, _ in flat], TAGS[0]: [tag for _, tag in flat]}


class _RowGenerator:
    """A generator function of rows that ``datasets`` can pickle."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._documents = documents

    def __call__(self) -> Iterator[dict[str, Any]]:
        return (_build_row(document) for document in self._documents)


def _build_document(
    row: dict[str, Any], id_: str, tags: str, names: list[str] | None, where: str, errors: AnnotationErrors
) -> Document:
    tokens, labels = row[TOKENS], row[tags]
    if tokens is None or labels is None or len(tokens) != len(labels):
        fail(where, "the numbers of tags and tokens differ", allowed="one tag per token")
    if names is not None and any(not 0 <= int(label) < len(names) for label in labels):
        fail(where, "a tag outside the class labels", allowed=f"0 to {len(names) - 1}")
    if any(not isinstance(t, str) or t.split() != [t] for t in tokens):
        fail(where, "a token is empty or contains white space", allowed="tokens without white space")
    words = [names[int(label)] if names is not None else str(label) for label in labels]
    return build_document(id_, [[Token(t, tag) for t, tag in zip(tokens, words, strict=True)]], where, errors)
