"""The lean U-Net: pixel-unshuffle, three levels of bias-free residual blocks, pixel-shuffle."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["LeanUNet"]

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
UP = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
FORMAT = {2: torch.channels_last, 3: torch.channels_last_3d}


class Block(nn.Module):
    """x + conv(relu(conv(x))), 3 px wide, without bias or normalisation."""

    def __init__(self, width: int, dims: int) -> None:
        super().__init__()
        self.first = CONV[dims](width, width, 3, padding=1, bias=False)
        self.second = CONV[dims](width, width, 3, padding=1, bias=False)
        nn.init.normal_(self.second.weight, std=0.1 * (width * 3**dims) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, [Z,] Y, X) to the same."""
        out: Tensor = x + self.second(torch.relu(self.first(x)))
        return out


class LeanUNet(nn.Module):
    """A U-Net that spends its arithmetic at half resolution and below.

    forward: (B, inputs, Y, X) to (B, outputs, Y, X), with dims=3 (B, inputs, Z, Y, X); lengths must be multiples of
    `multiple`. For a denoiser in noise units output 0 is the correction and output 1, where there are two, the log-variance.
    An output depends on inputs at most `halo` px away along each axis, exactly so where tiles start at multiples of
    `multiple`. Without biases and with ReLU it is homogeneous: net(k x) = k net(x) for k > 0 (Mohan, Kadkhodaie, Simoncelli &
    Fernandez-Granda 2020), so that it holds beyond the signal levels of its training. Pixel-unshuffle: Shi et al. 2016.
    """

    halo: int
    multiple: int

    def __init__(
        self, inputs: int = 1, outputs: int = 2, widths: Sequence[int] = (32, 64, 96), unshuffle: int = 2, dims: int = 2
    ) -> None:
        super().__init__()
        if dims not in CONV or min(inputs, outputs, unshuffle, len(widths), *widths) < 1:
            raise ValueError(
                f"LeanUNet: inputs {inputs}, outputs {outputs}, widths {tuple(widths)}, unshuffle {unshuffle}, dims {dims}; "
                "expected positive numbers and dims 2 or 3"
            )
        conv, up, fold = CONV[dims], UP[dims], unshuffle**dims
        deeper = list(pairwise(widths))
        self.unshuffle, self.dims = unshuffle, dims
        self.first = conv(inputs * fold, widths[0], 3, padding=1, bias=False)
        self.encode = nn.ModuleList(Block(w, dims) for w in widths)
        self.down = nn.ModuleList(conv(a, b, 2, stride=2, bias=False) for a, b in deeper)
        self.up = nn.ModuleList(up(b, a, 2, stride=2, bias=False) for a, b in deeper)
        self.decode = nn.ModuleList(Block(w, dims) for w in widths[:-1])
        self.last = conv(widths[0], outputs * fold, 3, padding=1, bias=False)
        nn.init.normal_(self.last.weight, std=0.1 * (widths[0] * 3**dims) ** -0.5)
        self.multiple = unshuffle * 2 ** len(deeper)
        self.halo = _halo(len(deeper), unshuffle)
        for weight in self.parameters():
            weight.data = weight.data.contiguous(memory_format=FORMAT[dims])

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, [Z,] Y, X) to (B, outputs, [Z,] Y, X)."""
        x = self.first(_fold(x, self.unshuffle).contiguous(memory_format=FORMAT[self.dims]))
        skips = []
        for block, down in zip(self.encode, self.down, strict=False):
            skips.append(block(x))
            x = down(skips[-1])
        x = self.encode[-1](x)
        for block, up, skip in zip(reversed(self.decode), reversed(self.up), reversed(skips), strict=True):
            x = block(up(x) + skip)
        return _unfold(self.last(x), self.unshuffle)


def _fold(x: Tensor, k: int) -> Tensor:
    """(B, C, n0, n1, ...) to (B, C k^d, n0 / k, n1 / k, ...)."""
    (b, c), n = x.shape[:2], x.shape[2:]
    d = len(n)
    x = x.reshape(b, c, *(m for s in n for m in (s // k, k)))
    order = [0, 1, *range(3, 2 * d + 2, 2), *range(2, 2 * d + 2, 2)]
    return x.permute(order).reshape(b, c * k**d, *(s // k for s in n))


def _unfold(x: Tensor, k: int) -> Tensor:
    """The inverse of `_fold`."""
    (b, c), n = x.shape[:2], x.shape[2:]
    d = len(n)
    x = x.reshape(b, c // k**d, *[k] * d, *n)
    order = [0, 1, *(i for j in range(d) for i in (2 + d + j, 2 + j))]
    return x.permute(order).reshape(b, c // k**d, *(s * k for s in n))


def _halo(depth: int, unshuffle: int) -> int:
    """The farthest input, in px along an axis, that any output depends on: intervals followed back through the widest path."""
    worst = 0
    for pixel in range(unshuffle * 2**depth):
        low = high = pixel // unshuffle
        low, high = low - 1, high + 1  # last
        for _ in range(depth):  # a block, then up
            low, high = (low - 2) // 2, (high + 2) // 2
        low, high = low - 2, high + 2  # the deepest block
        for _ in range(depth):  # down, then a block
            low, high = 2 * low - 2, 2 * high + 1 + 2
        low, high = (low - 1) * unshuffle, (high + 2) * unshuffle - 1  # first
        worst = max(worst, pixel - low, high - pixel)
    return worst
