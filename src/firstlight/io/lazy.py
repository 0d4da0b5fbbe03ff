"""Arrays that stay in their file: a shape, a dtype, and how to get the part asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Lazy"]


class Lazy:
    """An array whose slices are read, decoded and returned in native byte order when asked for; read-only.

    `get(key)` returns the part `key` of an array of `shape` and `dtype`; numpy functions read the whole. chunks: sides of the
    parts that are decoded whole, None where any part is read alone.
    """

    def __init__(
        self, shape: Sequence[int], dtype: Any, get: Callable[[Any], NDArray[Any]], chunks: tuple[int, ...] | None = None
    ) -> None:
        self.chunks = chunks
        self.shape = tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)
        self._get = get

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return np.asarray(self._get(key), dtype=self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole = self[...]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def astype(self, dtype: Any, copy: bool = True) -> NDArray[Any]:
        """The whole array in another type."""
        return self[...].astype(dtype, copy=copy)
