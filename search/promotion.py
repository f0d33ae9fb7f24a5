"""Promotion: the best trial of a study becomes a version of a registered model.

The test split is read here and nowhere else, once a promotion. The version carries backbone,
adapter and head, so it loads in a process that has MLflow and torch and nothing of the search.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
from mlflow.tracking import MlflowClient

import clinie_core
from clinie_core.corpora.jsonl import Jsonl
from clinie_core.document import Document
from clinie_core.errors import fail
from clinie_core.extractor import Extractor, found_json
from search.ledger import TrialRecord
from search.tracking.connection import fetch_artifacts

__all__ = ["PredictionsDiffer", "Promotion", "load_registered", "promote_trial", "registered_extractor"]

CHAMPION = "champion"
PROBES = 8


class PredictionsDiffer(RuntimeError):
    """A registered model predicts otherwise than the model that was registered."""


@dataclass(frozen=True)
class Promotion:
    """What a promotion did: the model's name and version, the trial, its scores on dev and test."""

    name: str
    version: str
    alias: str
    study: str
    trial: int
    dev: dict[str, float]
    test: dict[str, float]
    test_by_type: dict[str, dict[str, float]]
    parameters: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The promotion for ``--json``."""
        return asdict(self)


def promote_trial(
    client: MlflowClient,
    record: TrialRecord,
    *,
    study: str,
    parent_run: str,
    name: str,
    test: tuple[Document, ...],
    tags: Mapping[str, str],
) -> Promotion:
    """Register a trial's best checkpoint as a model's new version and name it champion.

    Args:
        client: The registry.
        record: A finished trial with a checkpoint.
        study: Its study.
        parent_run: The study's run, which holds the model.
        name: The registered model's name.
        test: The test split, read here for the first time.
        tags: Further tags of the version.

    Returns:
        What was registered, with scores.

    Raises:
        InputError: If the trial has no checkpoint.
        PredictionsDiffer: If the registered model, loaded again, predicts otherwise; the alias
            then stays where it was.
    """
    if record.checkpoint is None:
        fail(f"trial {record.number}", "it has no checkpoint", "a trial that finished an epoch")
    with tempfile.TemporaryDirectory() as scratch:
        extractor = Extractor.load(fetch_artifacts(record.checkpoint, Path(scratch)))
        scores = extractor.scores(test)
        whole = Path(scratch) / "extractor"
        extractor.save(whole)
        version = _register(client, whole, parent_run, name)
        _compare(extractor, f"models:/{name}/{version}", test[:PROBES])
    metrics = scores.metrics()
    version_tags = {
        "clinie.study": study,
        "clinie.trial": str(record.number),
        "clinie.version": clinie_core.__version__,
        "clinie.dev_strict_f1": f"{record.metrics['strict_f1']:.4f}",
        "clinie.test_strict_f1": f"{metrics['strict_f1']:.4f}",
        **tags,
    }
    for key, value in version_tags.items():
        client.set_model_version_tag(name, version, key, value)
    client.set_registered_model_alias(name, CHAMPION, version)
    client.log_batch(
        parent_run, metrics=[mlflow.entities.Metric(f"test_{k}", v, 0, int(version)) for k, v in metrics.items()]
    )
    by_type = {
        type_: {
            "f1": counts.f1,
            "precision": counts.precision,
            "recall": counts.recall,
            "support": int(counts.tp + counts.fn),
        }
        for type_, counts in sorted(scores.overall.by_type("strict").items())
    }
    return Promotion(name, version, CHAMPION, study, record.number, record.metrics, metrics, by_type, record.parameters)


def _register(client: MlflowClient, folder: Path, run_id: str, name: str) -> str:
    """Log a whole extractor as a pyfunc model from code, and make it a version of a registered model."""
    with warnings.catch_warnings(), mlflow.start_run(run_id=run_id):
        # MLflow suggests an input example; that would be text, which stays out. The signature comes
        # from the type hints of the served model.
        warnings.simplefilter("ignore")
        info = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={"extractor": str(folder)},
            code_paths=[str(Path(clinie_core.__file__).parent)],
            pip_requirements=_requirements(),
        )
    if not client.search_registered_models(f"name = '{name}'", max_results=1):
        client.create_registered_model(name)
    return str(client.create_model_version(name, info.model_uri, run_id, model_id=info.model_id).version)


def _requirements() -> list[str]:
    """The packages that a served model needs, at the versions that trained it."""
    from importlib.metadata import version

    packages = ("mlflow", "torch", "transformers", "tokenizers", "peft", "safetensors", "numpy", "pydantic")
    return [f"{package}=={version(package).partition('+')[0]}" for package in packages]


def _compare(extractor: Extractor, uri: str, documents: Sequence[Document]) -> None:
    """Check that a registered model predicts what the model in hand does."""
    expected = [found_json(document) for document in extractor.annotate(documents)]
    inputs = [Jsonl().render(d) if extractor.task == "relations" else d.text for d in documents]
    found = [json.loads(row) for row in load_registered(uri).predict(inputs)]
    if found != expected:
        raise PredictionsDiffer(f"{uri} does not predict what the trained model predicts; it was not made champion")


def load_registered(uri: str) -> Any:
    """Load a registered model as MLflow's pyfunc, as any user of the registry does.

    Args:
        uri: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
    """
    return mlflow.pyfunc.load_model(uri)


def registered_extractor(model: str) -> Extractor:
    """The extractor inside a registered model.

    Args:
        model: ``NAME@ALIAS`` or ``NAME/VERSION``.

    Raises:
        InputError: If the registry has no such model.
    """
    try:
        folder = mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{model}")
    except mlflow.exceptions.MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            fail(
                "--model",
                f"no model {model!r} in the registry",
                "NAME@champion or NAME/VERSION",
                "see `clinie promote`",
            )
        raise
    return Extractor.load(Path(folder) / "artifacts" / "extractor")
