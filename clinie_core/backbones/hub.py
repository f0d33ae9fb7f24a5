"""Repositories on the Hugging Face Hub: their commit and files, inspected before a model is loaded.

The driver of a search inspects each repository once. All nodes then load the commit that the driver found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from clinie_core.backbones.location import BackboneUnavailable, fetch_file
from clinie_core.backbones.manifest import find_fetched, get_backbones_folder
from clinie_core.backbones.network import describe_outage
from clinie_core.config import BackboneSource
from clinie_core.errors import InputError, Problem, fail

__all__ = ["HubReader", "HubRepository", "find_pickled_weights"]

TIMEOUT = 10.0
"""Seconds until a request to the Hub fails."""
COMMIT = re.compile(r"[0-9a-f]{40}")
SHARD = re.compile(r"model-\d{5}-of-(\d{5})\.safetensors")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER_FILES = (
    {"tokenizer.json"},
    {"vocab.txt"},
    {"vocab.json", "merges.txt"},
    {"tokenizer.model"},
    {"spiece.model"},
)
"""Sets of files from which transformers makes a fast tokenizer; one of them is enough."""
DOWNLOAD = "download it once with `hf download {name}`"


@dataclass(frozen=True)
class HubRepository:
    """One commit of a repository.

    Args:
        commit: Hash of the commit.
        files: Names of its files, relative to the repository; of a copy in the local cache, the files that it has.
        cached: Whether the files are those of the local cache, because the Hub is not available.
        licence: Identifier of its licence, if the Hub states one.
        gated: Whether users have to accept terms.
        digests: The sha256 of large files that the Hub states, by name.
    """

    commit: str
    files: frozenset[str]
    cached: bool = False
    licence: str | None = None
    gated: bool = False
    digests: Mapping[str, str] = field(default_factory=dict)


def find_pickled_weights(files: frozenset[str]) -> list[str]:
    """Return the names of weights in pickle format, in alphabetical order."""
    return sorted(name for name in files if re.fullmatch(r"pytorch_model(-\d{5}-of-\d{5})?\.bin", name))


class HubReader:
    """Reader of repositories. It sends no further request after the Hub was unreachable.

    If the Hub is unreachable or ``HF_HUB_OFFLINE`` is set, it reads the local cache.

    Args:
        use_fetched: Whether to read the folder that ``CLINIE_BACKBONES`` names before the Hub.
    """

    def __init__(self, *, use_fetched: bool = True) -> None:
        self._use_fetched = use_fetched
        self._outage = ""

    def pin(self, source: BackboneSource, where: str, *, has_weights: bool = True) -> BackboneSource:
        """Check that a backbone's repository can be loaded, and return the backbone with the commit as revision.

        A backbone that is not on the Hub is returned unchanged.

        Args:
            source: The backbone; the repository of its tokenizer is inspected too.
            where: Key path for error messages.
            has_weights: Whether the repository is inspected for a model, not only for a tokenizer.

        Raises:
            InputError: With all problems of the repositories.
        """
        errors: list[InputError] = []
        changes: dict[str, Any] = {}
        if source.tokenizer is not None:
            try:
                changes["tokenizer"] = self._pin(source.tokenizer, where, has_weights=False)
            except InputError as error:
                errors.append(error)
        try:
            source = self._pin(source, where, has_weights=has_weights)
        except InputError as error:
            errors.append(error)
        if errors:
            is_unavailable = all(isinstance(error, BackboneUnavailable) for error in errors)
            kind = BackboneUnavailable if is_unavailable else InputError
            raise kind([problem for error in errors for problem in error.problems])
        return source.model_copy(update=changes)

    def read(self, source: BackboneSource, where: str, *, has_weights: bool = True) -> HubRepository:
        """Return the commit and the files of a backbone's repository.

        A complete copy of a commit in the local cache is read without a request.

        Args:
            source: A backbone on the Hub.
            where: Key path for error messages.
            has_weights: Whether the repository is read for a model, not only for a tokenizer.

        Raises:
            BackboneUnavailable: If neither the Hub nor the local cache is available.
            InputError: If the repository or the revision does not exist, or access to it is denied.
        """
        _check_name(source, where)
        fetched = find_fetched(source) if self._use_fetched else None
        if fetched is not None:
            return HubRepository(fetched[1].commit, frozenset(fetched[1].files))
        cached = _read_cache(source)
        is_pinned = COMMIT.fullmatch(source.revision or "") is not None
        if cached and is_pinned and not list(_find_missing(source, cached, has_weights=has_weights)):
            return cached
        self._outage = self._outage or describe_outage()
        if not self._outage:
            found = self._request(source, where)
            if found:
                return found
        if not cached:
            version = f" at revision {source.revision}" if source.revision else ""
            found_ = f"backbone {source.name!r} is neither a local folder nor in the local cache{version}"
            remedy = f"check the spelling and the network, or {DOWNLOAD.format(name=source.hub)}"
            folder = get_backbones_folder() if self._use_fetched else None
            if folder is not None:
                found_ += f", nor in {folder}"
                remedy = f"fetch it on a connected machine with `clinie backbones fetch SPACE --to {folder}`"
            raise BackboneUnavailable([Problem(where, f"{found_}, and {self._outage}", remedy=remedy)])
        return cached

    def _pin(self, source: BackboneSource, where: str, *, has_weights: bool) -> BackboneSource:
        if source.hub is None or Path(source.hub).is_dir():
            return source
        repository = self.read(source, where, has_weights=has_weights)
        problems = [
            Problem(where, f"backbone {source.name!r}: {problem.found}", allowed=problem.allowed, remedy=problem.remedy)
            for problem in _find_missing(source, repository, has_weights=has_weights)
        ]
        pinned = source.model_copy(update={"revision": repository.commit})
        if "config.json" in repository.files and has_weights:
            problems += _find_custom_code(pinned, where)
        if problems:
            raise (BackboneUnavailable if repository.cached else InputError)(problems)
        return pinned

    def _request(self, source: BackboneSource, where: str) -> HubRepository | None:
        """Request the files of a repository; return None if the Hub is unreachable."""
        import httpx2
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        api, name = HfApi(), str(source.hub)
        try:
            info = api.model_info(name, revision=source.revision, timeout=TIMEOUT, files_metadata=True)
            if info.gated:
                api.auth_check(name)
        except HfHubHTTPError as error:
            if error.response.status_code not in (408, 429) and error.response.status_code < 500:
                _explain(error, source, where)
            self._outage = f"the Hub is unreachable (HTTP status {error.response.status_code})"
            return None
        except httpx2.TransportError as error:
            self._outage = f"the Hub is unreachable ({type(error).__name__})"
            return None
        files = info.siblings or []
        return HubRepository(
            str(info.sha),
            frozenset(file.rfilename for file in files),
            licence=_find_licence(info.tags or ()),
            gated=bool(info.gated),
            digests={file.rfilename: file.lfs.sha256 for file in files if file.lfs is not None},
        )


def _find_licence(tags: Iterable[str]) -> str | None:
    return next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)


def _check_name(source: BackboneSource, where: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.file_download import repo_folder_name

    try:
        repo_folder_name(repo_id=str(source.hub), repo_type="model")  # checks the name
    except HFValidationError:
        fail(
            where,
            f"backbone {source.name!r} is neither a local folder nor the name of a repository",
            allowed="NAME or OWNER/NAME on the Hub, a local folder, or a name under backbones:",
        )


def _explain(error: Any, source: BackboneSource, where: str) -> NoReturn:
    """Raise an input error for a request that the Hub refused."""
    from huggingface_hub.errors import DisabledRepoError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    what = f"backbone {source.name!r}: "
    if isinstance(error, GatedRepoError):
        accept = f"accept its licence at {_get_page(source)}, and set HF_TOKEN to a token of that account"
        fail(where, f"{what}access to repository {source.hub} is restricted", remedy=f"{accept}, on every node")
    if isinstance(error, RevisionNotFoundError):
        allowed = "a commit, branch or tag"
        fail(where, f"{what}repository {source.hub} has no revision {source.revision!r}", allowed=allowed)
    is_invalid_token = str(error.response.headers.get("X-Error-Message", "")).startswith("Invalid credentials")
    is_hidden = error.response.status_code == 401 and not is_invalid_token  # the Hub hides private repositories
    if isinstance(error, RepositoryNotFoundError) or is_hidden:
        fail(
            where,
            f"{what}there is no local folder and no public repository {source.hub!r} on the Hub",
            remedy="check the spelling; for a private repository, set HF_TOKEN on every node",
        )
    if isinstance(error, DisabledRepoError):
        fail(where, f"{what}the Hub has disabled repository {source.hub}", remedy="choose another backbone")
    if error.response.status_code in (401, 403):
        fail(where, f"{what}the Hub rejects the token", remedy="correct HF_TOKEN, or log in with `hf auth login`")
    fail(where, f"{what}the Hub refuses repository {source.hub} with status {error.response.status_code}")


def _get_page(source: BackboneSource) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{source.hub}"


def _read_cache(source: BackboneSource) -> HubRepository | None:
    """Return the copy of a repository in the local cache, or None."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=str(source.hub), repo_type="model")
    revision = source.revision or "main"
    reference = folder / "refs" / revision
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    snapshot = folder / "snapshots" / commit
    if not snapshot.is_dir():
        return None
    files = (path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file())
    return HubRepository(commit, frozenset(files), cached=True)


def _find_missing(source: BackboneSource, repository: HubRepository, *, has_weights: bool) -> Iterator[Problem]:
    """Yield a problem for each kind of file that a repository lacks; the places are empty."""
    files = repository.files
    place = f"repository {source.hub}"
    remedy = ""
    if repository.cached:
        place, remedy = f"the copy of {source.hub} in the local cache", DOWNLOAD.format(name=source.hub)
    if has_weights:
        if "config.json" not in files:
            yield Problem("", f"{place} has no config.json", allowed="a model of transformers", remedy=remedy)
        yield from _find_missing_weights(source, files, place, remedy)
    if source.tokenizer is None and not any(needed <= files for needed in TOKENIZER_FILES):
        yield Problem(
            "",
            f"{place} has no tokenizer.json, nor other files of a fast tokenizer",
            remedy=remedy or "set tokenizer under backbones: to a model with the same vocabulary",
        )


def _find_missing_weights(source: BackboneSource, files: frozenset[str], place: str, remedy: str) -> Iterator[Problem]:
    if SINGLE in files:
        return
    shards = [match for name in files if (match := SHARD.fullmatch(name))]
    total = int(shards[0][1]) if shards else 0
    if INDEX in files and shards and len(shards) == total:
        return
    pickled = find_pickled_weights(files)
    if shards:
        found = f"{place} has {len(shards)} of {total} weight files" + ("" if INDEX in files else f" and no {INDEX}")
        yield Problem("", found, remedy=remedy)
    elif not pickled:
        found = f"{place} has no {SINGLE}"
        yield Problem("", found, allowed="weights in safetensors format", remedy=remedy or _suggest(files))
    elif not source.allow_pickle:
        yield Problem(
            "",
            f"{place} has weights as pickle files only ({pickled[0]})",
            allowed="weights in safetensors format",
            remedy=f"convert them with `clinie backbones convert {source.hub} -o FOLDER` and use FOLDER as backbone",
        )


def _suggest(files: frozenset[str]) -> str:
    """Return a remedy for a repository without weights of a whole model."""
    if "adapter_config.json" in files:
        return "it is an adapter: use its base model, or merge them"
    if any(name.endswith(".gguf") for name in files):
        return "download a GGUF file and set folder and gguf under backbones:"
    return "choose another backbone"


def _find_custom_code(source: BackboneSource, where: str) -> list[Problem]:
    """Return a problem if a model needs code from its repository."""
    file = fetch_file(source, "config.json", where)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        config = None
    if not isinstance(config, dict):
        return [Problem(where, f"backbone {source.name!r}: config.json is not a JSON object")]
    if "auto_map" not in config:
        return []
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if config.get("model_type") in CONFIG_MAPPING_NAMES:
        return []
    found = f"backbone {source.name!r}: its architecture is Python code in the repository, which is not executed"
    return [Problem(where, found, allowed="an architecture of transformers", remedy="choose another backbone")]
