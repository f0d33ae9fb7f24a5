"""Precision of a trial: the dtype of matrix multiplications and of frozen weights, chosen for a device.

Frozen weights are stored in the dtype of matrix multiplications. Trained weights are stored in float32, so that small
updates are not lost, and are converted for each forward pass by autocast, or by the units of a sharded model. Autocast
would convert a frozen weight of float32 for each use, and autograd would hold every copy until the backward pass.

Source: Micikevicius et al. 2018, "Mixed Precision Training" (arXiv 1710.03740).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = [
    "Precision",
    "PrecisionName",
    "cast_trained_weights",
    "choose_precision",
    "choose_weight_dtype",
    "convert_linear_weights",
    "detect_precision",
    "set_buffer_dtypes",
    "set_weight_dtypes",
]

PrecisionName = Literal["auto", "float32", "bfloat16", "float16"]

FAST_BFLOAT16 = (8, 0)
"""Lowest compute capability with matrix units for bfloat16 and TF32 (Ampere). Older GPUs emulate bfloat16."""
FAST_FLOAT16 = (7, 0)
"""Lowest compute capability with matrix units for float16 (Volta)."""
CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""Flags in ``/proc/cpuinfo`` of CPUs that multiply matrices of bfloat16 faster than matrices of float32."""


@dataclass(frozen=True)
class Precision:
    """Number formats of a trial's computation.

    Args:
        dtype: Format of matrix multiplications and of frozen weights. Trained weights are float32.
        scales_gradients: Whether the loss is scaled, because small gradients would be zero in ``dtype``.
        tf32: Whether matrices of float32 are multiplied in TF32, which rounds them to 10 bits.
    """

    dtype: torch.dtype = torch.float32
    scales_gradients: bool = False
    tf32: bool = False

    @property
    def is_reduced(self) -> bool:
        """True if matrix multiplications use a format with fewer bits than float32."""
        return self.dtype != torch.float32

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return a context in which matrix multiplications convert their inputs to ``dtype``."""
        dtype = self.dtype if self.is_reduced else torch.bfloat16  # a disabled context warns about float32
        return torch.autocast(device.type, dtype=dtype, enabled=self.is_reduced)

    def enable_tf32(self) -> None:
        """Set the format of float32 matrix multiplications of this process."""
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        torch.backends.cudnn.allow_tf32 = self.tf32


def choose_precision(
    wanted: PrecisionName,
    device_type: str,
    *,
    capability: tuple[int, int] | None = None,
    cpu_flags: Collection[str] = (),
) -> Precision:
    """Return the precision for a kind of device.

    ``auto`` selects bfloat16 on GPUs since Ampere and CPUs with instructions for it, float16 on Volta and Turing,
    and float32 otherwise. A format that the configuration names is used on any device.

    Args:
        wanted: The configuration's precision.
        device_type: ``cpu`` or ``cuda``.
        capability: Compute capability of the GPU, such as (8, 0); None for a CPU.
        cpu_flags: Flags of the CPU; a GPU does not need them.
    """
    if wanted == "auto" and device_type == "cuda":
        major_minor = capability or (0, 0)
        fast_float16 = "float16" if major_minor >= FAST_FLOAT16 else "float32"
        wanted = "bfloat16" if major_minor >= FAST_BFLOAT16 else fast_float16  # type: ignore[assignment]  # a literal
    elif wanted == "auto":
        wanted = "bfloat16" if CPU_FLAGS.intersection(cpu_flags) else "float32"
    return Precision(
        getattr(torch, wanted),
        scales_gradients=wanted == "float16",
        tf32=device_type == "cuda" and (capability or (0, 0)) >= FAST_BFLOAT16,
    )


def detect_precision(wanted: PrecisionName, device: torch.device) -> Precision:
    """Return the precision for a device of this machine.

    Args:
        wanted: The configuration's precision.
        device: The device.
    """
    if device.type == "cuda":
        return choose_precision(wanted, "cuda", capability=torch.cuda.get_device_capability(device))
    return choose_precision(wanted, device.type, cpu_flags=_read_cpu_flags())


def choose_weight_dtype(parameter: Tensor, precision: Precision) -> torch.dtype:
    """Return the dtype in which a weight is stored: float32 if it is trained, else that of the computation.

    Quantized weights keep their dtype.

    Args:
        parameter: The weight; it requires gradients if it is trained.
        precision: The precision.
    """
    if not parameter.is_floating_point() or hasattr(parameter, "quant_state"):
        return parameter.dtype
    return torch.float32 if parameter.requires_grad else precision.dtype


def set_weight_dtypes(model: nn.Module, precision: Precision) -> None:
    """Convert frozen weights to a precision's dtype and trained weights to float32, in place.

    A normalization layer with trained weights is float32 as a whole, because its kernels need one dtype.

    Args:
        model: A model whose trained weights require gradients.
        precision: The precision.
    """
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        is_norm = all(parameter.ndim == 1 for parameter in own) and any(p.requires_grad for p in own)
        for parameter in own:
            parameter.data = parameter.data.to(torch.float32 if is_norm else choose_weight_dtype(parameter, precision))


def set_buffer_dtypes(model: nn.Module, precision: Precision, *, kept: Collection[int]) -> None:
    """Convert the buffers that a fine-tuning method added to a precision's dtype, in place.

    Args:
        model: A model.
        precision: The precision.
        kept: Ids of the buffers that keep their dtype, such as the frequencies of rotary embeddings.
    """
    for module in model.modules():
        for key, buffer in list(module.named_buffers(recurse=False)):
            if id(buffer) not in kept and buffer.is_floating_point():
                setattr(module, key, buffer.to(precision.dtype))
        if precision.is_reduced and hasattr(module, "cast_input_dtype_enabled"):
            # PEFT would convert inputs to float32, and autocast back; autograd would hold both copies.
            setattr(module, "cast_input_dtype_enabled", False)  # noqa: B010  # mypy does not know the attribute


@contextmanager
def cast_trained_weights(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Return a context within which all weights of a model have one dtype; afterwards trained weights are restored.

    Args:
        model: The model; its trained weights must not change within the context.
        dtype: The dtype of its frozen weights.
    """
    held: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for parameter in model.parameters():
            if parameter.is_floating_point() and parameter.dtype != dtype:
                held.append((parameter, parameter.data))
                parameter.data = parameter.data.to(dtype)
        yield
    finally:
        for parameter, master in held:
            parameter.data = master


def convert_linear_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Convert the trained weights of a model's linear layers to a dtype, in place.

    Autocast converts these weights in each prediction to the same values, and copies them for that.

    Args:
        model: The model; it cannot be trained afterwards.
        dtype: The dtype of the computation.
    """
    for module in model.modules():
        if type(module) is nn.Linear:  # a subclass may use its weight in other operations
            for parameter in module.parameters(recurse=False):
                if parameter.dtype == torch.float32:
                    parameter.requires_grad_(False).data = parameter.data.to(dtype)


def _read_cpu_flags() -> frozenset[str]:
    """Return the flags of the first CPU; none where the system does not list them."""
    file = Path("/proc/cpuinfo")
    if not file.is_file():
        return frozenset()
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())
