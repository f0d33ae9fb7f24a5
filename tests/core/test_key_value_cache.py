"""Keys and values in reserved memory give the same answers as the cache of transformers."""

from __future__ import annotations

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, MistralConfig

from clinie_core.modeling.key_value_cache import build_cache

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 99}
TOKENS = 24


def test_answers_with_reserved_memory_are_equal_and_nothing_is_copied() -> None:
    torch.manual_seed(3)
    config = LlamaConfig(num_key_value_heads=2, initializer_range=0.5, **SIZES)
    model = LlamaForCausalLM(config).eval()
    rows = torch.randint(3, 99, (5, 40))
    mask = torch.ones_like(rows)
    for row, padding in enumerate((0, 7, 0, 25, 39)):
        mask[row, :padding] = 0
    settings = GenerationConfig(max_new_tokens=TOKENS, do_sample=False, eos_token_id=98, pad_token_id=98)
    cache = build_cache(config, TOKENS)
    assert cache is not None
    generated = []
    for arguments in ({}, {"past_key_values": cache}):
        with torch.inference_mode():
            generated.append(
                model.generate(input_ids=rows, attention_mask=mask, generation_config=settings, **arguments)
            )
    assert torch.equal(*generated)
    assert generated[0].shape[1] == 40 + TOKENS
    reserved = {layer.keys.untyped_storage().nbytes() for layer in cache.layers}
    assert reserved == {5 * 2 * (40 + TOKENS) * 8 * 4}  # rows, heads, tokens, width, bytes


def test_a_decoder_with_a_sliding_window_has_the_cache_of_transformers() -> None:
    config = MistralConfig(num_key_value_heads=2, sliding_window=16, **SIZES)
    assert build_cache(config, TOKENS) is None
