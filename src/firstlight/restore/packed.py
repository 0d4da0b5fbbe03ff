"""Linear filters and a network over a mosaic packed by its pattern: each weight sees one phase."""

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

__all__ = ["as_convolution", "demosaicked"]

Array = NDArray[Any]
BAND = 1 << 20  # px of a band of rows that the linear filters see at once
NET_BAND = 6 << 20  # px of one that a network sees: its halo costs more


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
    is extended by pixels of like colour; bands of rows overlap by what a pixel depends on, so that they leave no seam.
    """
    kernel = as_convolution(weights)
    pack, ring = weights.shape[1], kernel.shape[-1] // 2
    edge = ring * pack
    ends = tuple((-(n + s)) % pack for n, s in zip(samples.shape, start, strict=True))
    widths = tuple((edge + s, edge + e) for s, e in zip(start, ends, strict=True))
    wide, _ = cfa.extend(samples, mosaic, (widths[0], widths[1]))
    reach = 0 if net is None else int(net.cells)  # type: ignore[arg-type]
    rows = wide.shape[0] // pack - 2 * ring
    band = max(1, (BAND if net is None else NET_BAND) // (wide.shape[1] * pack))
    out = np.empty((3, *samples.shape), dtype=np.float32)
    half = bool(net is not None and (fast_bf16() if bf16 is None else bf16))
    with torch.inference_mode():
        for top in range(0, rows, band):
            low, high = max(0, top - reach), min(rows, top + band + reach)
            part = torch.from_numpy(wide[low * pack : (high + 2 * ring) * pack])[None, None]
            found = _band(part, kernel, pack, sigma, net, half)
            _put(out, found[:, (top - low) * pack : (min(rows, top + band) - low) * pack], top * pack, start)
    return out


def _band(
    samples: Tensor, kernel: Tensor, pack: int, sigma: tuple[float, float, float], net: nn.Module | None, half: bool
) -> Tensor:
    folded = functional.pixel_unshuffle(samples, pack).contiguous(memory_format=torch.channels_last)
    base = functional.conv2d(folded, kernel.contiguous(memory_format=torch.channels_last))
    if net is not None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            base = base + net(folded, base, torch.tensor([sigma])).float()
    return functional.pixel_shuffle(base, pack)[0]


def _put(out: Array, found: Tensor, top: int, start: tuple[int, int]) -> None:
    """Rows of whole cells from `top` on, counted from `start` outside the image, into the image."""
    first = max(top - start[0], 0)
    last = min(top - start[0] + found.shape[1], out.shape[1])
    inside = found[:, first + start[0] - top : last + start[0] - top, start[1] : start[1] + out.shape[2]]
    out[:, first:last] = inside.numpy()
