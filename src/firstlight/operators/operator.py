"""Operator: a linear map between arrays, with its exact adjoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError

__all__ = ["Operator"]

Array = NDArray[Any]
Map = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Operator:
    """y = forward(x), and adjoint with <forward(x), y> = <x, adjoint(y)>; `normal` where A^T A is cheaper than the pair.

    forward takes arrays of `in_shape` and returns `out_shape`, adjoint the other way round; both may take further leading
    axes where the operator says so. Raises FrameError for other shapes.
    """

    forward: Map
    adjoint: Map
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    normal: Map | None = None

    def __call__(self, x: Array) -> Array:
        """A x."""
        return self.forward(_shaped(x, self.in_shape, "operator"))

    @property
    def T(self) -> Operator:  # noqa: N802
        """The adjoint as an operator."""
        return Operator(self.adjoint, self.forward, self.out_shape, self.in_shape)

    def gram(self, x: Array) -> Array:
        """A^T A x, by `normal` where there is one."""
        x = _shaped(x, self.in_shape, "operator")
        return self.adjoint(self.forward(x)) if self.normal is None else self.normal(x)

    def __matmul__(self, other: Operator) -> Operator:
        """The composition: (A @ B) x = A(B x)."""
        if other.out_shape != self.in_shape:
            raise FrameError(f"operator: an output of shape {other.out_shape} does not enter one of {self.in_shape}")
        return Operator(
            lambda x: self.forward(other.forward(x)),
            lambda y: other.adjoint(self.adjoint(y)),
            other.in_shape,
            self.out_shape,
        )


def _shaped(x: Array, shape: tuple[int, ...], what: str) -> Array:
    x = np.asarray(x)
    if x.shape[x.ndim - len(shape) :] != shape:
        raise FrameError(f"{what}: got an array of shape {x.shape}, expected {shape}, with leading axes if any")
    return x
