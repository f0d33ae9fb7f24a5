"""Registered models: write, register, check and fetch them.

A version is an MLflow pyfunc model with its code as source files and its weights as safetensors; it contains no
pickle. ``mlflow.transformers`` is not used, because it saves the base model of a PEFT model incorrectly.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Literal, NoReturn

import mlflow
import mlflow.pyfunc
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

import clinie_core
from clinie_core.data.corpora.jsonl import Jsonl
from clinie_core.data.document import Document
from clinie_core.errors import fail
from clinie_core.finetuning import FINETUNING
from clinie_core.inference.extractor import Extractor, annotations_to_json
from clinie_core.modeling.checkpoint import Checkpoint
from clinie_core.modeling.distributed import DistributedContext
from search.promotion.model_files import EXTRACTOR
from search.promotion.model_names import parse_model_reference
from search.storage.permissions import restrict_folder

__all__ = [
    "Base",
    "PredictionsDiffer",
    "Reference",
    "check_predictions",
    "create_version",
    "fetch_model_files",
    "list_requirements",
    "load_registered_extractor",
    "register_version",
    "resolve_version",
    "write_model",
]

Base = Literal["whole", "pinned", "merged"]
"""Storage of the backbone: beside the adapter, as a pinned sha256, or merged with the adapter."""
SERVED_MODEL = Path(__file__).with_name("served_model.py")
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""Error codes of MLflow for a model, version or alias that does not exist."""
PREDICTION_PROGRAM = """
import json, sys
request = json.load(sys.stdin)
import mlflow
mlflow.set_tracking_uri(request["tracking_uri"])
mlflow.set_registry_uri(request["tracking_uri"])
model = mlflow.pyfunc.load_model(request["uri"])
print("PREDICTED " + json.dumps([json.loads(row) for row in model.predict(request["inputs"])]))
"""


class PredictionsDiffer(RuntimeError):
    """A registered model fails to load or predicts differently from the model that was registered."""


def list_requirements(finetuning: str) -> list[str]:
    """Return the requirements of a served model, pinned to the installed versions.

    Args:
        finetuning: Name of the model's fine-tuning method.
    """
    common = ("mlflow", "torch", "transformers", "tokenizers", "peft", "safetensors", "numpy", "pydantic")
    names = (*common, *FINETUNING.load(finetuning).packages)
    return [f"{name}=={version_of(name).partition('+')[0]}" for name in names]


@dataclass(frozen=True)
class Reference:
    """Behaviour of a trained model, which its registered version must reproduce.

    Args:
        checkpoint: Checkpoint of the model as it was written.
        inputs: Inputs of a served model.
        predicted: The model's annotations for each input.
    """

    checkpoint: Checkpoint
    inputs: Sequence[str]
    predicted: Sequence[Mapping[str, object]]

    @classmethod
    def predict(cls, extractor: Extractor, documents: Sequence[Document]) -> Reference:
        """Predict documents with a model."""
        inputs = [Jsonl().render(d) if extractor.task == "relations" else d.text for d in documents]
        return cls(
            extractor.checkpoint, inputs, [annotations_to_json(document) for document in extractor.annotate(documents)]
        )


def write_model(trained: Path, base: Base, folder: Path, documents: Sequence[Document]) -> Reference:
    """Write the files of a trained model for a registered model.

    An adapter is merged in main memory. No model remains in memory afterwards.

    Args:
        trained: Checkpoint of the trained model.
        base: Storage of the backbone.
        folder: Target folder.
        documents: Documents that the trained model, merged if ``base`` is ``merged``, predicts.

    Raises:
        InputError: If the model cannot be stored with this ``base``.
    """
    if base == "merged":
        main_memory = DistributedContext()
        Extractor.load(trained, distributed=main_memory).merge_adapter().save(folder)
        main_memory.release_memory()
    extractor = Extractor.load(folder if base == "merged" else trained)
    if base == "whole":
        extractor.save(folder)
    elif base == "pinned":
        extractor.save_pinned(folder)
    reference = Reference.predict(extractor, documents)
    del extractor
    DistributedContext.current().release_memory()
    return reference


def register_version(
    client: MlflowClient, folder: Path, *, run_id: str, name: str, tags: Mapping[str, str], description: str
) -> str:
    """Register an extractor as a new version, stored as a pyfunc model from code.

    Args:
        client: Client of the registry.
        folder: Folder that :func:`write_model` has written.
        run_id: Id of the study's MLflow run.
        name: Name of an existing registered model.
        tags: Tags of the version, set when it is created.
        description: Description of the version.

    Returns:
        Number of the version.
    """
    # Beside the extractor, so that a killed process leaves no weights in the system's temporary folder.
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, warnings.catch_warnings():
        # MLflow warns that the model has no input example, which would store text. The signature comes
        # from the type hints of the served model.
        warnings.simplefilter("ignore")
        target = Path(scratch) / "model"
        mlflow.pyfunc.save_model(
            target,
            python_model=str(SERVED_MODEL),
            artifacts={"extractor": str(folder)},
            code_paths=[str(Path(clinie_core.__file__).parent)],
            pip_requirements=list_requirements(Checkpoint.read(folder).config.finetuning.name),
        )
        for cache in target.rglob("__pycache__"):
            for file in cache.iterdir():
                file.unlink()
            cache.rmdir()
        restrict_folder(target)
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
    """Upload a saved MLflow model and make it a version of a registered model.

    Args:
        client: Client of the registry.
        folder: Folder of the saved MLflow model.
        experiment: Id of the experiment that gets the logged model.
        run_id: Id of the run that the model comes from, if any.
        name: Name of an existing registered model.
        tags: Tags of the version, set when it is created.
        description: Description of the version.

    Returns:
        Number of the version.
    """
    model = client.create_logged_model(experiment, name=name, source_run_id=run_id, model_type="clinie")
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    created = client.create_model_version(
        name,
        f"models:/{model.model_id}",
        run_id,
        tags=dict(tags),
        description=description,
        model_id=model.model_id,
    )
    return str(created.version)


def check_predictions(client: MlflowClient, reference: Reference, uri: str) -> None:
    """Check that a registered model, loaded in a fresh process, predicts exactly the same as the trained model.

    Args:
        client: Client of the registry.
        reference: Predictions of the trained model. The model itself should not be in memory.
        uri: ``models:/NAME/VERSION``.

    Raises:
        PredictionsDiffer: If the predictions differ or the model fails to load. The message contains no text of the
            documents.
    """
    expected = list(reference.predicted)
    request = {"tracking_uri": client.tracking_uri, "uri": uri, "inputs": list(reference.inputs)}
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.run(
            [sys.executable, "-c", PREDICTION_PROGRAM],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            cwd=folder,
            check=False,
        )
    rows = [line for line in process.stdout.splitlines() if line.startswith("PREDICTED ")]
    if process.returncode != 0 or not rows:
        kind = process.stderr.strip().splitlines()[-1].partition(":")[0] if process.stderr.strip() else "no output"
        raise PredictionsDiffer(f"{uri} fails to load or predict in a fresh process: {kind}")
    predicted = json.loads(rows[-1].removeprefix("PREDICTED "))
    if predicted != expected:
        differing = sum(a != b for a, b in zip(predicted, expected, strict=True))
        raise PredictionsDiffer(
            f"{uri} predicts differently from the trained model in {differing} of {len(expected)} documents"
        )


def fetch_model_files(model: str, *, where: str = "--model") -> Path:
    """Download the files of a registered model.

    Args:
        model: ``NAME@ALIAS`` or ``NAME/VERSION``.
        where: Option that the user passed the model with, for the error message.

    Returns:
        Local folder of the files.

    Raises:
        InputError: If the registry has no such model.
    """
    parse_model_reference(model, where)
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{model}"))
    except MlflowException as error:
        if error.error_code in ABSENT:
            fail_unknown_model(model, where)
        raise


def resolve_version(client: MlflowClient, model: str, *, where: str = "--model") -> ModelVersion:
    """Return the version that a name refers to now.

    Args:
        client: Client of the registry.
        model: ``NAME@ALIAS`` or ``NAME/VERSION``.
        where: Option that the user passed the model with, for the error message.

    Raises:
        InputError: If the registry has no such model.
    """
    reference = parse_model_reference(model, where)
    try:
        if reference.alias:
            return client.get_model_version_by_alias(reference.name, reference.alias)
        return client.get_model_version(reference.name, reference.version)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        fail_unknown_model(model, where)


def fail_unknown_model(model: str, where: str) -> NoReturn:
    """Raise an error for a model that the registry does not have.

    Raises:
        InputError: Always.
    """
    fail(
        where,
        f"no model {model!r} in the registry",
        allowed="NAME@champion or NAME/VERSION",
        remedy="see `clinie promote`",
    )


def load_registered_extractor(model: str) -> Extractor:
    """Load the extractor of a registered model.

    Args:
        model: ``NAME@ALIAS`` or ``NAME/VERSION``.

    Raises:
        InputError: If the registry has no such model.
    """
    return Extractor.load(fetch_model_files(model) / EXTRACTOR)
