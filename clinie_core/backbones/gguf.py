"""Conversion of GGUF files into folders that transformers loads directly.

transformers takes half a minute to load even a small GGUF file and cannot save the loaded model. The weights are
therefore copied once into a new model of the same configuration, which is cached on disk.
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

from clinie_core.backbones.cache_folder import get_cache_folder
from clinie_core.backbones.transformers_logging import quiet_transformers

__all__ = ["convert_gguf"]


@lru_cache(maxsize=16)
def _compute_digest(file: str, size: int, modified: int) -> str:
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def convert_gguf(file: Path) -> Path:
    """Convert a GGUF file to float32 safetensors, unless the cache has its conversion.

    Args:
        file: A GGUF file of a causal language model.

    Returns:
        A folder with the model and its tokenizer in transformers' format, named by the file's sha256.
    """
    stat = file.stat()
    folder = get_cache_folder() / "gguf" / _compute_digest(str(file), stat.st_size, stat.st_mtime_ns)
    if (folder / "config.json").is_file():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # transformers has no option that disables the progress bar of this conversion.
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
        os.replace(staging, folder)  # atomic: a reader never finds half a folder
    except OSError:  # another process has written the folder meanwhile
        shutil.rmtree(staging)
        if not (folder / "config.json").is_file():
            raise
    return folder
