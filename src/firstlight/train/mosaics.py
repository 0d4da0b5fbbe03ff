"""Pictures as batches to learn demosaicking from: exposed, encoded and sampled by a mosaic.

Batches are functions of (seed, step). z is a mosaic (B, 1, Y, X), target its colours (B, 3, Y, X), sigma (B, 3, 1, 1) the noise
of each colour: encoded as `restore.encoding` does, or of document 4's U-Net linear light without noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from firstlight.errors import FrameError
from firstlight.geometry import Mosaic, Pattern
from firstlight.restore import lmmse
from firstlight.restore.packed import as_convolution
from firstlight.train.batches import Batch
from firstlight.train.pictures import Pool, drawn, light_of

__all__ = ["Bank", "Light", "MosaicBatches", "bank", "curved", "exposed", "masks"]

Array = NDArray[Any]
FULL = 60000.0  # e- at ISO 100
BANKS = 24  # exposures, from ISO 100 to 25 600
DARKEST = -6  # stops below full exposure: a scene at dusk keeps its contrast and loses its light


def masks(pattern: Pattern, side: int) -> Tensor:
    """1 where R, G and B lie, (1, 3, side, side) float32, from the pattern's first pixel on."""
    color = Mosaic(pattern).at((side, side))
    return torch.from_numpy(np.stack([color == k for k in range(3)]).astype(np.float32))[None]


@dataclass(frozen=True, eq=False)
class Bank:
    """An exposure's noise and the linear filters for it: common (a, b) and each colour's own [of white], sigma encoded."""

    a: float
    b: float
    own: tuple[tuple[float, float], ...]
    span: float
    sigma: tuple[float, float, float]


def bank(iso: float, rng: np.random.Generator) -> Bank:
    """A detector of 60 000 e- at ISO 100 and 2 to 4 e- of read noise, two thirds of them with white balance's gains."""
    full, read = FULL * 100 / iso, rng.uniform(2, 4)
    gains = np.array([rng.uniform(1, 2.5), 1, rng.uniform(1, 2.5)]) if rng.random() < 0.7 else np.ones(3)
    a, b = 1 / full, (read / full) ** 2
    own = tuple((float(g * a), float(g * g * b)) for g in gains)
    span = float(_root(torch.ones(()), a, b) - _root(torch.zeros(()), a, b))
    red, green, blue = (math.sqrt((p * 0.18 + q) / (a * 0.18 + b)) / span for p, q in own)
    return Bank(a, b, own, span, (red, green, blue))


def _root(light: Tensor, a: float, b: float) -> Tensor:
    return (2 / a) * torch.sqrt((a * light + 0.375 * a * a + b).clamp(min=0))


@dataclass(frozen=True, eq=False)
class Light:
    """What encodes pictures: banks of noise, None: linear light as it is. noisy: the share of steps with noise."""

    banks: tuple[Bank, ...] | None
    noisy: float = 0.5

    @staticmethod
    def encoded(seed: int, noisy: float = 0.5) -> Light:
        """Exposures from ISO 100 to 25 600."""
        rng = np.random.default_rng([seed, 1 << 42])
        return Light(tuple(bank(iso, rng) for iso in np.geomspace(100, 25600, BANKS)), noisy)

    def filters(self, cell: Array) -> dict[float, Tensor]:
        """The linear filters for each bank as a packed convolution's weights, by green's sigma as float32; 0: without noise."""
        found = {0.0: as_convolution(lmmse.filters(cell, (0.0, 0.0, 0.0))[0])}
        for one in (self.banks or ()) if self.noisy else ():
            found[float(np.float32(one.sigma[1]))] = as_convolution(lmmse.filters(cell, one.sigma)[0])
        return found


@dataclass(frozen=True, eq=False)
class MosaicBatches:
    """`batches(step)`: `batch` patches of `side` px, sampled by `pattern`; mix: other pools and the share of patches of each,
    which every batch has to within a patch.

    still: no augmentation by colour, no noise: what is judged. Raises FrameError where the shares leave nothing to the first.
    """

    pool: Pool
    pattern: Pattern
    light: Light
    side: int = 96
    batch: int = 12
    seed: int = 0
    mix: Mapping[str, tuple[Pool, float]] = field(default_factory=dict)
    still: bool = False

    def __post_init__(self) -> None:
        shares = [share for _, share in self.mix.values()]
        if any(not 0 < s < 1 for s in shares) or sum(shares) >= 1:
            raise FrameError(f"train demosaic: --mix shares {shares}, expected numbers above 0 that sum to less than 1")
        if self.batch < 1 or self.side < 16:
            raise FrameError(f"train demosaic: batch {self.batch}, patches of {self.side} px; expected 1 or more, 16 or more")

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        rng = np.random.default_rng([self.seed, step])
        pools = [self.pool, *(p for p, _ in self.mix.values())]
        shares = [share for _, share in self.mix.values()]
        ends = np.cumsum([1 - sum(shares), *shares[:-1]]) if shares else np.zeros(0)
        which = np.searchsorted(ends, (np.arange(self.batch) + rng.random()) / self.batch, side="right")
        recolor = 0.0 if self.still or self.light.banks is None else 0.5
        truth = torch.from_numpy(np.stack([drawn(pools[k], rng, self.side, recolor) for k in which]))
        return self._sampled(truth, rng)

    def per_epoch(self) -> int:
        """Steps in which as many pixels are seen as there are."""
        pixels = sum(p.shape[1] * p.shape[2] for p in self.pool.pictures)
        return max(1, int(pixels) // (self.batch * self.side**2))

    def _sampled(self, truth: Tensor, rng: np.random.Generator) -> Batch:
        where = masks(self.pattern, self.side)
        none = torch.zeros(len(truth), 3, 1, 1)
        if self.light.banks is None:
            truth = light_of(truth)
        elif not self.still and rng.random() < self.light.noisy:
            one = self.light.banks[int(rng.integers(len(self.light.banks)))]
            samples, truth = exposed(truth, one, where, rng)
            return Batch(samples, truth, sigma=torch.tensor(one.sigma)[None, :, None, None].expand(len(truth), 3, 1, 1))
        elif not self.still:
            truth = curved(truth, rng)
        return Batch((truth * where).sum(1, keepdim=True), truth, sigma=none)


def curved(truth: Tensor, rng: np.random.Generator) -> Tensor:
    """Encoded truth without noise: sRGB values, or square roots of light."""
    if rng.random() < 0.6:
        return truth
    toe = float(np.exp(rng.uniform(np.log(1e-5), np.log(3e-3))))
    found: Tensor = ((light_of(truth) + toe).clamp(min=0).sqrt() - toe**0.5) / ((1 + toe) ** 0.5 - toe**0.5)
    return found


def exposed(truth: Tensor, one: Bank, where: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Encoded noisy samples (B, 1, Y, X) and the encoded truth they are about, (B, 3, Y, X), of sRGB values."""
    dim = torch.from_numpy(np.exp2(rng.uniform(DARKEST, 0, (len(truth), 1, 1, 1))).astype(np.float32))
    light = light_of(truth).clamp(min=0) * dim
    mean = (light * where).sum(1, keepdim=True)
    a, b = ((where * torch.tensor([o[k] for o in one.own])[:, None, None]).sum(1, keepdim=True) for k in (0, 1))
    draws = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    samples = a * torch.poisson(mean / a, generator=draws) + torch.randn(mean.shape, generator=draws) * b.sqrt()
    return _toward(samples, a, b, one) / one.span, _expected(light, one) / one.span


def _expected(light: Tensor, one: Bank) -> Tensor:
    """The mean of encoded samples of `light`, whose noise is the common one, to second order."""
    q = one.a * light + 0.375 * one.a**2 + one.b
    found: Tensor = _root(light, one.a, one.b) - one.a / 4 * (one.a * light + one.b) * q**-1.5
    return found


def _toward(samples: Tensor, a: Tensor, b: Tensor, one: Bank) -> Tensor:
    """Stabilised with the common noise; what the colour's own larger noise lowers the mean by is given back."""
    q = (one.a * samples + 0.375 * one.a**2 + one.b).clamp(min=one.a**2 * 0.375 + one.b)
    extra = (a - one.a) * samples.clamp(min=0) + b - one.b
    found: Tensor = _root(samples, one.a, one.b) + one.a / 4 * extra * q**-1.5
    return found
