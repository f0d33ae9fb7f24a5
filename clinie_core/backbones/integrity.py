"""Integrity of a backbone's files: safetensors only, and sha256 digests where a space or checkpoint pins them."""

from __future__ import annotations

from pathlib import Path

from clinie_core.backbones.facts import read_config
from clinie_core.backbones.hub import HubReader
from clinie_core.backbones.location import fetch_file, find_folder, locate
from clinie_core.backbones.manifest import compute_sha256
from clinie_core.config import BackboneSource
from clinie_core.errors import fail

__all__ = ["check_backbone", "pin_weights"]


def check_backbone(source: BackboneSource, where: str = "backbone") -> None:
    """Check that a backbone is available and that its files match the pinned digests.

    Args:
        source: The backbone; its tokenizer is checked too if it comes from elsewhere.
        where: Key path for error messages.

    Raises:
        InputError: If the backbone is missing, has no safetensors weights, or a sha256 digest differs.
    """
    read_config(source, where)
    place = locate(source, where)
    if source.tokenizer is not None:
        check_backbone(source.tokenizer, where)
    if place is None:
        return
    if source.hub is None and not list(Path(place).glob("*.safetensors")) and not source.allow_pickle:
        fail(
            where,
            f"backbone {source.name!r}: no *.safetensors weights in {place}",
            allowed="weights in safetensors format",
            remedy="convert them, or set allow_pickle: true under backbones: if you trust their author",
        )
    for name, expected in source.sha256.items():
        file = fetch_file(source, name, where)
        if not file.is_file():
            fail(where, f"backbone {source.name!r}: {name} is not in {place}")
        found = compute_sha256(file)
        if found != expected:
            fail(
                where,
                f"backbone {source.name!r}: sha256 of {name} is {found}",
                allowed=f"expected {expected}",
                remedy="reinstall it, or correct the digest if the change is intended",
            )


def pin_weights(source: BackboneSource) -> BackboneSource:
    """Return the backbone pinned to its present weights.

    Every weight file is pinned by its sha256 digest, a backbone on the Hub by its commit too.

    Raises:
        InputError: If the backbone is randomly initialized and therefore has no files.
    """
    if source.scratch is not None:
        fail(
            "--pin",
            f"backbone {source.name!r} is randomly initialized and has no files to pin",
            allowed="a model with a pretrained backbone",
            remedy="omit --pin",
        )
    if source.hub is not None:
        source = HubReader().pin(source, "--pin")
    names = [source.gguf] if source.gguf else _list_weight_files(source)
    digests = {name: compute_sha256(fetch_file(source, name, "--pin")) for name in names}
    return source.model_copy(update={"sha256": {**source.sha256, **digests}})


def _list_weight_files(source: BackboneSource) -> list[str]:
    if source.hub is None:
        return sorted(file.name for file in find_folder(source, "--pin").glob("*.safetensors"))
    return sorted(name for name in HubReader().read(source, "--pin").files if name.endswith(".safetensors"))
