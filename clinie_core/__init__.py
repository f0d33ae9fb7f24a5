"""Clinical information extraction: corpora, models, training and prediction for one configuration.

This package trains, saves, loads and serves a model. It does not know that a search exists: it
imports neither Ray nor Optuna nor MLflow, so it runs in a notebook, on a bare GPU machine and
behind a served model alike.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("clinie")
except PackageNotFoundError:  # a served model carries these sources without the installed package
    __version__ = "unpackaged"

__all__ = ["__version__"]
