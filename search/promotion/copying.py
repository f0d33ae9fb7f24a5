"""Copy a registered model to another registry, as from development to production."""

from __future__ import annotations

from mlflow.tracking import MlflowClient

from clinie_core.data.corpora.synthetic import generate_splits
from clinie_core.inference.extractor import Extractor
from search.promotion.history import CHAMPION, HISTORY_DIGEST, History
from search.promotion.registration import EXTRACTOR, check_predictions, create_version, fetch_model_files
from search.storage.home import Home, hide_password
from search.tracking.connection import connect, get_or_create_experiment

__all__ = ["copy_model"]

EXPERIMENT = "registry"
PROBES = 6


def copy_model(source: Home, target: Home, model: str, name: str) -> str:
    """Copy a version with its tags and description, check it there, and make it champion.

    Args:
        source: Where it is.
        target: Where it goes.
        model: ``NAME@ALIAS`` or ``NAME/VERSION``.
        name: What it is called there.

    Returns:
        Its version there; the one that is there already if it was copied before.

    Raises:
        InputError: If there is no such model.
        PredictionsDiffer: If the copy predicts otherwise; it is then not made champion.
    """
    client = connect(source)
    folder = fetch_model_files(model)
    title, _, alias = model.partition("@")
    there = client.get_model_version_by_alias(title, alias) if alias else client.get_model_version(*model.split("/"))
    origin = f"{hide_password(source.tracking_uri)} {there.name}/{there.version}"
    extractor = Extractor.load(folder / EXTRACTOR)

    away = connect(target)
    history = History(away, name)
    history.ensure()
    version = _copied(away, name, origin)
    if version is None:
        tags = {k: v for k, v in there.tags.items() if k != HISTORY_DIGEST} | {"clinie.origin": origin}
        version = create_version(
            away,
            folder,
            get_or_create_experiment(away, target, EXPERIMENT),
            run_id=None,
            name=name,
            tags=tags,
            description=there.description or "",
        )
    # Synthetic notes: the text of no patient, and the same in both places.
    probes = generate_splits(20, seed=7)["test"][:PROBES]
    check_predictions(away, extractor, f"models:/{name}/{version}", tuple(probes))
    if history.find_champion() != version:
        away.set_registered_model_alias(name, CHAMPION, version)
    recorded = [e for e in history.read_entries() if e.kind == "copied" and e.content["version"] == version]
    entry = recorded[-1] if recorded else history.append("copied", {"version": version, "origin": origin})
    away.set_model_version_tag(name, version, HISTORY_DIGEST, entry.digest)
    connect(source)
    return version


def _copied(client: MlflowClient, name: str, origin: str) -> str | None:
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get("clinie.origin") == origin:
            return str(version.version)
    return None
