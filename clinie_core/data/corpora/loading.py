"""Loading of corpora and their splits from folders, files and lists of document ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from clinie_core.config import CorpusView, Fold, FrozenModel, convert_validation_error
from clinie_core.data.corpora import FORMATS
from clinie_core.data.corpora.checking import find_split_leak
from clinie_core.data.corpora.corpus_format import CorpusFormat
from clinie_core.data.corpora.detection import AUTO, Detection, detect, detect_format
from clinie_core.data.corpora.discovery import LIST_SUFFIX, CorpusFiles, discover_files, find_named_files, read_ids
from clinie_core.data.corpora.folds import POOLED, select_fold
from clinie_core.data.corpora.preset_files import find_preset_files
from clinie_core.data.corpora.presets import PRESETS, CorpusPreset, load_preset
from clinie_core.data.corpora.reading import ReadingOptions
from clinie_core.data.corpora.split_names import SPLITS
from clinie_core.data.corpora.splitting import Member, stratify
from clinie_core.data.corpora.views import apply_view, find_unknown_types
from clinie_core.data.document import Corpus, Document
from clinie_core.data.schema import CORPUS_KEY
from clinie_core.errors import ErrorList, InputError, Problem
from clinie_core.shown_ids import show_id

__all__ = [
    "LIST_SUFFIX",
    "CorpusSource",
    "Shares",
    "detect_source_format",
    "discover_splits",
    "find_count_difference",
    "find_files",
    "find_missing_annotations",
    "load_corpora",
    "load_corpus",
    "read_split",
]

POOL = "pool"
"""Key of the files that shares divide."""


class Shares(FrozenModel):
    """A seeded random split of a corpus without splits, stratified by type; each patient is in one split.

    Args:
        train: Share of the documents in the training split.
        dev: Share of the documents in the development split, which selects trials.
        test: Share of the documents in the test split.
        seed: Seed of the split; equal seeds split equal corpora equally.
        group: Rule that identifies a document's patient: ``metadata:KEY``, or a regular expression over the id whose
            first group, or else whole match, is the patient; None treats each document as its own patient.
        pool: Subfolders or files to split; by default the whole folder of the corpus.
    """

    train: float = Field(default=0.7, gt=0, lt=1)
    dev: float = Field(default=0.15, gt=0, lt=1)
    test: float = Field(default=0.15, gt=0, lt=1)
    seed: int = 13
    group: str | None = None
    pool: list[str] = Field(default_factory=lambda: ["."], min_length=1)


class CorpusSource(CorpusView, ReadingOptions):
    """Location, format, splits and view of a corpus.

    Args:
        name: Name of the corpus; by default the name of its folder. A space names it after its study.
        preset: Name of a published corpus, which determines format and splits.
        path: Folder of the corpus.
        format: Name of the format, or ``auto`` to detect it; a preset determines it.
        splits: Maps each split (train, dev, test) to one or several places: a subfolder, a file of a format
            with many documents per file, or a ``.list`` file with one document id per line. If it is empty,
            the preset, or else the names of folders, files and lists determine the splits.
        shares: How to split a corpus without splits; ``splits`` is ignored then.
        folds: Number of folds into which the train and dev documents are divided; None keeps both splits. The test
            split never changes. The first fold is the dev split.
        group: Rule that identifies a document's patient in folds; by default ``shares.group``.
        ignore: Patterns of files that are not read, such as ``README.md`` or ``*.pdf``; any other file that the
            format does not read is an error.

    The further fields are those of :class:`ReadingOptions` and :class:`CorpusView`.
    """

    name: str = Field(default="", pattern=r"^[A-Za-z0-9._-]*$")
    preset: str | None = None
    path: str
    format: str = AUTO
    splits: dict[str, str | list[str]] = Field(default_factory=dict)
    shares: Shares | None = None
    folds: int | None = Field(default=None, ge=2)
    group: str | None = None
    ignore: list[str] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _take_format_of_preset(cls, values: Any) -> Any:
        name = values.get("preset") if isinstance(values, dict) else None
        if isinstance(name, str) and name in PRESETS and values.get("format", AUTO) == AUTO:
            return {**values, "format": PRESETS[name].format}
        return values

    @model_validator(mode="after")
    def _check_preset(self) -> Self:
        if self.preset is None:
            return self
        if self.preset not in PRESETS:
            raise ValueError(f"unknown preset {self.preset!r}; allowed: {', '.join(PRESETS)}")
        format_ = PRESETS[self.preset].format
        if self.format != format_:
            raise ValueError(f"preset {self.preset} has the format {format_}, not {self.format}; remove format")
        if self.shares is not None:
            raise ValueError(f"preset {self.preset} has official splits; remove shares, or remove preset")
        return self

    @model_validator(mode="after")
    def _check_group(self) -> Self:
        if self.group is not None and self.folds is None:
            raise ValueError("group needs folds; for splits by shares, use shares.group")
        return self

    @property
    def first_fold(self) -> Fold | None:
        """The fold that is the dev split; None without folds."""
        if self.folds is None:
            return None
        shares = self.shares or Shares()
        return Fold(number=self.folds, seed=shares.seed, group=self.group or shares.group)

    @property
    def splits_of_preset(self) -> CorpusPreset | None:
        """The preset that determines the splits; None without a preset or if ``splits`` names them."""
        return None if self.preset is None or self.splits else PRESETS[self.preset]

    def places(self, split: str) -> list[str]:
        """Return the subfolders, files or lists of a split."""
        named = self.splits[split]
        return [named] if isinstance(named, str) else named

    @property
    def title(self) -> str:
        """Name of the corpus, else of its folder."""
        return self.name or Path(self.path).name

    @property
    def view(self) -> CorpusView:
        """The view of the annotations, without their location."""
        return CorpusView(**{name: getattr(self, name) for name in CorpusView.model_fields})

    @property
    def reading(self) -> ReadingOptions:
        """The options for faults of the files."""
        return ReadingOptions(**{name: getattr(self, name) for name in ReadingOptions.model_fields})


def find_files(source: CorpusSource) -> CorpusFiles:
    """Find the files of a corpus by split: in the places that it names, else by the names of its files.

    Raises:
        InputError: If the format is unknown.
    """
    format_, root = _load_format(source), Path(source.path)
    if source.shares is not None:
        return find_named_files(format_, root, {POOL: source.shares.pool}, source.ignore)
    if source.splits_of_preset is not None:
        return find_preset_files(format_, root, source.splits_of_preset, source.ignore)
    if source.splits:
        places = {split: source.places(split) for split in source.splits}
        known = PRESETS[source.preset].ignored if source.preset is not None else []
        return find_named_files(format_, root, places, [*known, *source.ignore])
    return discover_files(format_, root, source.ignore)


def read_split(source: CorpusSource, split: str, files: CorpusFiles | None = None) -> Iterator[Document | Problem]:
    """Read one split, one document at a time.

    Args:
        source: The corpus.
        split: A split of the corpus.
        files: The files of the corpus, if they have been found.

    Yields:
        A document, or a problem that names file and line; a split without documents is a problem.
    """
    format_, files = _load_format(source), files or find_files(source)
    part = files.splits[split]
    where = "corpus.shares.pool" if split == POOL else f"corpus.splits.{split}"
    for place in part.empty:
        yield Problem(where, f"no documents in {place}", allowed=format_.example)
    if part.groups:
        empty = True
        for item in format_.read_groups(part.groups):
            empty = False
            yield item
        if empty:
            yield Problem(where, f"no documents in {part.groups[0].main}", allowed=format_.example)
    for file in part.lists:
        yield from _read_listed(format_, files, Path(source.path), file)


def _load_format(source: CorpusSource) -> CorpusFormat:
    return FORMATS.load(_find_format_name(source), "corpus.format")(source.reading)


def detect_source_format(source: CorpusSource) -> Detection | None:
    """Detect the format of a corpus in the places that it names; None if its format is not ``auto``.

    Raises:
        InputError: If the format cannot be detected.
    """
    if source.format != AUTO:
        return None
    root = Path(source.path)
    named = source.shares.pool if source.shares is not None else [p for s in source.splits for p in source.places(s)]
    listed = any(place.endswith(LIST_SUFFIX) for place in named)  # a list names documents of the whole folder
    places = [] if listed else [root / place for place in named]
    return detect(root, source.ignore, frozenset(place for place in places if place.exists() and place != root))


def _find_format_name(source: CorpusSource) -> str:
    detection = detect_source_format(source)
    return source.format if detection is None else detection.format


def _read_listed(format_: CorpusFormat, files: CorpusFiles, root: Path, file: Path) -> Iterator[Document | Problem]:
    try:
        missing = dict.fromkeys(read_ids(file))
    except InputError as error:
        yield from error.problems
        return
    if not missing:
        yield Problem(str(file), "no document id", allowed="one id per line")
    groups = files.pool
    if format_.one_document_per_file:
        groups = [group for group in groups if group.name in missing]
    for item in format_.read_groups(groups):
        if isinstance(item, Problem):
            yield item
        elif item.id in missing:
            del missing[item.id]
            yield item
    absent = [
        Problem(str(file), f"there is no document {show_id(id_)}", allowed=f"documents in {root}") for id_ in missing
    ]
    yield from format_.skip(absent)  # a document that was skipped is absent, too


def load_corpus(source: CorpusSource, splits: tuple[str, ...] | None = None, *, view: bool = True) -> Corpus:
    """Read splits of a corpus into memory.

    Args:
        source: The corpus.
        splits: The splits to read; by default all splits of the source. Other splits are not opened, except that
            folds need both train and dev. With folds, a corpus may lack the dev split.
        view: Whether to apply the view and the folds of the source.

    Raises:
        InputError: With all problems of all files: a missing folder, a split without documents, a
            document id in two splits, and all problems that the format found. With the train split, also
            if the view names a type that no annotation has.
    """
    errors = ErrorList()
    errors.extend(check_source(source))
    errors.raise_if_any()
    files = find_files(source)
    errors.extend(files.problems)
    requested, fold = splits, source.first_fold if view else None
    if fold is not None and splits is not None and not set(POOLED).isdisjoint(splits):
        splits = tuple(dict.fromkeys((*splits, *POOLED)))
    read: dict[str, tuple[Document, ...]] = {}
    if source.shares is not None:
        read = _split_by_shares(source, source.shares, SPLITS if splits is None else splits, files, errors)
    for split in () if source.shares is not None else files.splits if splits is None else splits:
        if split not in files.splits and split == "dev" and fold is not None:
            continue
        if split not in files.splits:
            remedy = f"add {split}: FOLDER, or divide the corpus by corpus.shares"
            errors.add("corpus.splits", f"no {split} split is named", remedy=remedy)
            continue
        items = list(read_split(source, split, files))
        errors.extend(item for item in items if isinstance(item, Problem))
        read[split] = tuple(item for item in items if isinstance(item, Document))
    split_of: dict[str, str] = {}
    shared = (find_split_leak(d, split, split_of) for split, documents in read.items() for d in documents)
    errors.extend(problem for problem in shared if problem)
    if not len(errors):
        counts = {split: sum(len(d.concepts) for d in documents) for split, documents in read.items()}
        errors.extend(find_missing_annotations(source, counts))
        errors.extend(find_count_difference(source, {split: len(documents) for split, documents in read.items()}))
    corpus = Corpus(read, tuple(errors.notices))
    if not len(errors) and view and "train" in read:  # evaluation applies the view to other corpora and splits
        errors.extend(find_unknown_types(corpus, source))
    errors.raise_if_any()
    corpus = apply_view(corpus, source) if view else corpus
    if fold is None or "train" not in read:
        return corpus
    corpus = select_fold(corpus, fold)
    return corpus if requested is None else Corpus({split: corpus[split] for split in requested}, corpus.notices)


def find_missing_annotations(source: CorpusSource, concepts: Mapping[str, int]) -> list[Problem]:
    """Return a problem if the training split, or all splits together, contain no concept.

    Args:
        source: The corpus.
        concepts: Number of concepts by split that was read.
    """
    found = ""
    if concepts and not sum(concepts.values()):
        found = f"no concept in {', '.join(concepts)}"
    elif concepts.get("train") == 0:
        found = "no concept in train"
    if not found:
        return []
    remedy = "check that the format is correct and that the annotation files are complete"
    return [Problem(source.path, found, allowed=f"annotations in {_load_format(source).example}", remedy=remedy)]


def find_count_difference(source: CorpusSource, documents: Mapping[str, int]) -> list[Problem]:
    """Return a warning if the splits of a preset do not have the numbers of documents of the published corpus.

    Args:
        source: The corpus.
        documents: Number of documents by split that was read.
    """
    preset = source.splits_of_preset
    return [] if preset is None else preset.find_count_difference(str(source.preset), documents)


def load_corpora(sources: Sequence[CorpusSource], splits: tuple[str, ...] | None = None) -> Corpus:
    """Read several corpora as one; each document's id and metadata contain the name of its corpus.

    Args:
        sources: The corpora; a single corpus is read as by :func:`load_corpus`.
        splits: The splits to read; by default all.

    Raises:
        InputError: With all problems of all corpora.
    """
    if len(sources) == 1:
        return load_corpus(sources[0], splits)
    errors = ErrorList()
    together: dict[str, tuple[Document, ...]] = {}
    for source in sources:
        try:
            corpus = load_corpus(source, splits)
        except InputError as error:
            errors.extend(replace(p, where=f"{source.title}: {p.where}") for p in error.problems)
            continue
        errors.extend(replace(p, where=f"{source.title}: {p.where}") for p in corpus.notices)
        for split, documents in corpus.splits.items():
            named = tuple(
                replace(d, id=f"{source.title}/{d.id}", metadata={**d.metadata, CORPUS_KEY: source.title})
                for d in documents
            )
            together[split] = (*together.get(split, ()), *named)
    errors.raise_if_any()
    return Corpus(together, tuple(errors.notices))


def _split_by_shares(
    source: CorpusSource, shares: Shares, splits: tuple[str, ...], files: CorpusFiles, errors: ErrorList
) -> dict[str, tuple[Document, ...]]:
    """Divide the documents of a pool by shares and return the requested splits."""
    items = list(read_split(source, POOL, files))
    errors.extend(item for item in items if isinstance(item, Problem))
    documents = {item.id: item for item in items if isinstance(item, Document)}
    members = [Member.from_document(document, shares.group) for document in documents.values()]
    parts = stratify(members, {name: getattr(shares, name) for name in SPLITS}, shares.seed)
    return {split: tuple(documents[id_] for id_ in parts[split]) for split in splits}


def check_source(source: CorpusSource) -> list[Problem]:
    """Check a source without reading its documents; return all problems."""
    problems = []
    if not Path(source.path).exists():
        remedy = "check the path, or pass corpus.path=FOLDER"
        problems.append(Problem("corpus.path", f"no folder {source.path}", allowed="a folder", remedy=remedy))
    elif source.splits_of_preset is not None:
        problems += source.splits_of_preset.find_missing(str(source.preset), Path(source.path))
    if source.format != AUTO or not problems:
        FORMATS.load(_find_format_name(source), "corpus.format")
    for split in source.splits:
        if split not in SPLITS:
            problems.append(Problem(f"corpus.splits.{split}", "unknown split", allowed="train, dev and test"))
    return problems


def discover_splits(
    path: Path, format_: str = AUTO, ignore: Sequence[str] = (), preset: str | None = None
) -> CorpusSource:
    """Return a corpus whose splits are found by a preset, or by the names of its folders, files or lists.

    Args:
        path: Folder of the corpus, or one of its files.
        format_: Name of the format in ``FORMATS``, or ``auto`` to detect it.
        ignore: Patterns of files that are not read.
        preset: Name of a published corpus.

    Returns:
        The corpus; if no file names a split, the whole path is the training split.

    Raises:
        InputError: If the format is unknown, cannot be detected or contradicts the preset.
    """
    if preset is not None:
        load_preset(preset, "--preset")
        try:
            return CorpusSource(path=str(path), preset=preset, format=format_, ignore=list(ignore))
        except ValidationError as error:
            raise InputError(convert_validation_error(error, "--preset", quote=False)) from None
    if format_ != AUTO:
        FORMATS.load(format_, "corpus.format")
    elif path.exists():
        format_ = detect_format(path, ignore)
    return CorpusSource(path=str(path), format=format_, ignore=list(ignore))
