"""Download of backbones into a folder for machines without a network."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clinie_core.backbones.hub import HubReader, HubRepository, find_pickled_weights
from clinie_core.backbones.manifest import FETCHING, LOCK, FetchedBackbone, FetchedFile, Manifest, compute_sha256
from clinie_core.backbones.network import describe_outage
from clinie_core.config import BackboneSource
from clinie_core.errors import ErrorList, InputError, fail

__all__ = ["fetch_backbones"]

WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
DESCRIPTION = re.compile(
    r"(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|chat_template)\.json"
    r"|vocab\.txt|merges\.txt|(tokenizer|spiece)\.model|chat_template\.jinja"
    r"|(generation_)?config\.json"
    r"|(LICENSE|LICENCE|NOTICE|USE_POLICY)(\.txt|\.md)?"
)
"""Files of configuration, tokenizer and licence."""


def fetch_backbones(sources: Sequence[BackboneSource], folder: Path, where: str) -> Iterator[FetchedBackbone]:
    """Download backbones from the Hub, each at one commit, and yield them when their files are complete.

    After an interruption, the next call downloads the files that are not complete. A file gets its name only when it
    is complete, and the manifest names a backbone only when all of its files are.

    Args:
        sources: The backbones; those that are not on the Hub are ignored, except for their tokenizers.
        folder: Folder to write to; it may contain other fetched backbones.
        where: Key path for error messages.

    Raises:
        InputError: If the Hub is unreachable, a repository cannot be loaded, or another process writes to the folder.
            All faults of the repositories are reported before the first download.
    """
    outage = describe_outage()
    if outage:
        fail("backbones fetch", outage, remedy="run the command on a machine with access to the Hub")
    planned = _inspect(sources, where)
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        manifest = Manifest.read(folder, "--to") if (folder / "manifest.json").is_file() else Manifest()
        for name, (repository, names) in planned.items():
            known = manifest.find(name, repository.commit)
            backbone = _fetch(name, repository, names, folder, known)
            manifest = manifest.replace(backbone)
            manifest.write(folder)
            yield backbone


def _inspect(sources: Sequence[BackboneSource], where: str) -> dict[str, tuple[HubRepository, set[str]]]:
    """Return the commit and the required files of each repository."""
    reader, errors = HubReader(use_fetched=False), ErrorList()
    planned: dict[str, tuple[HubRepository, set[str]]] = {}
    for source in sources:
        for part, has_weights in ((source, True), (source.tokenizer, False)):
            if part is None or part.hub is None or Path(part.hub).is_dir():
                continue
            try:
                pinned = reader.pin(part.model_copy(update={"tokenizer": None}), where, has_weights=has_weights)
                repository = reader.read(pinned, where, has_weights=has_weights)
            except InputError as error:
                errors.extend(error.problems)
                continue
            names = {name for name in repository.files if DESCRIPTION.fullmatch(name)}
            if has_weights:
                weights = {name for name in repository.files if WEIGHTS.fullmatch(name)}
                names |= weights or {*find_pickled_weights(repository.files)}
            names |= planned[part.hub][1] if part.hub in planned else set()
            planned[part.hub] = (repository, names)
    errors.raise_if_any()
    return planned


def _fetch(
    name: str, repository: HubRepository, names: set[str], folder: Path, known: FetchedBackbone | None
) -> FetchedBackbone:
    """Download the files of a repository that the folder lacks."""
    files = dict(known.files) if known is not None else {}
    backbone = FetchedBackbone(
        name=name, commit=repository.commit, licence=repository.licence, gated=repository.gated, files={}
    )
    target, staging = folder / backbone.key, folder / FETCHING / backbone.key
    target.mkdir(exist_ok=True)
    for file in sorted(names):
        present = target / file
        if file in files and present.is_file() and present.stat().st_size == files[file].size:
            continue
        part = _download(name, file, repository.commit, staging)
        found = FetchedFile(size=part.stat().st_size, sha256=compute_sha256(part))
        expected = repository.digests.get(file)
        if expected is not None and found.sha256 != expected:
            part.unlink()
            fail(f"{name}/{file}", "the downloaded file is damaged: its sha256 differs", remedy="fetch it again")
        os.replace(part, present)
        files[file] = found
    shutil.rmtree(staging, ignore_errors=True)
    return backbone.model_copy(update={"files": files})


def _download(name: str, file: str, commit: str, staging: Path) -> Path:
    """Download a file of a repository; requests that break off are repeated by the Hub's library."""
    import httpx2
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(name, file, revision=commit, local_dir=staging))
    except (HfHubHTTPError, httpx2.TransportError, OSError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        remedy = "run the command again; complete files are not downloaded twice"
        fail(f"{name}/{file}", f"the download failed ({reason})", remedy=remedy)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    with (folder / LOCK).open("w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fail("--to", f"another process fetches backbones into {folder}", remedy="wait until it ends")
        yield
