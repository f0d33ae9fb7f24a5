"""GGUF files as backbones: dequantized once into a folder that transformers reads like any other.

transformers can load a GGUF file, but takes half a minute for a small model each time, and cannot save what
it has loaded; so the weights go into a fresh model of the same configuration, and that is kept.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from contextlib import redirect_stderr
from functools import lru_cache
from pathlib import Path

from clinie_core.backbones.quiet import quiet_transformers

__all__ = ["convert"]


def _cache() -> Path:
    """Where conversions are kept: ``CLINIE_CACHE``, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("CLINIE_CACHE") or Path(base) / "clinie")


@lru_cache(maxsize=16)
def _digest(file: str, size: int, modified: int) -> str:
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def convert(file: Path) -> Path:
    """The folder with a GGUF file's model in float32 safetensors, written when it is first asked for.

    Args:
        file: A GGUF file of a causal language model.
    """
    stat = file.stat()
    folder = _cache() / "gguf" / _digest(str(file), stat.st_size, stat.st_mtime_ns)
    if (folder / "config.json").is_file():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # transformers shows how far it is by a bar of its own, which nothing of it turns off.
    with quiet_transformers(), redirect_stderr(io.StringIO()):
        loaded = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
        config = loaded.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        plain = type(loaded)(config)
        plain.load_state_dict(loaded.state_dict())
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=folder.parent))
        plain.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
    try:
        os.replace(staging, folder)  # the folder appears in whole
    except OSError:  # another process was faster, and its folder stays
        shutil.rmtree(staging)
        if not (folder / "config.json").is_file():
            raise
    return folder
