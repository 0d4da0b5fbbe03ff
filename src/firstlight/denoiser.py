"""What a network is given and what its answer means: noise units, a prefilter, an estimate and its log-variance.

    p      = prefilter(x)                       cheap, of the network's own input alone
    inputs = (x - p, asinh(p / 2))              x: stabilised data, noise of variance 1
    mean   = p + net(inputs)[:, :C]             an estimate of E[stabilise(y) | truth]
    log_variance = net(inputs)[:, C:]           where the network has that head

or, for prefilter "limited", with u = x - p and p a Gaussian mean:

    inputs = (u / (1 + |u| / 10), asinh(p / 2))
    mean   = x + net(inputs)[:, :C]             the network says what is noise

Raw stabilised values of bright stars (200 and more) ruin training; differences from a local mean do not. `Noise.unstabilise`
decodes the mean: it is the exact inverse of the expectation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import exp
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from firstlight.errors import ModelError

__all__ = ["PREFILTERS", "REACH", "Estimate", "Prefilter", "estimate", "inputs"]

Prefilter = Callable[[Tensor], Tensor]
WINDOW = 9  # px, of the local mean
LIMIT = 10.0  # noise units: what stands out by more is signal anyway, and would drown the rest
SIGMA = 1.7  # px, of the Gaussian mean
_weights = [exp(-0.5 * (i / SIGMA) ** 2) for i in range(-5, 6)]
GAUSS = [w / sum(_weights) for w in _weights]


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


def _gaussian_mean(x: Tensor) -> Tensor:
    """A Gaussian mean over 11 px along each axis, the data mirrored at the border (repeated where it is smaller)."""
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        moved = x.movedim(axis, -1)
        rows = moved.reshape(-1, 1, n)
        padded = functional.pad(rows, (REACH["limited"],) * 2, mode="reflect" if n > REACH["limited"] else "replicate")
        out = sum(w * padded.narrow(2, i, n) for i, w in enumerate(GAUSS))
        x = torch.as_tensor(out).reshape(moved.shape).movedim(-1, axis)
    return x


PREFILTERS: Mapping[str, Prefilter | None] = {"mean": _local_mean, "limited": _gaussian_mean, "input": None, "zero": None}
REACH: Mapping[str, int] = {"mean": WINDOW // 2, "limited": 5, "input": 0, "zero": 0}  # px, to be added to the network's halo


def inputs(prefilter: str, channels: int = 1) -> int:
    """Input channels of a network for data of `channels` channels."""
    return channels * (2 if PREFILTERS[_known(prefilter)] is not None else 1)


def estimate(net: nn.Module, x: Tensor, prefilter: str = "mean") -> Estimate:
    """The network's estimate of stabilised data x (B, C, Y, X), float32.

    prefilter: "mean", a local mean, net(x - p, asinh(p / 2)) is the correction to it; "limited" as above; "input", net(x) is
    the correction to the input; "zero", net(x) is the estimate. Raises ModelError for another prefilter or number of outputs.
    """
    rule = PREFILTERS[_known(prefilter)]
    p = torch.zeros_like(x) if rule is None else rule(x)
    base = x if prefilter in ("input", "limited") else p
    out = net(x if rule is None else torch.cat([_difference(x - p, prefilter), torch.asinh(p / 2)], dim=1)).float()
    channels = x.shape[1]
    if out.shape[1] not in (channels, 2 * channels):
        raise ModelError(f"network: {out.shape[1]} outputs for {channels} channels, expected {channels} or {2 * channels}")
    log_variance = out[:, channels:].clamp(-12, 6) if out.shape[1] > channels else None
    return Estimate(base + out[:, :channels], log_variance)


def _difference(u: Tensor, prefilter: str) -> Tensor:
    return u / (1 + u.abs() / LIMIT) if prefilter == "limited" else u


def _known(prefilter: str) -> str:
    if prefilter not in PREFILTERS:
        raise ModelError(f"network: prefilter {prefilter!r}, expected one of {', '.join(PREFILTERS)}")
    return prefilter
