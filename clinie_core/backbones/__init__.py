"""Pretrained backbones: where their files are, what they support, their tokenizers and weights."""
