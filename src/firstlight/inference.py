"""Where a trained network runs: as fast as the machine allows, over images of any size, tiles equal to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from firstlight.denoiser import estimate
from firstlight.errors import ModelError
from firstlight.model_file import Model
from firstlight.tiles import blend, cut, plan

__all__ = ["fast_bf16", "predict", "ready"]

Array = NDArray[Any]
TILE = 1 << 20  # px seen at once: 160 bytes each in float32, and the halo costs little


def fast_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX); elsewhere bfloat16 is slower than float32."""
    try:
        known = torch.cpu.get_capabilities()  # torch 2.10 and newer
        return bool(known.get("avx512_bf16") or known.get("amx_bf16") or known.get("amx_tile"))
    except (AttributeError, RuntimeError):
        return any(bool(getattr(torch.cpu, name, bool)()) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


class _Half(nn.Module):
    """A network whose weights and activations are bfloat16, with float32 in and out."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = deepcopy(net).bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x.bfloat16()).float()
        return out


def ready(net: nn.Module, *, bf16: bool | None = None) -> nn.Module:
    """A copy of the network to predict with, as bfloat16 where `bf16`, or with None where the CPU is fast at it."""
    half = fast_bf16() if bf16 is None else bf16
    return (_Half(net) if half else deepcopy(net)).eval().requires_grad_(False)


def predict(model: Model, z: Array, *, net: nn.Module | None = None, tile: int = TILE) -> tuple[Array, Array | None]:
    """The estimate of z, float32 (C, Y, X) or (C, Z, Y, X) in the model's domain, and its log-variance, None without that head.

    net: `ready(model.net)`, to be made once for many images. tile: pixels that the network sees at once; results do not depend
    on it beyond rounding, since tiles overlap by the model's halo and start at multiples of its `multiple`.
    Raises ModelError for an image of other dimensions than the model's.
    """
    net = ready(model.net) if net is None else net
    if z.ndim != len(model.axes) + 1:
        raise ModelError(f"model: data of shape {z.shape}, expected channels and {model.axes}")
    sides = _sides(z.shape[1:], tile, model.halo, model.multiple)
    tiles = plan(z.shape[1:], sides, model.halo, model.multiple, model.multiple)
    found = ((t, _one(net, model, np.ascontiguousarray(cut(z, t), dtype=np.float32))) for t in tiles)
    out = blend(found, np.empty((2 * z.shape[0], *z.shape[1:]), np.float32))
    mean, log_variance = out[: z.shape[0]], out[z.shape[0] :]
    return mean, None if np.isnan(log_variance.flat[0]) else log_variance


def _sides(shape: Sequence[int], pixels: int, halo: int, multiple: int) -> tuple[int, ...]:
    """Sides [px] of equal tiles of at most about `pixels`: the longest axis is parted first, so that halos cost least."""
    parts = [1] * len(shape)
    while True:
        sides = [-(-(n + 2 * halo * (k - 1)) // (k * multiple)) * multiple for n, k in zip(shape, parts, strict=True)]
        sides = [s + multiple if k > 1 else s for s, k in zip(sides, parts, strict=True)]  # starts are rounded down
        open_axes = [i for i, s in enumerate(sides) if s > 4 * halo + 2 * multiple]
        if prod(sides) <= pixels or not open_axes:
            return tuple(sides)
        parts[max(open_axes, key=lambda i: sides[i])] += 1


def _one(net: nn.Module, model: Model, block: Array) -> Array:
    with torch.inference_mode():
        mean, log_variance = estimate(net, torch.from_numpy(block)[None], model.scaling["prefilter"])
        log_variance = torch.full_like(mean, torch.nan) if log_variance is None else log_variance
        return np.asarray(torch.cat([mean, log_variance], dim=1)[0].numpy())
