"""Count of the memory that tensors hold, real or simulated."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["LiveStorage"]


class LiveStorage(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that counts the bytes of all live storages.

    A storage counts from the operation that returns it until it is released, whether a variable, a
    parameter or a graph of autograd holds it. Views share a storage. Memory that a kernel uses internally
    does not count. A sharded model frees gathered weights by resizing their storages, which counts, too.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.current = 0
        """Bytes of the storages that are alive."""
        self._peaks: dict[Hashable, int] = {}  # of finished segments
        self._segment: Hashable = None
        self._segment_peak = 0
        self._known: dict[int, tuple[weakref.ref[Any], list[int]]] = {}

    def track(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that exist already."""
        for tensor in tensors:
            own = tensor._local_tensor if isinstance(tensor, DTensor) else tensor
            storage = own.untyped_storage()
            key = storage._cdata
            known = self._known.get(key)
            if known is None or known[0]() is not storage:
                size = [0]
                self._known[key] = weakref.ref(storage, self._make_release(key, size)), size
                self._resize(size, storage.nbytes())

    def __enter__(self) -> Self:
        """Start counting."""
        resize = self._uncounted_resize = torch.UntypedStorage.resize_

        def resize_and_count(storage: torch.UntypedStorage, size: int) -> object:
            result = resize(storage, size)
            known = self._known.get(storage._cdata)
            if known is not None and known[0]() is storage:
                self._resize(known[1], storage.nbytes())
            return result

        torch.UntypedStorage.resize_ = resize_and_count  # type: ignore[method-assign,assignment]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        """Stop counting."""
        torch.UntypedStorage.resize_ = self._uncounted_resize  # type: ignore[method-assign]
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def reset_peak(self) -> None:
        """Start measuring the peak, in a segment named None."""
        self._peaks, self._segment, self._segment_peak = {}, None, self.current

    def begin_segment(self, name: Hashable) -> None:
        """End the current segment of time and begin another one; segments of one name count as one."""
        self._peaks, self._segment, self._segment_peak = self.peaks, name, self.current

    @property
    def peaks(self) -> dict[Hashable, int]:
        """Largest value of :attr:`current` in each segment since :meth:`reset_peak`."""
        return self._peaks | {self._segment: max(self._segment_peak, self._peaks.get(self._segment, 0))}

    @property
    def peak(self) -> int:
        """Largest value of :attr:`current` since :meth:`reset_peak`."""
        return max(self.peaks.values())

    def _resize(self, size: list[int], nbytes: int) -> None:
        self.current += nbytes - size[0]
        size[0] = nbytes
        self._segment_peak = max(self._segment_peak, self.current)

    def _make_release(self, key: int, size: list[int]) -> Callable[[object], None]:
        def release(reference: object) -> None:
            self.current -= size[0]
            if key in self._known and self._known[key][0] is reference:
                del self._known[key]

        return release

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count the storages of its results."""
        out = func(*args, **(kwargs or {}))
        self.track(leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
        return out
