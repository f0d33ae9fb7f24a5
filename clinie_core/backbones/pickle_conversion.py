"""Conversion of pickled weights to safetensors, in an isolated process.

A pickle file can contain code. It is read by torch's restricted loader in a process that has no environment variables
of the user, no network where the system permits that, and limits on memory, CPU time and the size of written files. An
audit hook refuses sockets and programs. As a program, this module converts the files of one folder.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinie_core.backbones.hub import HubReader, find_pickled_weights
from clinie_core.backbones.isolation import ResourceLimits, forbid_network
from clinie_core.config import BackboneSource
from clinie_core.errors import fail
from clinie_core.output_files import require_empty_folder, stage_folder

__all__ = ["Conversion", "convert_pickled_model"]

COPIED = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model"),
    *("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "README.md"),
)
"""Files that are copied as they are."""
FORBIDDEN = ("socket.connect", "socket.bind", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.fork")
"""Events of Python's audit hooks that end the conversion."""
MIB = 2**20
REFUSED, FAILED = 2, 3
"""Exit statuses of the conversion: the files contain other objects than tensors, or the conversion failed."""


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion.

    Args:
        files: Names of the written files.
        without_network: Whether the process that read the pickle files had no network.
    """

    files: list[str]
    without_network: bool


def choose_limits(file_bytes: int) -> ResourceLimits:
    """Return the limits for the conversion of files.

    Tensors of one file exist up to five times: as read, as copies, as written, and in the comparison of the two.

    Args:
        file_bytes: Size of all files.
    """
    return ResourceLimits(
        memory_bytes=5 * file_bytes + 1024 * MIB,
        cpu_seconds=60 + file_bytes // (10 * MIB),
        file_bytes=2 * file_bytes + 64 * MIB,  # a tensor with two names is written twice
    )


def convert_pickled_model(source: str, output: Path) -> Conversion:
    """Convert a model whose weights are pickle files to safetensors.

    Args:
        source: A folder, or the name of a repository on the Hub.
        output: The folder to write; its tensors are compared with the original ones.

    Raises:
        InputError: If the source has no pickled weights, if they contain code or need more resources than weights of
            their size, or if the folder is not empty.
    """
    require_empty_folder(output)
    folder = Path(source) if Path(source).is_dir() else _download(source)
    names = find_pickled_weights(frozenset(file.name for file in folder.iterdir()))
    if not names or not (folder / "config.json").is_file():
        fail(source, "has no config.json with pytorch_model*.bin", allowed="a model with pickled weights")
    with stage_folder(output) as part:
        command = [sys.executable, "-P", "-m", __name__, str(folder.resolve()), str(part.resolve()), *names]
        env = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HF_HUB_OFFLINE": "1", "HOME": str(part)}
        result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if result.returncode == REFUSED:
            fail(source, result.stdout.strip(), allowed="tensors only", remedy="do not use these files")
        if result.returncode == FAILED:
            fail(source, result.stdout.strip(), remedy="check that the files are complete and from a trusted source")
        if result.returncode == -signal.SIGXCPU:
            fail(source, "conversion took more CPU time than files of their size need")
        if result.returncode:
            fail(source, f"conversion ended with status {result.returncode}: {result.stderr.strip()[-200:]}")
        for name in COPIED:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, part / name)
        return Conversion(sorted(file.name for file in part.iterdir()), json.loads(result.stdout)["without_network"])


def _download(name: str) -> Path:
    """Download the files of a repository that a conversion needs; return their folder."""
    from huggingface_hub import hf_hub_download

    repository = HubReader().read(BackboneSource(name=name, hub=name, allow_pickle=True), "SOURCE")
    wanted = [*find_pickled_weights(repository.files), *(file for file in COPIED if file in repository.files)]
    files = [Path(hf_hub_download(name, file, revision=repository.commit)) for file in wanted]
    if not files:
        fail("SOURCE", f"repository {name} has no pickled weights")
    return files[0].parent


def _convert_files(folder: Path, output: Path, names: list[str]) -> None:
    """Write a safetensors file for each pickle file, and an index if there are several."""
    import torch
    from safetensors.torch import load_file, save_file

    index: dict[str, str] = {}
    size = 0
    for name in names:
        state = torch.load(folder / name, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
            raise pickle.UnpicklingError("not a mapping from names to tensors")
        target = name.replace("pytorch_model", "model").replace(".bin", ".safetensors")
        # A tensor that has several names, such as tied embeddings, is written under each of them.
        tensors = {key: tensor.detach().clone().contiguous() for key, tensor in state.items()}
        save_file(tensors, output / target, metadata={"format": "pt"})
        written = load_file(output / target)
        if written.keys() != state.keys() or not all(_is_same(written[key], state[key]) for key in state):
            raise RuntimeError(f"{target} differs from {name}")
        index |= dict.fromkeys(tensors, target)
        size += sum(tensor.nbytes for tensor in tensors.values())
    if len(names) > 1:
        content = {"metadata": {"total_size": size}, "weight_map": index}
        (output / "model.safetensors.index.json").write_text(json.dumps(content, indent=2, sort_keys=True))


def _is_same(first: Any, second: Any) -> bool:
    import torch

    same_form = first.shape == second.shape and first.dtype == second.dtype
    return same_form and torch.equal(first.nan_to_num(), second.nan_to_num())


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in FORBIDDEN:
        raise PermissionError(f"the conversion may not call {event}")


def _main() -> None:
    without_network = forbid_network()  # before torch starts threads
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file  # noqa: F401  # before the hook: imports may start programs

    torch.set_num_threads(1)
    folder, output, *names = sys.argv[1:]
    sys.addaudithook(_refuse)
    choose_limits(sum((Path(folder) / name).stat().st_size for name in names)).apply()
    try:
        _convert_files(Path(folder), Path(output), names)
    except (pickle.UnpicklingError, PermissionError) as error:
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line or "class" in line), str(error))
        sys.stdout.write(f"the weights contain code or other objects than tensors ({reason.strip()[:160]})")
        sys.exit(REFUSED)
    except (MemoryError, RuntimeError, OSError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        sys.stdout.write(f"the weights cannot be converted within the limits for their size ({reason.strip()[:160]})")
        sys.exit(FAILED)
    sys.stdout.write(json.dumps({"without_network": without_network}))


if __name__ == "__main__":
    _main()
