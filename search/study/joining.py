"""Conditions under which a driver may take part in a study that exists."""

from __future__ import annotations

from clinie_core.errors import fail
from search.config.space_file import SpaceFile
from search.ledger.ledger import Ledger
from search.ledger.stored_space import conceal_paths, list_changed_keys, read_stored_space
from search.storage.corpus_paths import is_concealed, link_path
from search.storage.home import Home

__all__ = ["require_new_name", "require_same_space"]

OWN_KEYS = ("resources",)
"""Keys of a space that belong to the cluster of each driver."""


def require_new_name(ledger: Ledger, file: SpaceFile) -> None:
    """Reject a new study whose name exists, and name the keys that were changed since it began.

    Raises:
        InputError: In any case.
    """
    changed = list_changed_keys(read_stored_space(ledger.attributes), conceal_paths(file))
    _fail(ledger.name, changed, "a new name, such as study=NAME on the command line")


def require_same_space(ledger: Ledger, file: SpaceFile, corpus_digest: str, home: Home) -> None:
    """Check that a driver may take part in a study, and store where its corpora are on this machine.

    Args:
        ledger: The study.
        file: The driver's space file.
        corpus_digest: Digest of the corpus that it has read.
        home: Its home folder.

    Raises:
        InputError: If the space or the corpus differs; the paths of the corpora and ``resources`` may differ.
    """
    stored, own = read_stored_space(ledger.attributes), conceal_paths(file)
    pairs = list(zip(stored.corpus, own.corpus, strict=False))
    if len(stored.corpus) == len(own.corpus):
        own = own.model_copy(
            update={"corpus": tuple(mine.model_copy(update={"path": theirs.path}) for theirs, mine in pairs)}
        )
    changed = [key for key in list_changed_keys(stored, own) if key.partition(".")[0] not in OWN_KEYS]
    if changed:
        _fail(ledger.name, changed, "the space of the study, except for resources")
    if corpus_digest != ledger.attributes["corpus_digest"]:
        found = f"another corpus than that of study {ledger.name!r}"
        fail("corpus.path", found, allowed="a copy of the same corpus")
    for theirs, mine in zip(stored.corpus, file.corpus, strict=True):
        if is_concealed(theirs.path):
            link_path(home.root, theirs.path, mine.path)


def _fail(name: str, changed: list[str], allowed: str) -> None:
    found = f"study {name!r} exists" + (f", and has other values of {', '.join(changed)}" if changed else "")
    remedy = f"continue it{' as it began' if changed else ''} with: clinie resume {name}"
    fail("study", found, allowed=allowed, remedy=remedy)
