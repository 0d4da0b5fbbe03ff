"""What is minimised: short functions `(net, batch, rng) -> loss`, z = stabilised data, m = the estimate, s =
the standard deviation of z's noise, 1 but at a few electrons.

Networks with a log-variance head s learn it beside the mean, from the residual with the mean held fixed (its gradient does
not reach the mean's loss): 1/2 [ r^2 / (e^s + t) + log(e^s + t) ], r = m - target, t the target's own noise variance. Its
optimum is e^s = E[(m - truth)^2].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from firstlight.denoiser import Estimate, estimate
from firstlight.errors import FrameError
from firstlight.train.batches import Batch

__all__ = ["METHODS", "Method", "Objective", "blind", "masked_l2", "n2n", "n2v", "n2v2", "neighbour", "r2r", "supervised"]

Objective = Callable[[nn.Module, Batch, torch.Generator], Tensor]
HEAD = 0.1  # weight of the variance's loss: its gradient must not crowd the mean's out of shared layers


def _mean(values: Tensor, where: Tensor | None) -> Tensor:
    if where is None:
        return values.mean()
    return (values * where).sum() / where.sum().clamp(min=1)


def _loss(found: Estimate, target: Tensor, noise: Tensor | float, where: Tensor | None) -> Tensor:
    square = (found.mean - target) ** 2
    loss = _mean(square, where)
    if found.log_variance is None:
        return loss
    total = found.log_variance.exp() + noise
    return loss + HEAD * _mean(0.5 * (square.detach() / total + total.log()), where)


def _randn(like: Tensor, rng: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=rng, device=like.device, dtype=like.dtype)


def _target(batch: Batch) -> Tensor:
    if batch.target is None:
        raise FrameError(
            "training: this objective needs a target for every tile, and there is none; take n2v, neighbour or r2r"
        )
    return batch.target


def supervised(net: nn.Module, batch: Batch, rng: torch.Generator, *, prefilter: str = "mean") -> Tensor:
    """E |m(z) - E[stabilise(y) | truth]|^2 against simulated or long-exposure truth."""
    return _loss(estimate(net, batch.z, prefilter), _target(batch), 0.0, batch.valid)


def n2n(net: nn.Module, batch: Batch, rng: torch.Generator, *, prefilter: str = "mean") -> Tensor:
    """E |m(z) - z'|^2 = E |m(z) - truth|^2 + 1, z' a second exposure; Lehtinen et al., ICML 2018."""
    return _loss(estimate(net, batch.z, prefilter), _target(batch), batch.spread() ** 2, batch.valid)


def r2r(net: nn.Module, batch: Batch, rng: torch.Generator, *, alpha: float = 1.0, prefilter: str = "mean") -> Tensor:
    """E |m(z + a s w) - (z - s w/a)|^2 = E |m(z + a s w) - truth|^2 + s^2 (1 + 1/a^2), w ~ N(0, 1); Pang et al., CVPR 2021.

    The two recorrupted images have independent noise, because Cov(e + a s w, e - s w/a) = s^2 - s^2 = 0 where z has noise e
    of standard deviation s: 1 but at a few electrons, where taking it for 1 would leave noise behind or take signal off.
    Small a: input nearly as noisy as the data, target very noisy; large a keeps the network from learning the noise by heart.
    """
    w = _randn(batch.z, rng) * batch.spread()
    found = estimate(net, batch.z + alpha * w, prefilter)
    return _loss(found, batch.z - w / alpha, batch.spread() ** 2 * (1 + 1 / alpha**2), batch.valid)


def n2v(
    net: nn.Module,
    batch: Batch,
    rng: torch.Generator,
    *,
    share: float = 0.01,
    hole: int = 1,
    prefilter: str = "mean",
) -> Tensor:
    """E |m(x)_i - z_i|^2 over masked pixels i alone, x = z with them replaced by a neighbour; Krull et al., CVPR 2019."""
    x, masked = blind(batch.z, rng, share=share, hole=hole)
    return _loss(estimate(net, x, prefilter), batch.z, batch.spread() ** 2, _both(masked, batch.valid))


def n2v2(
    net: nn.Module,
    batch: Batch,
    rng: torch.Generator,
    *,
    share: float = 0.01,
    hole: int = 1,
    prefilter: str = "mean",
) -> Tensor:
    """n2v with the median of the neighbourhood, centre left out, as replacement; Hoeck et al., ECCV workshops 2022."""
    x, masked = blind(batch.z, rng, share=share, hole=hole, median=True)
    return _loss(estimate(net, x, prefilter), batch.z, batch.spread() ** 2, _both(masked, batch.valid))


def _both(masked: Tensor, valid: Tensor | None) -> Tensor:
    return masked if valid is None else masked & valid


def blind(
    z: Tensor, rng: torch.Generator, *, share: float = 0.01, hole: int = 1, median: bool = False
) -> tuple[Tensor, Tensor]:
    """z (B, C, Y, X) with holes filled from outside every hole, and the bool mask of the holes' centres.

    One centre in each cell of a grid, at random; hole: odd width [px] of what is replaced around it, wider than 1 px where
    noise correlates. A replacement is a random neighbour (or their median) within two pixels of the hole that lies in no
    hole: x depends on no masked pixel, and so does the network's output. Raises FrameError for a hole that is not odd.
    """
    if hole < 1 or hole % 2 == 0 or not 0 < share < 1:
        raise FrameError(f"n2v: hole {hole}, share {share}; expected an odd number of pixels, and a share between 0 and 1")
    b, _, height, width = z.shape
    cell = max(round(share**-0.5), 2 * hole + 3)  # below that, other holes might surround one
    rows, cols = -(-height // cell), -(-width // cell)
    at = torch.randint(cell, (2, b, rows, cols), generator=rng, device=z.device)
    y = at[0] + cell * torch.arange(rows, device=z.device)[:, None]
    x = at[1] + cell * torch.arange(cols, device=z.device)
    n = torch.arange(b, device=z.device)[:, None, None].expand_as(y)
    inside = (y < height) & (x < width)
    n, y, x = n[inside], y[inside], x[inside]
    centres = torch.zeros((b, height, width), dtype=torch.bool, device=z.device)
    centres[n, y, x] = True
    own = _around(hole // 2, z.device)
    holes = torch.zeros_like(centres)
    holes[n[:, None], _reflect(y[:, None] + own[0], height), _reflect(x[:, None] + own[1], width)] = True
    ring = _around(hole // 2 + 2, z.device)
    ny, nx = _reflect(y[:, None] + ring[0], height), _reflect(x[:, None] + ring[1], width)
    free = ~holes[n[:, None], ny, nx]
    values, filled = z[n[:, None], :, ny, nx], z.clone()  # (N, ring, C)
    for k in range(own.shape[1]):  # each pixel of a hole has a draw of its own
        fy, fx = y + own[0, k], x + own[1, k]
        there = (fy >= 0) & (fy < height) & (fx >= 0) & (fx < width)
        new = _median(values, free) if median else _pick(values, free, rng)
        filled[n[there], :, fy[there], fx[there]] = new[there]
    return filled, centres[:, None].expand_as(z)


def _around(radius: int, device: torch.device) -> Tensor:
    r = torch.arange(-radius, radius + 1, device=device)
    return torch.stack(torch.meshgrid(r, r, indexing="ij")).reshape(2, -1)


def _reflect(i: Tensor, n: int) -> Tensor:
    return (n - 1 - (n - 1 - i.abs()).abs()).clamp(0, n - 1)


def _pick(values: Tensor, free: Tensor, rng: torch.Generator) -> Tensor:
    keys = torch.rand(free.shape, generator=rng, device=free.device).masked_fill(~free, -1)
    return values[torch.arange(len(keys), device=keys.device), keys.argmax(dim=1)]


def _median(values: Tensor, free: Tensor) -> Tensor:
    return torch.where(free[..., None], values, torch.nan).nanmedian(dim=1).values


def neighbour(net: nn.Module, batch: Batch, rng: torch.Generator, *, gamma: float = 2.0, prefilter: str = "mean") -> Tensor:
    """E |m(g1 z) - g2 z|^2 + gamma E |m(g1 z) - g2 z - (g1 m(z) - g2 m(z))|^2, two neighbours g1, g2 of each 2 x 2 cell.

    Huang et al., CVPR 2021, equation 12. The network is asked at half the sampling, and the second term corrects for the
    neighbours' difference in truth.
    """
    draw = torch.randint(8, batch.z[:, :1, ::2, ::2].shape, generator=rng, device=batch.z.device)
    first, second = _halves(batch.z, draw)
    valid = None if batch.valid is None else torch.logical_and(*_halves(batch.valid, draw))
    with torch.no_grad():
        whole_1, whole_2 = _halves(estimate(net, batch.z, prefilter).mean, draw)
    found = estimate(net, first, prefilter)
    bend = _mean((found.mean - second - (whole_1 - whole_2)) ** 2, valid)
    noise = 1.0 if batch.sigma is None else _halves(batch.sigma, draw)[1] ** 2
    return _loss(found, second, noise, valid) + gamma * bend


# which pixel of a 2 x 2 cell (0 1 / 2 3) becomes g1 and which of its side neighbours g2
PAIRS = ((0, 1), (1, 0), (0, 2), (2, 0), (1, 3), (3, 1), (2, 3), (3, 2))


def _halves(z: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
    if z.shape[-1] % 2 or z.shape[-2] % 2:
        raise FrameError(f"neighbour: patches of {z.shape[-2]} x {z.shape[-1]} px, expected even sides")
    cells = torch.stack([z[..., i::2, j::2] for i in (0, 1) for j in (0, 1)])
    table = torch.tensor(PAIRS, device=z.device)
    first, second = (cells.gather(0, table[draw, k].expand(cells.shape[1:])[None])[0] for k in (0, 1))
    return first, second


def masked_l2(net: nn.Module, batch: Batch, rng: torch.Generator, *, hole: int = 5, prefilter: str = "input") -> Tensor:
    """E |m(z)_i - z_i|^2 over all pixels i but those of one random hole, the input intact.

    The published "blind-spot" objective of the astronomy pipeline. Its optimum is the identity: it does not denoise.
    """
    b, _, height, width = batch.z.shape
    if not 1 <= hole < min(height, width):
        raise FrameError(f"masked_l2: hole {hole}, expected at least 1 px and less than a patch's side")
    y, x = (torch.randint(n - hole + 1, (b, 1, 1, 1), generator=rng, device=batch.z.device) for n in (height, width))
    row = torch.arange(height, device=batch.z.device)[:, None]
    col = torch.arange(width, device=batch.z.device)
    seen = ~((row >= y) & (row < y + hole) & (col >= x) & (col < x + hole)).expand_as(batch.z)
    return _loss(estimate(net, batch.z, prefilter), batch.z, batch.spread() ** 2, _both(seen, batch.valid))


@dataclass(frozen=True)
class Method:
    """An objective; whether it takes noise to be white, needs targets, a noise model or truth; what a user must be told."""

    objective: Callable[..., Tensor]
    white: bool = True
    target: bool = False
    noise: bool = False
    hole: bool = False
    clean: bool = False
    warning: str | None = None


IDENTITY = (
    "masked-l2 is taken where the network saw its input, so that its optimum is the identity: it returns the noisy image; "
    "n2v is the same idea done right"
)
METHODS: Mapping[str, Method] = {
    "n2v": Method(n2v, hole=True),
    "n2v2": Method(n2v2, hole=True),
    "neighbour": Method(neighbour),
    "r2r": Method(r2r, noise=True),
    "n2n": Method(n2n, white=False, target=True, noise=True),
    "supervised": Method(supervised, white=False, target=True, noise=True, clean=True),
    "masked-l2": Method(masked_l2, white=False, hole=True, warning=IDENTITY),
}
