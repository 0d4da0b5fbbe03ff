"""A mosaic through document 4's U-Net, in tiles that start on its pattern and on its coarsest level."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, lcm
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from firstlight import cfa
from firstlight.geometry import Mosaic
from firstlight.tiles import Tile, blend, cut, plan

__all__ = ["through_unet"]

Array = NDArray[Any]
TILE, DOCUMENTED = 576, 288  # px of a side
OVERLAP = 48  # px of the documented blend, its weights 1/48 to 1: never 0, so that no edge is black


def through_unet(
    samples: Array, mosaic: Mosaic, net: nn.Module, *, start: tuple[int, int] = (0, 0), documented: bool = False
) -> Array:
    """Colours (3, Y, X) float32 of samples (Y, X) by a MosaicUNet whose pattern starts `start` px outside the image.

    The image is extended by pixels of like colour as far as the network sees, and tiles overlap by as much: they equal the
    whole. documented: tiles of 288 px blended linearly over 48 px instead, as published, which leaves seams.
    """
    multiple = int(net.multiple)  # type: ignore[arg-type]
    step = lcm(multiple, *mosaic.period)
    halo = OVERLAP // 2 if documented else int(net.halo)  # type: ignore[arg-type]
    edge = 0 if documented else ceil(halo / step) * step
    widths = [(edge + s, edge + -(n + s) % step) for n, s in zip(samples.shape, start, strict=True)]
    wide, grown = cfa.extend(samples, mosaic, (widths[0], widths[1]))
    tile = DOCUMENTED if documented else ceil(TILE / step) * step
    tiles = plan(wide.shape, tile, halo, multiple, max(mosaic.period) if documented else step)
    wide = np.pad(wide, [(0, max(t.read.stop[k] for t in tiles) - n) for k, n in enumerate(wide.shape)])
    color = grown.at((wide.shape[0], wide.shape[1]))
    planes = np.concatenate([wide[None], color == np.arange(3)[:, None, None]]).astype(np.float32)
    out = np.empty((3, *wide.shape), dtype=np.float32)
    blend(_pieces(planes, tiles, net.eval()), out, taper=documented)
    return out[:, widths[0][0] :, widths[1][0] :][:, : samples.shape[0], : samples.shape[1]].copy()


def _pieces(planes: Array, tiles: list[Tile], net: nn.Module) -> Iterator[tuple[Tile, Array]]:
    with torch.inference_mode():
        for tile in tiles:
            yield tile, net(torch.from_numpy(np.ascontiguousarray(cut(planes, tile)))[None])[0].numpy()
