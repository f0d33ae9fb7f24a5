"""Assignment of each file of a corpus folder to a split, or to the files that are not read.

Every file below the folder belongs to a document or a file of documents, is a list of document ids, is a known
file without documents (see :func:`clinie_core.data.corpora.files.is_litter`), or is unread.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from clinie_core.data.corpora.corpus_format import CorpusFormat
from clinie_core.data.corpora.files import FileGroup, is_ignored, list_files, match_suffix, read_text
from clinie_core.data.corpora.split_names import SPLITS, find_split
from clinie_core.errors import InputError, Problem

__all__ = ["LIST_SUFFIX", "CorpusFiles", "SplitFiles", "discover_files", "find_named_files", "read_ids"]

LIST_SUFFIX = ".list"
IGNORE_REMEDY = "to leave it out, pass --ignore {0!r}, or set corpus.ignore: [{0!r}] in a space"
NO_SPLIT = ""
"""Key of the files whose path names no split."""


@dataclass
class SplitFiles:
    """Files of one split.

    Args:
        groups: The files that are read.
        lists: Lists of the ids of documents that are in the pool of the corpus.
        empty: Places that the user named and that contain no documents.
    """

    groups: list[FileGroup] = field(default_factory=list)
    lists: list[Path] = field(default_factory=list)
    empty: list[Path] = field(default_factory=list)


@dataclass
class CorpusFiles:
    """All files of a corpus.

    Args:
        splits: Files by split.
        pool: Files of all documents, which lists of ids refer to.
        unread: Files that are neither read nor ignored nor known to contain no documents.
        problems: One problem for each kind of unread file, and for places that cannot be read.
        ignored: Number of files that ``--ignore`` names, by split; the key is empty without a split.
    """

    splits: dict[str, SplitFiles] = field(default_factory=dict)
    pool: list[FileGroup] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def count_files(self) -> int:
        """Return the number of files that are read, without lists."""
        groups = [group for files in self.splits.values() for group in files.groups]
        if any(files.lists for files in self.splits.values()):
            groups += self.pool
        return len({file for group in groups for file in group.files.values()})


def discover_files(format_: CorpusFormat, root: Path, ignore: Sequence[str] = ()) -> CorpusFiles:
    """Find the splits of a corpus by the names of its folders, files and lists.

    A split's name is a whole word of a folder's name, or of a file's name in formats with many documents per
    file. The outermost folder decides. If no path names a split, lists of ids are used, else all files are
    the training split.

    Args:
        format_: The format.
        root: Folder of the corpus, or one of its files.
        ignore: Patterns of files to ignore; see :func:`clinie_core.data.corpora.files.is_ignored`.
    """
    if root.is_file():
        group = format_.group_file(root)
        return CorpusFiles({"train": SplitFiles([group] if group else [], empty=[] if group else [root])})
    result = CorpusFiles()
    listing = _list_corpus(format_, root, ignore, result, root)
    placed = [(group, *_place_group(format_, group, root)) for group in listing.groups]
    named = {split for _, split, _ in placed if split is not None}
    lists = {} if named else _find_lists(listing.lists, root)
    nameless = [group for group, split, _ in placed if split is None] if named else []
    unread = [*listing.unread, *(file for group in nameless for file in group.files.values())]
    result.unread = sorted(unread)
    result.problems += _explain_files(format_, unread, nameless)
    counts = Counter((split, name) for _, split, name in placed)
    result.pool = [replace(group, name=name) if counts[split, name] == 1 else group for group, split, name in placed]
    if named:
        result.unread += listing.lists
        for (_, split, _), group in zip(placed, result.pool, strict=True):
            if split is not None:
                result.splits.setdefault(split, SplitFiles()).groups.append(group)
        result.problems += [
            Problem(str(file), "a list of ids is not used, since folders or files name splits", remedy=_remedy(file))
            for file in listing.lists
        ]
    elif lists:
        result.splits = {split: SplitFiles(lists=files) for split, files in lists.items()}
        if format_.one_document_per_file:
            result.problems += _find_unlisted(result.pool, [file for files in lists.values() for file in files])
    else:
        result.splits = {"train": SplitFiles(result.pool, empty=[] if result.pool else [root])}
    result.splits = {split: result.splits[split] for split in SPLITS if split in result.splits}
    return result


def find_named_files(
    format_: CorpusFormat, root: Path, places: Mapping[str, Sequence[str]], ignore: Sequence[str] = ()
) -> CorpusFiles:
    """Find the files of splits whose places the user names; files outside these places are not considered.

    Args:
        format_: The format.
        root: Folder of the corpus.
        places: Folders, files or lists of ids by split, relative to ``root``.
        ignore: Patterns of files to ignore.
    """
    result = CorpusFiles()
    named = {split: [Path(root, name) for name in names] for split, names in places.items()}
    everything = {place.resolve() for paths in named.values() for place in paths}
    found: list[tuple[str, str, FileGroup]] = []
    for split, paths in named.items():
        files = result.splits.setdefault(split, SplitFiles())
        listings: dict[str, _Listing] = {}
        for name, place in zip(places[split], paths, strict=True):
            if place.suffix.casefold() == LIST_SUFFIX and place.is_file():
                files.lists.append(place)
                continue
            listings[name] = _Listing([], [], [])
            if place.is_file():
                group = format_.group_file(place)
                listings[name].groups += [group] if group else []
            elif place.is_dir():
                inner = CorpusFiles()
                listings[name] = _list_corpus(format_, place, ignore, inner, root, everything - {place.resolve()})
                result.ignored[split] += inner.ignored.total()
                result.problems += inner.problems
        attached = _attach_files(format_, listings)
        for name, listing in listings.items():
            unread = [file for file in listing.unread if file not in attached]
            result.unread += unread
            result.problems += _explain_files(format_, unread, [])
            found += [(split, name, group) for group in listing.groups]
            files.empty += [] if listing.groups or len(unread) < len(listing.unread) else [Path(root, name)]
    # Files of one name in two splits are the same document only if each file is a document.
    keys = [(split if format_.one_document_per_file else "", group.name) for split, _, group in found]
    counts = Counter(keys)
    for key, (split, name, group) in zip(keys, found, strict=True):
        unique = group if counts[key] == 1 else replace(group, name=Path(name, group.name).as_posix())
        result.splits[split].groups.append(unique)
    if any(files.lists for files in result.splits.values()):
        result.pool = discover_files(format_, root, ignore).pool
    return result


@dataclass
class _Listing:
    groups: list[FileGroup]
    lists: list[Path]
    unread: list[Path]


def _list_corpus(
    format_: CorpusFormat,
    root: Path,
    ignore: Sequence[str],
    result: CorpusFiles,
    corpus: Path,
    other_places: Iterable[Path] = (),
) -> _Listing:
    """List and group the files below a folder of a corpus; add problems and ignored files to the result."""
    try:
        files = list_files(root)
    except InputError as error:
        result.problems += error.problems
        return _Listing([], [], [])
    inner = {place for place in other_places if root.resolve() in place.parents}
    if inner:  # a file belongs to the innermost place
        files = [file for file in files if inner.isdisjoint((file.resolve(), *file.resolve().parents))]
    base = corpus if corpus in (root, *root.parents) else root
    ignored = [file for file in files if is_ignored(file.relative_to(base), ignore)]
    for file in ignored:
        result.ignored[_find_path_split(file.relative_to(root).parts) or NO_SPLIT] += 1
    known = {*ignored, *(file for file in files if file.name in format_.files_without_documents)}
    lists = [file for file in files if file.suffix.casefold() == LIST_SUFFIX and file not in known]
    rest = [file for file in files if file not in known and file.suffix.casefold() != LIST_SUFFIX]
    groups = format_.group_files(rest, root)
    grouped = {file for group in groups for file in group.files.values()}
    return _Listing(groups, lists, [file for file in rest if file not in grouped])


def _attach_files(format_: CorpusFormat, listings: Mapping[str, _Listing]) -> set[Path]:
    """Add files of one place to documents of another place of the same split; return the files of all documents."""
    groups = [group for listing in listings.values() for group in listing.groups]
    unread = [file for listing in listings.values() for file in listing.unread]
    groups = format_.attach_files(groups, unread)
    rest = iter(groups)
    for listing in listings.values():
        listing.groups = list(itertools.islice(rest, len(listing.groups)))
    return {file for group in groups for file in group.files.values()}


def _find_path_split(parts: Iterable[str]) -> str | None:
    """Return the split that the outermost of the names of a path names."""
    return next((split for split in map(find_split, parts) if split is not None), None)


def _place_group(format_: CorpusFormat, group: FileGroup, root: Path) -> tuple[str | None, str]:
    """Return the split of a group and its name without the folder that names the split."""
    parts = group.main.relative_to(root).parts
    folders, name = parts[:-1], parts[-1]
    split = _find_path_split(folders)
    if format_.one_document_per_file:
        rest = group.name.split("/")
        at = next((i for i, part in enumerate(rest[:-1]) if find_split(part) is not None), None)
        return split, "/".join(rest if at is None else rest[:at] + rest[at + 1 :])
    match = match_suffix(name, tuple(group.files))
    return split or find_split(match[0] if match else name), group.name


def _find_lists(files: Sequence[Path], root: Path) -> dict[str, list[Path]]:
    """Return the lists by split: those with exactly the split's name if there are any, else those that contain it.

    Lists for few-shot learning, such as ``train-5.list``, are subsets of ``train.list`` in the same folder. Lists
    in several folders are alternatives, such as the folds of a cross-validation; only a user can choose one.
    """
    folders = {file.parent for file in files if find_split(file.stem) is not None}
    chosen = root if root in folders else folders.pop() if len(folders) == 1 else None
    found: defaultdict[str, list[Path]] = defaultdict(list)
    exact: defaultdict[str, list[Path]] = defaultdict(list)
    for file in files:
        split = find_split(file.stem)
        if split is not None and file.parent == chosen:
            found[split].append(file)
            if file.stem.isalpha():
                exact[split].append(file)
    return {split: exact[split] or files for split, files in found.items()}


def _find_unlisted(pool: Sequence[FileGroup], lists: Sequence[Path]) -> list[Problem]:
    """Return a problem if documents are in no list."""
    try:
        listed = {id_ for file in lists for id_ in read_ids(file)}
    except InputError:  # the reader of the lists reports it
        return []
    rest = [group for group in pool if group.name not in listed]
    if not rest:
        return []
    others = f", like {len(rest) - 1} other documents" if len(rest) > 1 else ""
    remedy = _remedy(rest[0].main)
    return [Problem(str(rest[0].main), f"the document is in no list{others}", allowed="an id in a list", remedy=remedy)]


def read_ids(file: Path) -> list[str]:
    """Read a list of document ids, one per line.

    Raises:
        InputError: If the file cannot be read.
    """
    return [id_ for line in read_text(file).splitlines() if (id_ := line.strip())]


def _explain_files(format_: CorpusFormat, files: Sequence[Path], nameless: Sequence[FileGroup]) -> list[Problem]:
    """Return one problem for each kind of unread file; a kind is a suffix."""
    known = {file: problem for file in files if (problem := format_.explain_unread_file(file)) is not None}
    without_split = {file for group in nameless for file in group.files.values()}
    kinds: defaultdict[tuple[bool, str], list[Path]] = defaultdict(list)
    for file in files:
        if file in without_split or file not in known:
            kinds[file in without_split, file.suffix].append(file)
    # A format may explain several files of a folder by one problem.
    problems = list(dict.fromkeys(problem for file, problem in known.items() if file not in without_split))
    for (split_is_missing, suffix), members in sorted(kinds.items()):
        first = members[0]
        others = f", like {len(members) - 1} other {suffix} files" if len(members) > 1 else ""
        found = (
            f"the path names no split or several, unlike those of other files{others}"
            if split_is_missing
            else f"not read{others}"
        )
        allowed = "train, dev or test in the path" if split_is_missing else format_.example
        problems.append(Problem(str(first), found, allowed=allowed, remedy=_remedy(first, len(members))))
    return problems


def _remedy(file: Path, count: int = 1) -> str:
    return IGNORE_REMEDY.format(f"*{file.suffix}" if count > 1 and file.suffix else file.name)
