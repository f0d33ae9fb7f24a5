"""Pickled weights are converted to equal safetensors, and code in them is not executed.

The process that reads them is isolated: programs in the tests show what it cannot do, even if code were executed.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from clinie_core.backbones.pickle_conversion import convert_pickled_model
from clinie_core.backbones.weights import load_model
from clinie_core.config import BackboneSource
from clinie_core.errors import InputError


class Malicious:
    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._file}",)


@pytest.mark.parametrize("shards", [1, 2])
def test_converted_weights_are_equal(tmp_path: Path, shards: int) -> None:
    folder, output = tmp_path / "bin", tmp_path / "out"
    folder.mkdir()
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    model = BertForMaskedLM(BertConfig(vocab_size=32, num_attention_heads=2, **sizes))
    model.config.save_pretrained(folder)
    (folder / "vocab.txt").write_text("[PAD]\n")
    state = model.state_dict()  # has tied embeddings
    names = sorted(state)
    for number in range(shards):
        part = {name: state[name] for name in names[number::shards]}
        suffix = f"-0000{number + 1}-of-0000{shards}" if shards > 1 else ""
        torch.save(part, folder / f"pytorch_model{suffix}.bin")
    files = convert_pickled_model(str(folder), output).files
    assert {"config.json", "vocab.txt"} <= set(files)
    assert ("model.safetensors.index.json" in files) == (shards > 1)
    loaded = load_model(BackboneSource(name="out", folder=str(output))).state_dict()
    assert all(torch.equal(tensor.float(), state[f"bert.{name}"]) for name, tensor in loaded.items())
    with pytest.raises(InputError, match="exists and is not empty"):
        convert_pickled_model(str(folder), output)


@pytest.mark.parametrize("is_code", [True, False], ids=["code", "nested"])
def test_other_objects_than_tensors_are_refused_in_one_line(tmp_path: Path, is_code: bool) -> None:
    (tmp_path / "config.json").write_text(json.dumps({}))
    content = Malicious(tmp_path / "executed") if is_code else {"state_dict": {"a": torch.zeros(1)}}
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError) as caught:
        convert_pickled_model(str(tmp_path), tmp_path / "out")
    assert "the weights contain code or other objects than tensors" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "out" / "model.safetensors").exists()


def write_repeated_element(file: Path) -> None:
    """Write a file of 2 kB with a tensor of 2^40 elements, which share one element in memory."""
    torch.save({"a": torch.zeros(1).expand(2**40)}, file)


def write_compressed_zeros(file: Path) -> None:
    """Write a file whose tensor of 1.25 GiB is compressed to 6 MB."""
    plain = file.with_suffix(".plain")
    torch.save({"a": torch.zeros(1)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        for item in source.infolist():
            with target.open(item.filename, "w", force_zip64=True) as record:
                if item.filename.endswith("data/0"):
                    for _ in range(80):
                        record.write(bytes(2**24))
                else:
                    record.write(source.read(item))
    plain.unlink()


@pytest.mark.parametrize("write", [write_repeated_element, write_compressed_zeros])
def test_weights_that_expand_beyond_their_file_are_refused(tmp_path: Path, write: Callable[[Path], None]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({}))
    write(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be converted within the limits for their size") as caught:
        convert_pickled_model(str(tmp_path), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


ISOLATED = """
import socket, sys
from pathlib import Path
from clinie_core.backbones.isolation import ResourceLimits, forbid_network
without_network = forbid_network()
ResourceLimits(memory_bytes=2**26, cpu_seconds=1, file_bytes=2**20).apply()
"""


def run_isolated(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ISOLATED + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("bytes(2**28)", "MemoryError"),
        ("Path(sys.argv[1], 'large').write_bytes(bytes(2**21))", "File too large"),
        ("while True: pass", ""),
    ],
    ids=["memory", "file", "time"],
)
def test_a_process_cannot_exceed_its_limits(tmp_path: Path, code: str, reason: str) -> None:
    result = run_isolated(code, str(tmp_path))
    assert result.returncode != 0
    assert reason in result.stderr
    assert run_isolated("Path(sys.argv[1], 'small').write_bytes(bytes(2**10))", str(tmp_path)).returncode == 0


def test_a_process_without_network_cannot_reach_a_server_of_its_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        connect = "socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=5)"
        result = run_isolated(f"print(without_network); {connect}", port)
    if result.stdout.strip() != "True":
        pytest.skip("this system does not permit network namespaces")
    assert "Network is unreachable" in result.stderr


def test_a_process_keeps_its_user_in_its_network_namespace(tmp_path: Path) -> None:
    file = tmp_path / "own"
    result = run_isolated("import os; Path(sys.argv[1]).write_text(str(os.geteuid()))", str(file))
    assert result.returncode == 0
    assert file.read_text() == str(os.geteuid())
    assert file.stat().st_uid == os.geteuid()
