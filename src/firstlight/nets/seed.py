"""The plain U-Net of the documented astronomy pipeline: four levels, SiLU, BatchNorm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["SeedUNet"]


class SeedUNet(nn.Module):
    """Encoder of four blocks with max pooling, bottleneck of 16 base channels, decoder of transposed convolutions with skips.

    forward: (B, inputs, Y, X), `channels` of them where None, to (B, channels, Y, X); lengths must be multiples of `multiple`.
    17,461,491 parameters with 3 channels and base 48 (Ronneberger, Fischer & Brox 2015, with SiLU and BatchNorm). `halo` is
    its receptive half-width [px].
    """

    halo: int = 107
    multiple: int = 16

    def __init__(self, channels: int = 3, base: int = 48, inputs: int | None = None, unit: type[nn.Module] = nn.SiLU) -> None:
        super().__init__()
        inputs = channels if inputs is None else inputs
        if min(channels, base, inputs) < 1:
            raise ValueError(f"SeedUNet: channels {channels}, base {base}, inputs {inputs}; expected positive numbers")
        widths = [base * 2**i for i in range(5)]
        self.encode = nn.ModuleList(_block(a, b, unit) for a, b in zip([inputs, *widths[:3]], widths[:4], strict=True))
        self.middle = _block(widths[3], widths[4], unit)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:4]))
        self.decode = nn.ModuleList(_block(2 * w, w, unit) for w in reversed(widths[:4]))
        self.last = nn.Conv2d(base, channels, 1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, Y, X) to (B, channels, Y, X)."""
        skips = []
        for block in self.encode:
            skips.append(block(x))
            x = self.pool(skips[-1])
        x = self.middle(x)
        for up, block, skip in zip(self.up, self.decode, reversed(skips), strict=True):
            x = block(torch.cat([up(x), skip], dim=1))
        out: Tensor = self.last(x)
        return out


def _block(inputs: int, outputs: int, unit: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        unit(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        unit(inplace=True),
    )
