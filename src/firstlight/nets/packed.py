"""Residual blocks on a packed mosaic: what is left over by the linear estimate, at the cost of a few linear filters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from firstlight.nets.lean import FORMAT, Block

__all__ = ["PackedNet", "span", "within"]

LEVEL = 0.2  # what the grey mean enters by: it is larger than all differences, and would drive every unit the same way


class PackedNet(nn.Module):
    """A correction to a linear estimate of colours, computed on cells of `pack` x `pack` pixels.

    forward: mosaic (B, pack^2, h + 2, w + 2) and base (B, 3 pack^2, h, w), packed by pixel-unshuffle (Shi et al. 2016), and
    sigma (B, 3), the noise of each colour, to a correction (B, 3 pack^2, h, w). On packed cells every weight sees one phase of
    the pattern (Gharbi, Chaurasia, Paris & Durand 2016 pack by 2). What enters is the difference from the grey mean of 3 x 3
    cells, that mean and sigma; without biases the net is homogeneous: a change of unit changes nothing (Mohan et al. 2020).
    No correction is larger than what its surroundings span: where all is flat there is none. A correction depends on cells at
    most `cells` away, `halo` px.
    """

    def __init__(self, pack: int = 6, width: int = 64, depth: int = 8) -> None:
        super().__init__()
        if min(pack, width, depth) < 1:
            raise ValueError(f"PackedNet: pack {pack}, width {width}, depth {depth}; expected positive numbers")
        self.pack = self.multiple = pack
        self.cells = 2 * depth + 2
        self.halo = (self.cells + 1) * pack - 1
        self.first = nn.Conv2d(4 * pack * pack + 4, width, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*(Block(width, 2) for _ in range(depth)))
        self.last = nn.Conv2d(width, 3 * pack * pack, 3, padding=1, bias=False)
        nn.init.normal_(self.last.weight, std=0.02 * (width * 9) ** -0.5)
        for weight in self.parameters():
            weight.data = weight.data.contiguous(memory_format=FORMAT[2])

    def forward(self, mosaic: Tensor, base: Tensor, sigma: Tensor) -> Tensor:
        """(B, pack^2, h + 2, w + 2), (B, 3 pack^2, h, w), (B, 3) to (B, 3 pack^2, h, w)."""
        found = self.last(self.blocks(self.first(self.entering(mosaic, base, sigma))))
        return within(found, span(mosaic))

    def entering(self, mosaic: Tensor, base: Tensor, sigma: Tensor) -> Tensor:
        """What the first convolution sees, (B, 4 pack^2 + 4, h, w): differences from grey, grey, sigma."""
        grey = functional.avg_pool2d(mosaic.mean(1, keepdim=True), 3, stride=1)
        noise = sigma[:, :, None, None].expand(-1, -1, *base.shape[2:])
        # one part of another memory format would turn all of them, six times as slow
        level = torch.cat([LEVEL * grey, noise], dim=1).contiguous(memory_format=FORMAT[2])
        x = torch.cat([base - grey, mosaic[:, :, 1:-1, 1:-1] - grey, level], dim=1)
        return x.contiguous(memory_format=FORMAT[2])


def span(mosaic: Tensor) -> Tensor:
    """How far samples of like phase differ within 3 x 3 cells, at most: (B, pack^2, h + 2, w + 2) to (B, 1, h, w)."""
    highest, lowest = functional.max_pool2d(mosaic, 3, stride=1), -functional.max_pool2d(-mosaic, 3, stride=1)
    return (highest - lowest).amax(1, keepdim=True)


def within(correction: Tensor, limit: Tensor) -> Tensor:
    """No more than the limit, up or down."""
    return torch.maximum(torch.minimum(correction, limit), -limit)
