"""Registered models: how one is written, checked, found again and copied to another registry.

A version is a pyfunc model whose code is stored as source and whose weights are safetensors: nothing in it
is a pickle. ``mlflow.transformers`` is not used, since it saves a PEFT model's base wrongly.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Literal

import mlflow
import mlflow.pyfunc
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

import clinie_core
from clinie_core.data.corpora.jsonl import Jsonl
from clinie_core.data.document import Document
from clinie_core.errors import fail
from clinie_core.inference.extractor import Extractor, annotations_to_json

__all__ = [
    "EXTRACTOR",
    "Base",
    "PredictionsDiffer",
    "check_predictions",
    "create_version",
    "fetch_model_files",
    "list_requirements",
    "load_registered_extractor",
    "register_version",
    "write_model",
]

Base = Literal["whole", "pinned", "merged"]
"""Whether a version carries its backbone, names it by sha256, or has everything in one set of weights."""
SERVED = Path(__file__).with_name("served_model.py")
EXTRACTOR = "artifacts/extractor"
FRESH = """
import json, sys
asked = json.load(sys.stdin)
import mlflow
mlflow.set_tracking_uri(asked["tracking_uri"])
mlflow.set_registry_uri(asked["tracking_uri"])
model = mlflow.pyfunc.load_model(asked["uri"])
print("PREDICTED " + json.dumps([json.loads(row) for row in model.predict(asked["inputs"])]))
"""


class PredictionsDiffer(RuntimeError):
    """A registered model predicts otherwise than the model that was registered, or not at all."""


def list_requirements() -> list[str]:
    """The packages that a served model needs, at the versions that are here."""
    names = ("mlflow", "torch", "transformers", "tokenizers", "peft", "safetensors", "numpy", "pydantic")
    return [f"{name}=={version_of(name).partition('+')[0]}" for name in names]


def write_model(extractor: Extractor, base: Base, folder: Path) -> Extractor:
    """Write an extractor as a registered model carries it.

    Args:
        extractor: The model in hand.
        base: What becomes of its backbone.
        folder: Where to.

    Returns:
        The model whose predictions what was written must give: the one in hand, merged where that was asked for.

    Raises:
        InputError: If it cannot be written so.
    """
    reference = extractor.merge_adapter() if base == "merged" else extractor
    if base == "pinned":
        reference.save_pinned(folder)
    else:
        reference.save(folder)
    return reference


def register_version(
    client: MlflowClient, folder: Path, *, run_id: str, name: str, tags: Mapping[str, str], description: str
) -> str:
    """Log an extractor as a pyfunc model from code, and make it a version of a registered model.

    Args:
        client: The registry.
        folder: What :func:`write_model` wrote.
        run_id: The run that the model comes from.
        name: The registered model, which is there already.
        tags: Of the version, which has them from its first moment.
        description: Of the version.

    Returns:
        The version's number.
    """
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        # MLflow suggests an input example; that would be text, which stays out. The signature comes
        # from the type hints of the served model.
        warnings.simplefilter("ignore")
        target = Path(scratch) / "model"
        mlflow.pyfunc.save_model(
            target,
            python_model=str(SERVED),
            artifacts={"extractor": str(folder)},
            code_paths=[str(Path(clinie_core.__file__).parent)],
            pip_requirements=list_requirements(),
        )
        for left in target.rglob("__pycache__"):
            for file in left.iterdir():
                file.unlink()
            left.rmdir()
        experiment = client.get_run(run_id).info.experiment_id
        return create_version(client, target, experiment, run_id=run_id, name=name, tags=tags, description=description)


def create_version(
    client: MlflowClient,
    folder: Path,
    experiment: str,
    *,
    run_id: str | None,
    name: str,
    tags: Mapping[str, str],
    description: str,
) -> str:
    """Log a folder that MLflow saved a model into, and make it a version of a registered model."""
    model = client.create_logged_model(experiment, name=name, source_run_id=run_id, model_type="clinie")
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    made = client.create_model_version(
        name,
        f"models:/{model.model_id}",
        run_id,
        tags=dict(tags),
        description=description,
        model_id=model.model_id,
    )
    return str(made.version)


def check_predictions(client: MlflowClient, extractor: Extractor, uri: str, documents: Sequence[Document]) -> None:
    """Check that a registered model, loaded in a process of its own, predicts exactly what the model in hand does.

    Args:
        client: The registry.
        extractor: The model in hand.
        uri: ``models:/NAME/VERSION``.
        documents: What both predict.

    Raises:
        PredictionsDiffer: If it does not; the message holds no text.
    """
    expected = [annotations_to_json(document) for document in extractor.annotate(documents)]
    inputs = [Jsonl().render(d) if extractor.task == "relations" else d.text for d in documents]
    asked = {"tracking_uri": client.tracking_uri, "uri": uri, "inputs": inputs}
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, "-c", FRESH],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            cwd=elsewhere,
            check=False,
        )
    rows = [line for line in done.stdout.splitlines() if line.startswith("PREDICTED ")]
    if done.returncode != 0 or not rows:
        kind = done.stderr.strip().splitlines()[-1].partition(":")[0] if done.stderr.strip() else "no output"
        raise PredictionsDiffer(f"{uri} does not load and predict in a fresh process: {kind}")
    found = json.loads(rows[-1].removeprefix("PREDICTED "))
    if found != expected:
        other = sum(a != b for a, b in zip(found, expected, strict=True))
        raise PredictionsDiffer(
            f"{uri} predicts otherwise than the trained model in {other} of {len(expected)} documents"
        )


def fetch_model_files(model: str, *, where: str = "--model") -> Path:
    """The files of a registered model, on this machine.

    Args:
        model: ``NAME@ALIAS`` or ``NAME/VERSION``.
        where: What the user gave it as, for the message.

    Raises:
        InputError: If the registry has no such model.
    """
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{model}"))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            fail(
                where,
                f"no model {model!r} in the registry",
                allowed="NAME@champion or NAME/VERSION",
                remedy="see `clinie promote`",
            )
        raise


def load_registered_extractor(model: str) -> Extractor:
    """The extractor inside a registered model.

    Args:
        model: ``NAME@ALIAS`` or ``NAME/VERSION``.

    Raises:
        InputError: If the registry has no such model.
    """
    return Extractor.load(fetch_model_files(model) / EXTRACTOR)
