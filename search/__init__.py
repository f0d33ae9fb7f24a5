"""Distributed search for clinical extraction models: Ray runs it, Optuna decides, MLflow records."""

from clinie_core import __version__

__all__ = ["__version__"]
