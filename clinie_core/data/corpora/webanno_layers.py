"""Annotation layers of WebAnno and INCEpTION: which are read, and what their features mean.

The layers are the same in both exports, WebAnno TSV 3 and UIMA CAS XMI.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from clinie_core.data.document import Normalization

__all__ = ["IDENTIFIER", "TOKEN_LAYER", "choose_type_feature", "parse_identifier"]

IDENTIFIER = "identifier"
TYPE_FEATURES = ("value", "label", "type")
TOKEN_LAYER = re.compile(r"\.api\.(?:lexmorph|segmentation|syntax|semantics|transform)\.")
"""Names of the layers of tokens, such as part of speech."""


def choose_type_feature(features: Iterable[str], *, first: bool = False) -> str | None:
    """Return the feature of a layer that contains the type, None if the layer's name is the type.

    Args:
        features: Names of the features, in the order of the layer.
        first: Whether to take the first of several features without a standard name.
    """
    usable = [name for name in features if name and name != IDENTIFIER]
    fallback = usable[0] if len(usable) == 1 or (first and usable) else None
    return next((name for name in TYPE_FEATURES if name in usable), fallback)


def parse_identifier(id_: str, target: str, identifier: str) -> Normalization:
    """Return the normalization of an identifier such as ``http://x/entity/Q1`` or ``MeSH:D008094``."""
    separator = "/" if "://" in identifier else ":"
    database, _, reference = identifier.rpartition(separator)
    return Normalization(id_, target, database or IDENTIFIER, reference)
