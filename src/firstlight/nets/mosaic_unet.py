"""The U-Net of the documented X-Trans pipeline: a mosaic and where its colours lie, to colours."""

from __future__ import annotations

from torch import Tensor, nn

from firstlight.nets.seed import SeedUNet

__all__ = ["MosaicUNet"]


class MosaicUNet(nn.Module):
    """Four levels and a bottleneck of 64 to 1024 channels, 3 x 3 convolutions with BatchNorm and ReLU, skips.

    forward: (B, 4, Y, X), the mosaic and the planes that are 1 where R, G and B lie, to R, G and B (B, 3, Y, X); lengths must
    be multiples of `multiple`. 31,038,339 parameters with base 64. `halo`: its receptive half-width [px].
    """

    halo: int = SeedUNet.halo
    multiple: int = SeedUNet.multiple

    def __init__(self, base: int = 64) -> None:
        super().__init__()
        self.body = SeedUNet(3, base, 4, nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4, Y, X) to (B, 3, Y, X)."""
        out: Tensor = self.body(x)
        return out
