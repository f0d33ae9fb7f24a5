"""The model that MLflow serves: text in, JSON of concepts with offsets out.

MLflow stores this file as code and runs it where the model is loaded. It imports clinie_core, whose
sources travel with the model, and nothing of the search.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel

from clinie_core.extractor import Extractor

__all__ = ["ServedExtractor"]


class ServedExtractor(PythonModel):
    """Extracts concepts from a list of texts, or from a table of one column of them."""

    def load_context(self, context: Any) -> None:
        """Load the extractor from the model's own artifacts."""
        self._extractor = Extractor.load(Path(context.artifacts["extractor"]))

    def predict(self, context: Any, model_input: list[str], params: dict[str, Any] | None = None) -> list[str]:
        """Extract concepts.

        Args:
            context: MLflow's; not used.
            model_input: Texts.
            params: None are known.

        Returns:
            For each text a JSON object ``{"concepts": [{"type", "start", "end"}, ...]}``; offsets are
            code points of the text, half-open.
        """
        return [
            json.dumps({"concepts": [{"type": c.type, "start": c.start, "end": c.end} for c in document.concepts]})
            for document in self._extractor.predict(list(model_input))
        ]


if __name__ not in ("search.served_model",):  # MLflow executes the file under a name of its own
    mlflow.models.set_model(ServedExtractor())
