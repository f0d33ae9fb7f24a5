"""The model that MLflow serves: it maps texts to JSON with concepts, their offsets, and relations.

MLflow stores this file as code and executes it where the model is loaded. The sources of clinie_core are stored
with the model, so this file may import clinie_core but not the search package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel

from clinie_core.data.corpora.jsonl import Jsonl
from clinie_core.data.corpora.line_format import DocumentLines
from clinie_core.data.document import Document
from clinie_core.inference.extractor import Extractor, annotations_to_json

__all__ = ["ServedExtractor"]


class ServedExtractor(PythonModel):
    """Pyfunc model that extracts concepts and relations from a list of texts or a DataFrame with one column."""

    def load_context(self, context: Any) -> None:
        """Load the extractor from the artifacts of the model."""
        self._extractor = Extractor.load(Path(context.artifacts["extractor"]))

    def predict(self, context: Any, model_input: list[str], params: dict[str, Any] | None = None) -> list[str]:
        """Extract concepts and relations.

        Args:
            context: MLflow's context; not used.
            model_input: Texts. For a model of the task ``relations``: documents with their concepts, each as a line
                of clinie's JSONL.
            params: Not used.

        Returns:
            One JSON object per text: ``{"concepts": [{"id", "type", "start", "end"}, ...], "relations":
            [{"type", "head", "tail"}, ...]}``; offsets are half-open and count code points.
        """
        documents = [self._document(number, text) for number, text in enumerate(model_input, start=1)]
        return [json.dumps(annotations_to_json(document)) for document in self._extractor.annotate(documents)]

    def _document(self, number: int, text: str) -> Document:
        if self._extractor.task == "relations":
            return Jsonl().parse(DocumentLines(f"input {number}", 1, [text]))
        return Document(f"text-{number}", text)


if __name__ not in ("search.promotion.served_model",):  # MLflow executes the file under another name
    mlflow.models.set_model(ServedExtractor())
