"""What a network is given and what its answer means: noise units, a prefilter, an estimate and its log-variance.

    p      = prefilter(x)                       cheap, of the network's own input alone
    inputs = (x - p, asinh(p / 2))              x: stabilised data, noise of variance 1
    mean   = p + net(inputs)[:, :C]             an estimate of E[stabilise(y) | truth]
    log_variance = net(inputs)[:, C:]           where the network has that head

Raw stabilised values of bright stars (200 and more) ruin training; differences from a local mean do not. `Noise.unstabilise`
decodes the mean: it is the exact inverse of the expectation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from firstlight.errors import ModelError

__all__ = ["PREFILTERS", "REACH", "Estimate", "Prefilter", "estimate", "inputs"]

Prefilter = Callable[[Tensor], Tensor]
WINDOW = 9  # px, of the local mean


class Estimate(NamedTuple):
    """mean (B, C, Y, X), stabilised; log_variance alike, of the mean's error, None where the network has no such head."""

    mean: Tensor
    log_variance: Tensor | None


def _local_mean(x: Tensor) -> Tensor:
    """The mean over WINDOW px along each axis, of what lies inside; sums of shifted slices, ten times avg_pool2d's speed."""
    half = WINDOW // 2
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        pad = [0, 0] * (x.ndim - 1 - axis) + [half, half]
        padded = functional.pad(x, pad)
        total = padded.narrow(axis, 0, n).clone()
        for shift in range(1, WINDOW):
            total += padded.narrow(axis, shift, n)
        place = torch.arange(n, device=x.device)
        count = (place + half + 1).clamp(max=n) - (place - half).clamp(min=0)
        x = total / count.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1 - axis))
    return x


PREFILTERS: Mapping[str, Prefilter | None] = {"mean": _local_mean, "input": None, "zero": None}
REACH: Mapping[str, int] = {"mean": WINDOW // 2, "input": 0, "zero": 0}  # px, to be added to the network's halo


def inputs(prefilter: str, channels: int = 1) -> int:
    """Input channels of a network for data of `channels` channels."""
    return channels * (2 if _known(prefilter) == "mean" else 1)


def estimate(net: nn.Module, x: Tensor, prefilter: str = "mean") -> Estimate:
    """The network's estimate of stabilised data x (B, C, Y, X), float32.

    prefilter: "mean", a local mean, net(x - p, asinh(p / 2)) is the correction to it; "input", net(x) is the correction to
    the input; "zero", net(x) is the estimate. Raises ModelError for another prefilter or number of outputs.
    """
    rule = PREFILTERS[_known(prefilter)]
    p = x if prefilter == "input" else torch.zeros_like(x) if rule is None else rule(x)
    out = net(x if rule is None else torch.cat([x - p, torch.asinh(p / 2)], dim=1)).float()
    channels = x.shape[1]
    if out.shape[1] not in (channels, 2 * channels):
        raise ModelError(f"network: {out.shape[1]} outputs for {channels} channels, expected {channels} or {2 * channels}")
    log_variance = out[:, channels:].clamp(-12, 6) if out.shape[1] > channels else None
    return Estimate(p + out[:, :channels], log_variance)


def _known(prefilter: str) -> str:
    if prefilter not in PREFILTERS:
        raise ModelError(f"network: prefilter {prefilter!r}, expected one of {', '.join(PREFILTERS)}")
    return prefilter
