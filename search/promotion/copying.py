"""Copy a registered model to another registry, for example from development to production."""

from __future__ import annotations

from pathlib import Path

from mlflow.tracking import MlflowClient

from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.errors import fail
from clinie_core.inference.extractor import Extractor
from clinie_core.modeling.distributed import DistributedContext
from search.promotion.history import CHAMPION, HISTORY_DIGEST, HISTORY_HEAD, History
from search.promotion.model_files import EXTRACTOR
from search.promotion.model_names import check_model_name
from search.promotion.model_page import update_model_page
from search.promotion.registration import (
    Reference,
    check_predictions,
    create_version,
    fetch_model_files,
    resolve_version,
)
from search.storage.home import STORAGE_VARIABLE, Home, hide_password
from search.tracking.connection import connect, get_or_create_experiment

__all__ = ["copy_model", "open_target"]

EXPERIMENT = "registry"
CHECKED_DOCUMENTS = 6


def open_target(source: Home, uri: str) -> Home:
    """Return the home folder of the registry that receives a copy.

    Args:
        source: Home folder of the original.
        uri: URL of an MLflow server, or of an SQLite database, beside which the files of the copy are stored.

    Raises:
        InputError: If the registry of a database has no place for files.
    """
    scheme, _, path = uri.partition("://")
    if scheme == "sqlite":
        folder = Path(path.removeprefix("/")).expanduser().absolute().parent
        folder.mkdir(parents=True, exist_ok=True)
        return Home(folder, uri)
    if scheme not in ("http", "https") and source.storage is None:
        fail(
            "--to",
            "a database has no place for the files of a model",
            allowed="the URL of an MLflow server, or sqlite:///FILE",
            remedy=f"set {STORAGE_VARIABLE} to object storage that the target can read",
        )
    return Home(source.root, uri)


def copy_model(source: Home, target: Home, model: str, name: str) -> str:
    """Copy a version with its tags and description, check the copy's predictions, and make it champion.

    Args:
        source: Home folder whose registry has the model.
        target: Home folder whose registry receives the copy.
        model: ``NAME@ALIAS`` or ``NAME/VERSION``.
        name: Name of the registered model in the target registry.

    Returns:
        Version number of the copy. A model that was copied before is not copied again.

    Raises:
        InputError: If the source registry has no such model, or the name is invalid.
        PredictionsDiffer: If the copy predicts differently; it is then not made champion.
    """
    check_model_name(name, "--name")
    client = connect(source)
    folder = fetch_model_files(model)
    original = resolve_version(client, model)
    origin = f"{hide_password(source.tracking_uri)} {original.name}/{original.version}"
    target_client = connect(target)
    history = History(target_client, name)
    history.create_model()
    version = _find_copy(target_client, name, origin)
    if version is None:
        tags = {k: v for k, v in original.tags.items() if k not in (HISTORY_DIGEST, HISTORY_HEAD)} | {
            "clinie.origin": origin
        }
        version = create_version(
            target_client,
            folder,
            get_or_create_experiment(target_client, target, EXPERIMENT),
            run_id=None,
            name=name,
            tags=tags,
            description=original.description or "",
        )
    # Synthetic notes contain no patient text and are identical on every machine.
    documents = generate_splits(20, seed=7)["test"][:CHECKED_DOCUMENTS]
    reference = Reference.predict(Extractor.load(folder / EXTRACTOR), documents)
    DistributedContext.current().release_memory()  # the copy is loaded in another process
    check_predictions(target_client, reference, f"models:/{name}/{version}")
    if history.find_champion() != version:
        target_client.set_registered_model_alias(name, CHAMPION, version)
    copies = [e for e in history.read_entries() if e.kind == "copied" and e.content["version"] == version]
    entry = copies[-1] if copies else history.append("copied", {"version": version, "origin": origin})
    target_client.set_model_version_tag(name, version, HISTORY_DIGEST, entry.digest)
    update_model_page(history)
    connect(source)
    return version


def _find_copy(client: MlflowClient, name: str, origin: str) -> str | None:
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get("clinie.origin") == origin:
            return str(version.version)
    return None
