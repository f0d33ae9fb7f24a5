"""Extraction model: a backbone, prepared by a fine-tuning method, with task heads.

``forward`` computes the training loss, as the gradient hooks of distributed wrappers require.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from clinie_core.backbones.dropout import set_dropout
from clinie_core.backbones.layer_removal import remove_layers
from clinie_core.config import TrialConfig
from clinie_core.data.schema import Schema
from clinie_core.encoding.batch import IGNORE_INDEX, Batch
from clinie_core.encoding.outputs import HeadOutput
from clinie_core.errors import fail
from clinie_core.finetuning import FINETUNING
from clinie_core.finetuning.method import FineTuning
from clinie_core.formulations import build_components
from clinie_core.heads import LanguageHead, TaskHead
from clinie_core.modeling.backbone_copies import copy_backbone, defer_conversion
from clinie_core.modeling.precision import Precision, cast_trained_weights, set_buffer_dtypes, set_weight_dtypes
from clinie_core.modeling.sharding import is_sharded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ExtractionModel", "LanguageModel", "build_model", "load_finetuning", "merge_backbone"]

FLOAT32 = Precision()

# peft 0.21 uses a deprecated property of transformers 5, which a user cannot change.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)


class ExtractionModel(nn.Module):
    """Backbone and task heads.

    Args:
        backbone: A pretrained model to which a fine-tuning method was applied.
        heads: Task heads by component name.
        prepended: Number of soft prompt tokens before the input.
        precision: Number formats of the weights and the computation.
    """

    def __init__(
        self,
        backbone: nn.Module,
        heads: Mapping[str, TaskHead],
        prepended: int = 0,
        precision: Precision = FLOAT32,
    ) -> None:
        super().__init__()
        self.precision = precision
        self.backbone = backbone
        self.heads = nn.ModuleDict(dict(heads))
        self.pretrained_names: frozenset[str] = frozenset()
        """Names in ``state_dict`` of the tensors that are shared with the pretrained backbone."""
        self._prepended = prepended
        # PEFT does not pass token types to the backbone together with a soft prompt.
        self._has_segments = int(getattr(backbone.config, "type_vocab_size", 0) or 0) > 1 and not prepended

    def get_head(self, component: str) -> TaskHead:
        """Return the head of a component."""
        head = self.heads[component]
        assert isinstance(head, TaskHead)
        return head

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context for :meth:`forward`, in which trained weights are converted for matrix multiplications.

        No-op for a sharded model, which gathers its weights in the dtype of the computation.
        """
        if isinstance(self, FSDPModule):
            return nullcontext()
        return self.precision.autocast(next(self.parameters()).device)

    def prepare_prediction(self) -> AbstractContextManager[object]:
        """Return a context for any number of calls of :meth:`predict`."""
        return self.autocast()

    def _compute_hidden_states(self, batch: Batch) -> Tensor:
        """Return the hidden states at the batch's positions, ``[batch, positions, hidden]``."""
        segments: dict[str, Any] = {}
        if batch.segments is not None and self._has_segments:
            segments["token_type_ids"] = batch.segments
        out = self.backbone(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **segments)
        states = out.last_hidden_state  # [batch, virtual tokens + tokens, hidden]
        # Positions count from the first token after the soft prompt.
        states = states[:, states.shape[1] - batch.input_ids.shape[1] :]
        index = batch.positions.unsqueeze(2).expand(-1, -1, states.shape[2])  # [batch, positions, hidden]
        return torch.gather(states, 1, index)

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss summed over the batch's targets, a scalar."""
        return self.get_head(batch.component).compute_loss(self._compute_hidden_states(batch), batch)

    def predict(self, batch: Batch) -> Sequence[HeadOutput]:
        """Return the head's output for each row of the batch; the component's formulation decodes it."""
        return self.get_head(batch.component).predict(self._compute_hidden_states(batch), batch)


class LanguageModel(ExtractionModel):
    """Extraction model that generates answers with the language-model head of a causal backbone."""

    @property
    def cache_bytes_per_token(self) -> int:
        """Size of one token's keys and values in all layers, which generation keeps."""
        c: Any = self.backbone.config
        heads = getattr(c, "num_key_value_heads", None) or c.num_attention_heads
        width = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        return int(2 * c.num_hidden_layers * heads * width * self.precision.dtype.itemsize)

    def get_answer_tokens(self, component: str) -> int:
        """Return the longest answer of a component in tokens."""
        head = self.get_head(component)
        assert isinstance(head, LanguageHead)
        return head.budget

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss summed over the answers' tokens, a scalar.

        Logits are computed at the positions of answer tokens only.

        Args:
            batch: A batch with aligned positions, padded on the right.
        """
        assert batch.targets is not None
        positions = batch.positions[0] + self._prepended
        # Padding follows the tokens, which therefore do not attend to it. Without a mask, the attention uses faster
        # kernels, and transformers need not read the mask to find out whether there is padding.
        out = self.backbone(input_ids=batch.input_ids, logits_to_keep=positions, use_cache=False)
        return nn.functional.cross_entropy(
            out.logits.float().flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
        )

    def prepare_prediction(self) -> AbstractContextManager[object]:
        """Return a context in which all weights have the dtype of the computation.

        Autocast would convert each trained weight again for each token.
        """
        if isinstance(self, FSDPModule):
            return nullcontext()
        return cast_trained_weights(self, self.precision.dtype)

    def predict(self, batch: Batch) -> list[NDArray[np.int64]]:
        """Generate the tokens of each row's answer by greedy decoding; input rows are padded on the left."""
        from transformers import GenerationConfig, LogitsProcessorList

        head = self.get_head(batch.component)
        assert isinstance(head, LanguageHead)
        prompt_length = batch.input_ids.shape[1]
        model: Any = self.backbone
        inputs: dict[str, Tensor] = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if self._prepended:
            # PEFT would put the soft prompt before the padding, unlike in training.
            model, prompt_length = model.base_model, 0
            inputs = self._embed_with_prompt(batch)
        processors = LogitsProcessorList()
        if batch.constraints:
            from clinie_core.templates.constrained_decoding import (
                ConstraintProcessor,  # imports transformers' generation
            )

            processors.append(ConstraintProcessor(batch.constraints, prompt_length, head.eos_id))
        settings = GenerationConfig(
            max_new_tokens=head.budget, do_sample=False, num_beams=1, eos_token_id=head.eos_id, pad_token_id=head.eos_id
        )
        generated = model.generate(
            **inputs,
            **self._build_cache(head.budget),
            generation_config=settings,
            logits_processor=processors,
            synced_gpus=is_sharded(self),  # each process then generates until all of them have finished
        )
        return [_truncate_at(row, head.eos_id) for row in generated[:, prompt_length:].cpu().numpy()]

    def _build_cache(self, tokens: int) -> dict[str, Any]:
        """Return the argument of ``generate`` with the cache of keys and values; none if it has to build its own."""
        from clinie_core.modeling.key_value_cache import build_cache  # imports transformers' models

        adapter: Any = getattr(self.backbone, "active_peft_config", None)
        if getattr(adapter, "is_prompt_learning", False):  # PEFT puts its prompt into a cache of its own
            return {}
        cache = build_cache(self.backbone.config, tokens)
        return {} if cache is None else {"past_key_values": cache}

    def _embed_with_prompt(self, batch: Batch) -> dict[str, Tensor]:
        """Return the embeddings of padding, soft prompt and input in this order, with their attention mask."""
        peft: Any = self.backbone
        rows, tokens = batch.input_ids.shape
        prompts = peft.get_prompt(batch_size=rows)  # [batch, prepended, hidden]
        embedded = peft.word_embeddings(batch.input_ids)  # [batch, tokens, hidden]
        mask = batch.attention_mask
        padding = (tokens - mask.sum(1)).tolist()
        both = torch.cat([prompts.to(embedded.dtype), embedded], dim=1)
        first = self._prepended

        def positions(pad: int) -> list[int]:
            return [*range(first, first + pad), *range(first), *range(first + pad, first + tokens)]

        order = torch.tensor([positions(pad) for pad in padding], device=mask.device)  # [batch, prepended + tokens]
        embeds = torch.gather(both, 1, order.unsqueeze(2).expand_as(both))
        wide = torch.gather(torch.cat([mask.new_ones(rows, self._prepended), mask], dim=1), 1, order)
        return {"inputs_embeds": embeds, "attention_mask": wide}


def _truncate_at(row: NDArray[Any], stop: int) -> NDArray[Any]:
    """Return the part of a row before the first stop token."""
    positions = (row == stop).nonzero()[0]
    return row[: positions[0]] if len(positions) else row


def load_finetuning(config: TrialConfig) -> FineTuning:
    """Return the configuration's fine-tuning method with validated parameters."""
    return FINETUNING.load(config.finetuning.name).model_validate(config.finetuning.parameters)


def build_model(
    config: TrialConfig,
    schema: Schema,
    pretrained: PreTrainedModel,
    *,
    device: torch.device | None = None,
    precision: Precision = FLOAT32,
    keep_mapped: bool = False,
    recomputation: bool = False,
) -> ExtractionModel:
    """Build a model from a configuration.

    Args:
        config: The trial's configuration; new weights are initialized with its seed.
        schema: Annotation types to extract.
        pretrained: The pretrained backbone; it is not changed unless ``keep_mapped`` is set.
        device: Device of the model; None for that of the pretrained backbone.
        precision: Number formats of the weights and the computation.
        keep_mapped: Whether the model has the weights of the pretrained backbone itself, in the dtype and the mapped
            memory of its files, on the CPU. Such a model cannot be trained, but it can be sharded without being read
            as a whole.
        recomputation: Whether to recompute activations even if the configuration does not say so, provided that
            method and backbone support it.

    Raises:
        InputError: If the fine-tuning method or the backbone does not support gradient checkpointing.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        method = load_finetuning(config)
        frozen = method.freezes_backbone
        dtype = precision.dtype if frozen else torch.float32
        if keep_mapped:
            backbone = pretrained.requires_grad_(not frozen)
            method.prepare(backbone, device or backbone.device, dtype)
            if method.reads_weights:
                backbone.to(dtype)  # no-op if the files have this dtype
            defer_conversion(backbone, dtype)  # new weights have the dtype of those that they adapt
        else:
            backbone = copy_backbone(pretrained, share_weights=frozen, device=device, dtype=dtype)
        if config.dropout is not None:
            set_dropout(backbone, config.dropout)
        remove_layers(backbone, config.layers_kept, config.depth_scheme)
        is_supported = method.supports_recomputation and backbone.supports_gradient_checkpointing
        if config.gradient_checkpointing or (recomputation and is_supported):
            if not is_supported:
                found = f"{config.finetuning.name} on {config.backbone.name} does not support gradient checkpointing"
                fail("gradient_checkpointing", found, allowed="false")
            # transformers 5.23 renamed the method and warns about the old name
            recompute = getattr(backbone, "activation_checkpointing_enable", backbone.gradient_checkpointing_enable)
            recompute({"use_reentrant": False})
        width = int(backbone.config.hidden_size)
        own = {_identify(tensor) for tensor in backbone.state_dict(keep_vars=True).values()}
        own_buffers = {id(buffer) for buffer in backbone.buffers()}
        components = build_components(config)
        heads = {name: f.build_head(width, schema) for name, f in components.items()}
        model_class = LanguageModel if any(f.generates for f in components.values()) else ExtractionModel
        model = model_class(method.apply(backbone), heads, method.prepended_tokens, precision)
        state = model.state_dict(keep_vars=True)
        model.pretrained_names = _find_pretrained({name for name, t in state.items() if _identify(t) in own}, state)
        set_buffer_dtypes(model.backbone, precision, kept=own_buffers)
        if keep_mapped:
            return model
        set_weight_dtypes(model, precision)
        return model.to(device or pretrained.device)


def merge_backbone(model: ExtractionModel, method: FineTuning, name: str) -> PreTrainedModel:
    """Return a copy of a model's backbone, on the CPU, with the adapter merged into its weights, in float32.

    Args:
        model: The model; it is not changed.
        method: Its fine-tuning method.
        name: Name of the method, for the error message.

    Raises:
        InputError: If the method's changes cannot be expressed as weights of the backbone.
    """
    device = torch.device("cpu")
    # A small update would be lost in a weight of bfloat16.
    plain = method.merge(copy_backbone(model.backbone, share_weights=False, device=device, dtype=torch.float32))
    if plain is None:
        found = f"{name} cannot be merged into the weights of the backbone"
        fail("--merge", found, remedy="omit --merge, or choose a model with another fine-tuning method")
    plain.requires_grad_(False)
    return plain


def _find_pretrained(unchanged: Collection[str], state: Collection[str]) -> frozenset[str]:
    """Return unchanged tensors and their parts: a quantized weight has further entries below its own name."""
    return frozenset(name for name in state if any(part in unchanged for part in _list_parents(name)))


def _list_parents(name: str) -> list[str]:
    """Return a dotted name and all its prefixes."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _identify(tensor: Tensor) -> tuple[int, int]:
    """Return a key that changes when a fine-tuning method replaces the tensor or its memory."""
    return id(tensor), 0 if tensor.is_meta else tensor.data_ptr()
