"""Module of a bottleneck adapter, separate from its method, whose module must not import torch."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["BottleneckAdapter"]


class BottleneckAdapter(nn.Module):
    """Linear module followed by a bottleneck with a residual.

    Args:
        base: The linear module, ``[..., in]`` to ``[..., out]``.
        width: Width of the bottleneck.
    """

    def __init__(self, base: nn.Module, width: int) -> None:
        super().__init__()
        self.base = base
        # Conv1D of transformers (GPT-2) stores transposed weights and names its output width nf.
        out = int(base.out_features if isinstance(base, nn.Linear) else base.nf)  # type: ignore[arg-type]
        self.down = nn.Linear(out, width)
        self.up = nn.Linear(width, out)
        nn.init.normal_(self.down.weight, std=0.02)
        for zeroed in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zeroed)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute ``base(x) + up(gelu(down(base(x))))``, ``[..., out]``."""
        out: Tensor = self.base(inputs)
        update: Tensor = self.up(nn.functional.gelu(self.down(out)))
        return out + update
