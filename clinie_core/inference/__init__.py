"""Inference: batched prediction, and extractors that are loaded from checkpoints."""
