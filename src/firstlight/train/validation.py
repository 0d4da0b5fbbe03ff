"""How good a network is on data that it has not learned from, without truth where the noise is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from firstlight.denoiser import estimate
from firstlight.errors import FrameError
from firstlight.train.batches import Batch
from firstlight.train.objectives import Objective

__all__ = ["Validation", "difference", "judged", "objective_risk", "r2r_risk", "summary", "target_risk"]

Array = NDArray[Any]
Validation = Callable[[nn.Module], Array]


def r2r_risk(
    net: nn.Module, batches: Sequence[Batch], *, alpha: float = 0.5, draws: int = 2, seed: int = 0, prefilter: str = "mean"
) -> Array:
    """Mean squared error of each patch's estimate [variances of the noise], float64 (n,): 1 for the noisy data, 0 at best.

        risk = mean |m(z + a s w) - (z - s w/a)|^2 - mean |s w/a|^2 - mean s^2,   w ~ N(0, 1)

    Unbiased for E |m(z + a s w) - E z|^2 where z has white noise of standard deviation s (1 but at a few electrons) and the
    network has not seen it (Pang et al., CVPR 2021), for a network that is given noise of variance (1 + a^2) s^2. Each draw is
    used with both signs of w, which cancels most of the target's own noise; the same seed gives every network the same w, so
    that differences are sharper still.
    """
    with judged(net):
        found = [_patch_risks(net, b, alpha, draws, seed + k, prefilter) for k, b in enumerate(batches)]
    return np.concatenate(found)


def _patch_risks(net: nn.Module, batch: Batch, alpha: float, draws: int, seed: int, prefilter: str) -> Array:
    rng = torch.Generator(batch.z.device).manual_seed(seed)
    where = torch.ones_like(batch.z) if batch.valid is None else batch.valid.to(batch.z.dtype)
    total = torch.zeros(len(batch.z), dtype=torch.float64, device=batch.z.device)
    for _ in range(draws):
        w = torch.randn(batch.z.shape, generator=rng, device=batch.z.device) * batch.spread()
        for sign in (1.0, -1.0):
            found = estimate(net, batch.z + sign * alpha * w, prefilter).mean
            # |m - z + w/a|^2 - |w/a|^2, w times s, whose expectation lacks z's own variance alone
            excess = (found - batch.z) * (found - batch.z + 2 * sign * w / alpha)
            total += (excess.double() * where).sum(dim=(1, 2, 3))
    pixels = where.sum(dim=(1, 2, 3)).double()
    own = (where * batch.spread() ** 2).sum(dim=(1, 2, 3)).double() / pixels
    return _numbers((total / (2 * draws * pixels) - own)[pixels > 0])


def target_risk(net: nn.Module, batches: Sequence[Batch], *, noise: float = 0.0, prefilter: str = "mean") -> Array:
    """Mean squared difference of each patch's estimate from its target less `noise` of its sigma^2, float64 (n,)."""
    found = []
    with judged(net):
        for b in batches:
            if b.target is None:
                raise FrameError("validation: patches without a target; judge by r2r_risk")
            where = torch.ones_like(b.z) if b.valid is None else b.valid.to(b.z.dtype)
            square = (estimate(net, b.z, prefilter).mean - b.target) ** 2 - noise * b.spread() ** 2
            pixels = where.sum(dim=(1, 2, 3))
            found.append(_numbers(((square * where).sum(dim=(1, 2, 3)) / pixels)[pixels > 0]))
    return np.concatenate(found)


def objective_risk(net: nn.Module, batches: Sequence[Batch], objective: Objective, *, seed: int = 0) -> Array:
    """The objective itself on each batch, float64 (n,), the same draws for every network: for noise that is not known."""
    with judged(net):
        found = [objective(net, b, torch.Generator(b.z.device).manual_seed(seed + k)) for k, b in enumerate(batches)]
    return _numbers(torch.stack(found))


def summary(figures: Array) -> tuple[float, float]:
    """Mean and its standard error."""
    if not figures.size or not np.all(np.isfinite(figures)):
        raise FrameError(
            "validation: no valid pixel is held out, or the estimate is not finite; lower the rate, check the flags"
        )
    error = float(np.std(figures, ddof=1) / np.sqrt(figures.size)) if figures.size > 1 else float("nan")
    return float(figures.mean()), error


def difference(new: Array, old: Array) -> tuple[float, float]:
    """Mean of new - old over the same patches and its standard error: below 0 the new network is better."""
    return summary(new - old)


def _numbers(values: torch.Tensor) -> Array:
    return np.asarray(values.detach().double().cpu().numpy())


@contextmanager
def judged(net: nn.Module) -> Iterator[None]:
    """The network in evaluation mode without gradients, and back as it was."""
    was = net.training
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        net.train(was)
