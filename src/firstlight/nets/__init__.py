"""Networks as plain modules, one a file; a model's card can name nothing else."""

from __future__ import annotations

from typing import Any

from torch import nn

from firstlight.errors import ModelError
from firstlight.nets.lean import LeanUNet
from firstlight.nets.mosaic_unet import MosaicUNet
from firstlight.nets.packed import PackedNet
from firstlight.nets.seed import SeedUNet

__all__ = ["NETS", "LeanUNet", "MosaicUNet", "PackedNet", "SeedUNet", "build"]

NETS: dict[str, type[nn.Module]] = {"lean": LeanUNet, "mosaic-unet": MosaicUNet, "packed": PackedNet, "seed": SeedUNet}


def build(name: str, **config: Any) -> nn.Module:
    """The network `name` of NETS with this configuration, initialised at random.

    Raises ModelError for an unknown name or a configuration that the network does not take.
    """
    if name not in NETS:
        raise ModelError(f"net {name!r}, expected one of {', '.join(sorted(NETS))}; a newer firstlight may know it")
    try:
        return NETS[name](**config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"net {name!r} refuses the configuration {config}: {error}") from error
