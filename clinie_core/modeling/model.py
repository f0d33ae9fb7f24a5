"""A model for extraction: backbone, fine-tuning method and task heads in one module.

``forward`` is the training loss, so that a distributed wrapper sees every gradient.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

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
from clinie_core.templates.constrained_decoding import ConstraintProcessor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ExtractionModel", "build_model", "load_finetuning", "merge_backbone"]

# peft 0.21 asks transformers 5 for a property under its old name; the user can do nothing about it.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)


class ExtractionModel(nn.Module):
    """Backbone and heads.

    Args:
        backbone: What a fine-tuning method made of a pretrained model.
        heads: The task heads, by the name of their component.
        prepended: Soft prompt tokens that stand before the input.
    """

    def __init__(self, backbone: nn.Module, heads: Mapping[str, TaskHead], prepended: int = 0) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict(dict(heads))
        self.pristine_names: frozenset[str] = frozenset()
        """Names in this module's state of the tensors that are still the backbone's own."""
        self._prepended = prepended
        # PEFT hands no segments on beside a soft prompt.
        self._has_segments = int(getattr(backbone.config, "type_vocab_size", 0) or 0) > 1 and not prepended

    def head(self, component: str) -> TaskHead:
        """The head of a component."""
        head = self.heads[component]
        assert isinstance(head, TaskHead)
        return head

    def _compute_hidden_states(self, batch: Batch) -> Tensor:
        """Hidden states at the batch's positions, ``[batch, positions, hidden]``."""
        segments: dict[str, Any] = {}
        if batch.segments is not None and self._has_segments:
            segments["token_type_ids"] = batch.segments
        out = self.backbone(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **segments)
        states = out.last_hidden_state  # [batch, virtual tokens + tokens, hidden]
        # Soft prompts stand before the text and have no position of their own there.
        states = states[:, states.shape[1] - batch.input_ids.shape[1] :]
        index = batch.positions.unsqueeze(2).expand(-1, -1, states.shape[2])  # [batch, positions, hidden]
        return torch.gather(states, 1, index)

    def forward(self, batch: Batch) -> Tensor:
        """The loss summed over the batch's targets, a scalar."""
        return self.head(batch.component).loss(self._compute_hidden_states(batch), batch)

    def outputs(self, batch: Batch) -> Sequence[HeadOutput]:
        """What the component's formulation reads, one array a row."""
        return self.head(batch.component).outputs(self._compute_hidden_states(batch), batch)


class LanguageModel(ExtractionModel):
    """A backbone that writes answers, with its language-model head: a causal model or what a method made of it."""

    def forward(self, batch: Batch) -> Tensor:
        """The loss summed over the answers' tokens; scores are computed at those places alone."""
        assert batch.targets is not None
        mask = batch.position_mask()
        places = torch.unique(batch.positions[mask])  # sorted
        out = self.backbone(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, logits_to_keep=places + self._prepended
        )
        targets = torch.full((len(batch.input_ids), len(places)), IGNORE_INDEX, device=places.device)
        row, column = mask.nonzero(as_tuple=True)
        targets[row, torch.searchsorted(places, batch.positions[mask])] = batch.targets[row, column]
        return nn.functional.cross_entropy(
            out.logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
        )

    def outputs(self, batch: Batch) -> list[NDArray[np.int64]]:
        """The tokens of each row's answer, chosen greedily; rows are padded on the left."""
        from transformers import GenerationConfig, LogitsProcessorList

        head = self.head(batch.component)
        assert isinstance(head, LanguageHead)
        question = batch.input_ids.shape[1]
        writer: Any = self.backbone
        inputs: dict[str, Tensor] = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if self._prepended:
            # PEFT would put the soft prompt before the padding, where training never saw it.
            writer, question = writer.base_model, 0
            inputs = self._embed_with_prompt(batch)
        processors = LogitsProcessorList()
        if batch.constraints:
            processors.append(ConstraintProcessor(batch.constraints, question, head.eos_id))
        settings = GenerationConfig(
            max_new_tokens=head.budget, do_sample=False, num_beams=1, eos_token_id=head.eos_id, pad_token_id=head.eos_id
        )
        written = writer.generate(
            **inputs,
            generation_config=settings,
            logits_processor=processors,
            synced_gpus=isinstance(self, FSDPModule),  # a sharded model writes on until the last process is done
        )
        return [_truncate_at(row, head.eos_id) for row in written[:, question:].cpu().numpy()]

    def _embed_with_prompt(self, batch: Batch) -> dict[str, Tensor]:
        """Embeddings of padding, soft prompt and question in this order, with their attention mask."""
        peft: Any = self.backbone
        rows, tokens = batch.input_ids.shape
        prompts = peft.get_prompt(batch_size=rows)  # [batch, prepended, hidden]
        embedded = peft.word_embeddings(batch.input_ids)  # [batch, tokens, hidden]
        mask = batch.attention_mask
        padding = (tokens - mask.sum(1)).tolist()
        both = torch.cat([prompts.to(embedded.dtype), embedded], dim=1)
        first = self._prepended

        def places(pad: int) -> list[int]:
            return [*range(first, first + pad), *range(first), *range(first + pad, first + tokens)]

        order = torch.tensor([places(pad) for pad in padding], device=mask.device)  # [batch, prepended + tokens]
        embeds = torch.gather(both, 1, order.unsqueeze(2).expand_as(both))
        wide = torch.gather(torch.cat([mask.new_ones(rows, self._prepended), mask], dim=1), 1, order)
        return {"inputs_embeds": embeds, "attention_mask": wide}


def _truncate_at(row: NDArray[Any], stop: int) -> NDArray[Any]:
    """The part of a row before the first stop."""
    places = (row == stop).nonzero()[0]
    return row[: places[0]] if len(places) else row


def load_finetuning(config: TrialConfig) -> FineTuning:
    """The configuration's fine-tuning method, its parameters validated."""
    return FINETUNING.load(config.finetuning.name).model_validate(config.finetuning.parameters)


def build_model(
    config: TrialConfig, schema: Schema, pristine: PreTrainedModel, *, reuse_weights: bool = False
) -> ExtractionModel:
    """Build a model from a configuration.

    Args:
        config: The trial's configuration; its seed draws every new weight.
        schema: What there is to extract.
        pristine: The backbone's weights; they are never changed.
        reuse_weights: Whether they become the model's own all the same, for one that is too large to be there twice.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        method = load_finetuning(config)
        if reuse_weights:
            backbone = pristine.requires_grad_(not method.freezes_backbone)
        else:
            backbone = _copy_backbone(pristine, share_weights=method.freezes_backbone)
        remove_layers(backbone, config.layers_kept, config.depth_scheme)
        if config.gradient_checkpointing:
            if not (method.recomputes and backbone.supports_gradient_checkpointing):
                found = f"{config.finetuning.name} on {config.backbone.name} cannot compute activations again"
                fail("gradient_checkpointing", found, allowed="false")
            # transformers 5.23 has a new name for it and warns of the old one
            recompute = getattr(backbone, "activation_checkpointing_enable", backbone.gradient_checkpointing_enable)
            recompute({"use_reentrant": False})
        width = int(backbone.config.hidden_size)
        own = {_identify(tensor) for tensor in backbone.state_dict(keep_vars=True).values()}
        components = build_components(config)
        heads = {name: f.build_head(width, schema) for name, f in components.items()}
        model: ExtractionModel
        if any(f.generates for f in components.values()):
            model = LanguageModel(method.apply(backbone), heads, method.prepended_tokens)
        else:
            model = ExtractionModel(method.apply(backbone), heads, method.prepended_tokens)
        state = model.state_dict(keep_vars=True)
        model.pristine_names = frozenset(name for name, tensor in state.items() if _identify(tensor) in own)
        return model


def merge_backbone(model: ExtractionModel, method: FineTuning, name: str) -> PreTrainedModel:
    """A copy of a model's backbone, on the CPU, whose weights hold what its method added.

    Args:
        model: The model, which stays as it is.
        method: Its fine-tuning method.
        name: The method's name, for the message.

    Raises:
        InputError: If what the method added is no part of a weight.
    """
    plain = method.merge(copy.deepcopy(model.backbone).cpu())
    if plain is None:
        fail("--merge", f"{name} adds what is no part of a weight", allowed="a model of another method, or no --merge")
    plain.requires_grad_(False)
    return plain


def _identify(tensor: Tensor) -> tuple[int, int]:
    """Tells a tensor that a method left alone from one that it replaced, in name or in content."""
    return id(tensor), 0 if tensor.is_meta else tensor.data_ptr()


def _copy_backbone(pristine: PreTrainedModel, *, share_weights: bool) -> PreTrainedModel:
    """Copy a model's modules and either its weights too or only references to them.

    A shared weight is a parameter of its own on the same memory: moving it to a GPU, unfreezing or
    replacing it leaves the pristine one alone, and only writing into it in place would not.
    """
    memo: dict[int, object] = {}
    if share_weights:
        memo |= {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in pristine.parameters()}
    return copy.deepcopy(pristine, memo)
