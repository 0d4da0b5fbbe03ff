"""Linear filters and a network over a mosaic packed by its pattern: each weight sees one phase.

Rows of cells flow through the network from the top, and each convolution keeps the two that it needs again: nothing is
computed twice, what is held at once fits a cache, and the answer is that of the whole image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from firstlight import cfa
from firstlight.geometry import Mosaic
from firstlight.inference import fast_bf16
from firstlight.nets.lean import FORMAT
from firstlight.nets.packed import span, within

__all__ = ["as_convolution", "demosaicked"]

Array = NDArray[Any]
BAND = 1 << 19  # px of the rows that are worked on at once


def as_convolution(weights: Array) -> Tensor:
    """Filters (3, side, side, block, block) as the weights (3 side^2, side^2, cells, cells) of a packed convolution."""
    side, cells = weights.shape[1], weights.shape[-1] // weights.shape[1]
    w = weights.reshape(3 * side * side, cells, side, cells, side).transpose(0, 2, 4, 1, 3)
    return torch.from_numpy(np.ascontiguousarray(w.reshape(3 * side * side, side * side, cells, cells), dtype=np.float32))


def demosaicked(
    samples: Array,
    mosaic: Mosaic,
    weights: Array,
    sigma: tuple[float, float, float],
    *,
    net: nn.Module | None = None,
    start: tuple[int, int] = (0, 0),
    bf16: bool | None = None,
) -> Array:
    """Encoded colours (3, Y, X) float32 of encoded samples (Y, X), by filters whose cell starts `start` px outside the image.

    net: a PackedNet whose correction is added, in bfloat16 where `bf16`, or with None where the CPU is fast at it. The image
    is extended by pixels of like colour.
    """
    kernel = as_convolution(weights).contiguous(memory_format=FORMAT[2])
    pack, ring = weights.shape[1], kernel.shape[-1] // 2
    edge = ring * pack
    ends = tuple((-(n + s)) % pack for n, s in zip(samples.shape, start, strict=True))
    widths = tuple((edge + s, edge + e) for s, e in zip(start, ends, strict=True))
    wide, _ = cfa.extend(samples, mosaic, (widths[0], widths[1]))
    rows = wide.shape[0] // pack - 2 * ring
    band = max(1, BAND // (wide.shape[1] * pack))
    out, done = np.empty((3, *samples.shape), dtype=np.float32), 0
    half = bool(net is not None and (fast_bf16() if bf16 is None else bf16))
    with torch.inference_mode():
        correct = None if net is None else _Correction(net, sigma, torch.bfloat16 if half else torch.float32)
        for top in range(0, rows, band):
            high = min(rows, top + band)
            part = torch.from_numpy(wide[top * pack : (high + 2 * ring) * pack])[None, None]
            folded = functional.pixel_unshuffle(part, pack).contiguous(memory_format=FORMAT[2])
            found = functional.conv2d(folded, kernel)
            if correct is not None:
                found = correct(folded, found, last=high == rows)
            if found.shape[2]:
                _put(out, functional.pixel_shuffle(found, pack)[0], done * pack, start)
            done += found.shape[2]
    return out


class _Rows:
    """A 3 x 3 convolution that is fed rows (1, C, rows, X) from the top down; its answer lags behind by one row."""

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        self.weight = conv.weight.detach().to(dtype).contiguous(memory_format=FORMAT[2])
        self.kept: Tensor | None = None

    def __call__(self, x: Tensor, *, last: bool) -> Tensor:
        # zeros around the image, as padding=1 has them; one tensor of another memory format would turn all
        edge = x.new_zeros((1, 1, x.shape[3], x.shape[1])).permute(0, 3, 1, 2)
        x = torch.cat([edge if self.kept is None else self.kept, x, *([edge] if last else [])], dim=2)
        self.kept = x[:, :, -2:].clone()
        if x.shape[2] < 3:
            return x.new_empty((1, self.weight.shape[0], 0, x.shape[3]))
        return functional.conv2d(x, self.weight, padding=(0, 1))


class _Correction:
    """A PackedNet that is fed rows of cells from the top down: `base` comes back with its correction, some rows later."""

    def __init__(self, net: nn.Module, sigma: tuple[float, float, float], dtype: torch.dtype) -> None:
        self.net, self.sigma, self.dtype = net, torch.tensor([sigma]), dtype
        self.first, self.last = _Rows(net.first, dtype), _Rows(net.last, dtype)  # type: ignore[arg-type]
        self.blocks = [(_Rows(b.first, dtype), _Rows(b.second, dtype)) for b in net.blocks]  # type: ignore[union-attr]
        self.waiting: list[Tensor | None] = [None] * (len(self.blocks) + 2)

    def __call__(self, folded: Tensor, base: Tensor, *, last: bool) -> Tensor:
        x = self.net.entering(folded, base, self.sigma).to(self.dtype)  # type: ignore[operator]
        x = self.first(x, last=last)
        for k, (first, second) in enumerate(self.blocks):
            late = second(first(x, last=last).relu_(), last=last)
            x = late.add_(self._waited(k, x, late.shape[2]))
        found = self.last(x, last=last).float()
        found = within(found, self._waited(-2, span(folded), found.shape[2]))
        return found.add_(self._waited(-1, base, found.shape[2]))

    def _waited(self, k: int, early: Tensor, rows: int) -> Tensor:
        """The first rows of those that came in at `k` so far; the others wait."""
        kept = self.waiting[k]
        early = early if kept is None else torch.cat([kept, early], dim=2)
        self.waiting[k] = early[:, :, rows:].clone()
        return early[:, :, :rows]


def _put(out: Array, found: Tensor, top: int, start: tuple[int, int]) -> None:
    """Rows of whole cells from `top` on, counted from `start` outside the image, into the image."""
    first = max(top - start[0], 0)
    last = min(top - start[0] + found.shape[1], out.shape[1])
    inside = found[:, first + start[0] - top : last + start[0] - top, start[1] : start[1] + out.shape[2]]
    out[:, first:last] = inside.numpy()
