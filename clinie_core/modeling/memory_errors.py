"""Errors that report insufficient memory, of a GPU or of the machine."""

from __future__ import annotations

import errno
import mmap
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

ONEDNN_ERROR = "could not create a primitive"
"""Message of oneDNN for a shortage of memory, but also for kernels that the system does not permit."""
PROBED_BYTES = 512 * 2**20
"""Size of a memory map that fails if oneDNN's error results from a shortage."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports insufficient memory of the GPU or the process."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    message = str(error)
    if isinstance(error, RuntimeError) and message.strip() == ONEDNN_ERROR:
        return not _can_map(PROBED_BYTES)
    return isinstance(error, RuntimeError) and any(re.search(p, message) for p in MEMORY_ERRORS.values())


def _can_map(size: int) -> bool:
    """Return whether the process can map memory of a size in bytes; pages that are not used cost nothing."""
    try:
        mmap.mmap(-1, size).close()
    except OSError:
        return False
    return True
