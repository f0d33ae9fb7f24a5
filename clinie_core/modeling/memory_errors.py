"""Errors that report insufficient memory, of a GPU or of the machine."""

from __future__ import annotations

import errno
import re

import torch

__all__ = ["MEMORY_ERRORS", "is_out_of_memory"]

MEMORY_ERRORS: dict[str, str] = {
    "CUDA's caching allocator": r"CUDA out of memory",
    "CUDA runtime": r"CUDA error: out of memory",
    "CUDA driver": r"CUDA driver error: out of memory",
    "creation of a cuBLAS handle": r"CUBLAS_STATUS_NOT_INITIALIZED",
    "workspace of cuBLAS": r"CUBLAS_STATUS_ALLOC_FAILED",
    "workspace of cuDNN": r"CUDNN_STATUS_ALLOC_FAILED",
    "workspace of cuSOLVER": r"CUSOLVER_STATUS_ALLOC_FAILED",
    "buffers of NCCL": r"(?is)nccl.*out of memory",
    "CPU allocator of torch": r"DefaultCPUAllocator",
    "memory map": r"Cannot allocate memory",
}
"""Patterns of error messages, by the origin of the error, where torch has no separate type."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports insufficient memory of the GPU or the process."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    message = str(error)
    return isinstance(error, RuntimeError) and any(re.search(p, message) for p in MEMORY_ERRORS.values())
