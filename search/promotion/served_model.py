"""The model that MLflow serves: text in, JSON of concepts with offsets and of relations out.

MLflow stores this file as code and runs it where the model is loaded. It imports clinie_core, whose
sources travel with the model, and nothing of the search.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel

from clinie_core.data.corpora.corpus_format import DocumentLines
from clinie_core.data.corpora.jsonl import Jsonl
from clinie_core.data.document import Document
from clinie_core.inference.extractor import Extractor, annotations_to_json

__all__ = ["ServedExtractor"]


class ServedExtractor(PythonModel):
    """Extracts what its task is from a list of texts, or from a table of one column of them."""

    def load_context(self, context: Any) -> None:
        """Load the extractor from the model's own artifacts."""
        self._extractor = Extractor.load(Path(context.artifacts["extractor"]))

    def predict(self, context: Any, model_input: list[str], params: dict[str, Any] | None = None) -> list[str]:
        """Extract.

        Args:
            context: MLflow's; not used.
            model_input: Texts; where the model finds relations between concepts that are given,
                documents with them, each as a line of clinie's JSONL.
            params: None are known.

        Returns:
            For each text a JSON object ``{"concepts": [{"id", "type", "start", "end"}, ...], "relations":
            [{"type", "head", "tail"}, ...]}``; offsets are code points of the text, half-open.
        """
        documents = [self._document(number, text) for number, text in enumerate(model_input, start=1)]
        return [json.dumps(annotations_to_json(document)) for document in self._extractor.annotate(documents)]

    def _document(self, number: int, text: str) -> Document:
        if self._extractor.task == "relations":
            return Jsonl().parse(DocumentLines(f"input {number}", 1, [text]))
        return Document(f"text-{number}", text)


if __name__ not in ("search.promotion.served_model",):  # MLflow executes the file under a name of its own
    mlflow.models.set_model(ServedExtractor())
