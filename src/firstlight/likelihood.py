"""How probable counts are, given their mean: Poisson-Gaussian and transmission likelihoods, their scores and prox.

Every function works pixel by pixel on torch tensors in the unit of the data. With the noise (a, b, offset, c, d) of
`firstlight.noise`, s = x - offset, v = a s + b + c s^2 + d, r = y - x, and in electrons K = hidden count, mu = s/a:

    exact    log sum_K Poisson(K | mu) Normal(y | offset + a K, b + d + c s^2)     score (E[K | y]/mu - 1) / a
    wls      -r^2 / (2 v), v frozen at the current estimate x                      score r / v
    gauss    -r^2 / (2 v) - log(2 pi v) / 2                                        score r/v + v' (r^2/v - 1) / (2 v)

`wls` is unbiased and within 2 % of exact above 10 e-; use `exact` below 5 e-. A score points towards the data: it is the
gradient of the log-likelihood, minus the gradient of `nll`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from firstlight.errors import FrameError
from firstlight.noise import Noise, spread

__all__ = ["Coefficients", "coefficients", "nll", "prox", "score", "transmission_nll", "transmission_score", "variance"]

Method = Literal["exact", "wls", "gauss"]
Form = Literal["transmission", "attenuation"]
METHODS = ("exact", "wls", "gauss")
TINY = 1e-9  # e-; the least mean count: the score has a finite limit at zero, log(mu) has not
CHUNK = 1 << 14  # pixels summed at once: about 160 nodes of 8 bytes each


class Coefficients(NamedTuple):
    """The noise as tensors that broadcast to the data: a, offset [unit], b, d [unit^2], c [1]."""

    a: Tensor
    b: Tensor
    offset: Tensor
    c: Tensor
    d: Tensor


def coefficients(noise: Noise | Coefficients, like: Tensor) -> Coefficients:
    """The noise in the dtype, device and shape of the tensor `like` (..., Y, X); a CFA cell is tiled.

    Raises FrameError where the noise does not fit, or where a is not positive.
    """
    if isinstance(noise, Coefficients):
        parts = noise
    else:
        each = (spread(p, like.shape) for p in (noise.a, noise.b, noise.offset, noise.c, noise.d))
        parts = Coefficients(*(torch.as_tensor(np.asarray(p), dtype=like.dtype, device=like.device) for p in each))
    if not bool((parts.a > 0).all()):
        raise FrameError(
            "likelihood: a is zero or negative, expected 1/gain > 0; flag those pixels and give them a positive gain"
        )
    return parts


def variance(x: Tensor, noise: Noise | Coefficients) -> Tensor:
    """Variance [unit^2] of a pixel of mean `x` [unit]: a s + b + c s^2 + d, no shot noise below the offset."""
    n = coefficients(noise, x)
    s = torch.clamp(x - n.offset, min=0)
    return n.a * s + n.b + n.c * s * s + n.d


def _positive(x: Tensor, n: Coefficients) -> Tensor:
    """The variance, of TINY e- at least: without read noise it vanishes at the offset, and 0/0 would spread."""
    return torch.maximum(variance(x, n), n.a * n.a * TINY)


def nll(y: Tensor, x: Tensor, noise: Noise | Coefficients, *, method: Method = "wls") -> Tensor:
    """Negative log-likelihood of data `y` [unit] given means `x` [unit], per pixel; differentiable in x.

    `wls` leaves out the constant log(2 pi v)/2 of its frozen variance. Raises FrameError for an unknown method.
    """
    n = _checked(method, x, noise)
    if method == "exact":
        return _exact_nll(y, x, n)
    v = _positive(x, n)
    if method == "wls":
        return (y - x) ** 2 / (2 * v.detach())
    return (y - x) ** 2 / (2 * v) + torch.log(2 * pi * v) / 2


def score(y: Tensor, x: Tensor, noise: Noise | Coefficients, *, method: Method = "wls") -> Tensor:
    """Gradient of log p(y | x) with respect to x [1/unit], per pixel; positive where the data lie above the mean."""
    n = _checked(method, x, noise)
    if method == "exact":
        return _exact_derivatives(y, x, n)[0]
    v, r = _positive(x, n), y - x
    if method == "wls":
        return r / v
    s = torch.clamp(x - n.offset, min=0)
    slope = torch.where(x > n.offset, n.a + 2 * n.c * s, torch.zeros_like(x))
    return r / v + slope * (r * r / v - 1) / (2 * v)


def prox(
    y: Tensor,
    x0: Tensor,
    step: Tensor | float,
    noise: Noise | Coefficients,
    *,
    response: Tensor | float = 1.0,
    method: Method = "wls",
    iterations: int = 30,
) -> Tensor:
    """argmin over x of (x - x0)^2 / (2 step) - log p(y | A x), A = diag(response): the proximal data step.

    `step` [unit^2] is the variance P of the denoiser's estimate x0. `wls` is x0 + P A (y - A x0)/(v + A P A), v at A x0;
    `exact` refines it by Newton steps (log p is concave in x, and the mean stays at or above the offset). Raises
    FrameError for `gauss`, whose log-likelihood is not concave.
    """
    step = torch.as_tensor(step, dtype=x0.dtype, device=x0.device)
    response = torch.as_tensor(response, dtype=x0.dtype, device=x0.device)
    mean = response * x0
    n = _checked(method, mean, noise)
    start = x0 + step * response * (y - mean) / (variance(mean, n) + response * step * response)
    if method == "wls":
        return start
    if method == "gauss":
        raise FrameError("likelihood: prox has no method 'gauss', whose log-likelihood is not concave; use 'wls' or 'exact'")
    if not bool((response > 0).all()):
        raise FrameError("likelihood: the exact prox needs a positive response; flag the other pixels and leave them out")
    x = start
    floor = (n.offset + n.a * TINY) / response
    for _ in range(iterations):
        x = torch.maximum(x, floor)
        first, second = _exact_derivatives(y, response * x, n)
        new = x - ((x - x0) / step - response * first) / (1 / step - response * response * second)
        # a Newton step that leaves the half-line goes nine tenths of the way to its end instead
        new = torch.where(new > floor, new, floor + 0.1 * (x - floor))
        done = bool(((new - x).abs() <= 1e-9 * torch.sqrt(step)).all())
        x = new
        if done:
            break
    return x


def transmission_nll(
    y: Tensor, x: Tensor, n0: Tensor | float, *, form: Form = "transmission", read_noise: float = 0.0
) -> Tensor:
    """Negative log-likelihood of counts `y` [e-] behind a sample: mean n0 x (transmission) or n0 exp(-x) (attenuation).

    `n0` [e-] are the counts without the sample, `read_noise` [e- RMS]: y + s^2 is taken as Poisson(mean + s^2). x may be
    zero or negative only as an attenuation. Raises FrameError for an unknown form.
    """
    mean, _ = _beam(x, n0, form)
    shifted, rate = y + read_noise**2, torch.clamp(mean, min=0) + read_noise**2
    return rate - torch.xlogy(shifted, rate) + torch.lgamma(torch.clamp(shifted, min=0) + 1)


def transmission_score(
    y: Tensor, x: Tensor, n0: Tensor | float, *, form: Form = "transmission", read_noise: float = 0.0
) -> Tensor:
    """Gradient of the transmission log-likelihood with respect to x: ((y + s^2)/(m + s^2) - 1) dm/dx."""
    mean, slope = _beam(x, n0, form)
    rate = torch.clamp(mean, min=TINY) + read_noise**2
    return ((y + read_noise**2) / rate - 1) * slope


def _beam(x: Tensor, n0: Tensor | float, form: Form) -> tuple[Tensor, Tensor]:
    n0 = torch.as_tensor(n0, dtype=x.dtype, device=x.device)
    if form == "transmission":
        return n0 * x, n0.expand_as(x)
    if form == "attenuation":
        mean = n0 * torch.exp(-x)
        return mean, -mean
    raise FrameError(f"likelihood: form {form!r}, expected 'transmission' or 'attenuation'")


def _checked(method: str, x: Tensor, noise: Noise | Coefficients) -> Coefficients:
    if method not in METHODS:
        raise FrameError(f"likelihood: method {method!r}, expected one of {', '.join(METHODS)}")
    return coefficients(noise, x)


class _Window(NamedTuple):
    counts: Tensor  # (N, J) hidden counts K summed over, e-
    log_weight: Tensor  # (N, J) log of the stride, -inf where K < 0


def _electrons(y: Tensor, x: Tensor, n: Coefficients) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, mu and Gaussian variance in electrons, and a: flat float64 (lgamma of 1e4 in float32 is wrong by 0.01)."""
    s = torch.clamp(x - n.offset, min=0)
    gauss = n.b + n.d + n.c * (s * s).detach()
    parts = ((y - n.offset) / n.a, torch.clamp((x - n.offset) / n.a, min=TINY), gauss / n.a**2, n.a)
    shape = np.broadcast_shapes(y.shape, x.shape)
    flat = [p.double().expand(shape).reshape(-1) for p in parts]
    return flat[0], flat[1], flat[2], flat[3]


def _window(y: Tensor, mu: Tensor, v: Tensor) -> _Window:
    """Integers about the posterior mode of K. Newton on log(mu/(K + 1/2)) + (y - K)/v = 0, width 1/sqrt(1/K + 1/v).

    Where the posterior is wide and far from zero the sum takes every h-th integer: a trapezium rule of step h <= sd/1.5,
    wrong by exp(-2 pi^2 1.5^2), far below rounding.
    """
    mode = torch.clamp(mu * (v + y) / (mu + v), min=0)
    for _ in range(12):
        mode = torch.clamp(mode + (torch.log(mu / (mode + 0.5)) + (y - mode) / v) / (1 / (mode + 0.5) + 1 / v), min=0)
    sd = 1 / torch.sqrt(1 / (mode + 1) + 1 / v)
    far = mode > 9 * sd + 8
    stride = torch.where(far, torch.clamp(torch.floor(sd / 1.5), min=1), torch.ones_like(sd))
    reach = int(torch.ceil((9 * sd + 8) / stride).max().item()) if sd.numel() else 1
    j = torch.arange(-reach, reach + 1, dtype=y.dtype, device=y.device)
    count = torch.round(mode)[:, None] + j * stride[:, None]
    weight = torch.where(count >= 0, torch.log(stride)[:, None], -torch.inf)
    return _Window(torch.clamp(count, min=0), weight)


def _log_terms(y: Tensor, mu: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        window = _window(y, mu, v)
    k = window.counts
    terms = torch.xlogy(k, mu[:, None]) - mu[:, None] - torch.lgamma(k + 1) - (y[:, None] - k) ** 2 / (2 * v[:, None])
    return terms + window.log_weight, k


def _in_chunks(function: Callable[..., Tensor], *parts: Tensor) -> Tensor:
    pieces = [function(*(p[i : i + CHUNK] for p in parts)) for i in range(0, max(parts[0].numel(), 1), CHUNK)]
    return torch.cat(pieces)


def _exact_nll(y: Tensor, x: Tensor, n: Coefficients) -> Tensor:
    def part(y: Tensor, mu: Tensor, v: Tensor, a: Tensor) -> Tensor:
        pure = v <= 0
        safe = torch.where(pure, torch.ones_like(v), v)
        terms, _ = _log_terms(y, mu, safe)
        mixed = torch.logsumexp(terms, dim=1) - torch.log(2 * pi * safe) / 2 - torch.log(a)
        whole = torch.round(y)
        poisson = torch.xlogy(whole, mu) - mu - torch.lgamma(torch.clamp(whole, min=0) + 1)
        return -torch.where(pure, poisson.masked_fill(_impossible(y), -torch.inf), mixed)

    return _in_chunks(part, *_electrons(y, x, n)).reshape(np.broadcast_shapes(y.shape, x.shape)).to(x.dtype)


def _impossible(y: Tensor) -> Tensor:
    """Without read noise only whole, non-negative counts occur (to the rounding of float32 units)."""
    return (y < -0.01) | ((y - torch.round(y)).abs() > 0.01 + 1e-6 * y.abs())


def _exact_derivatives(y: Tensor, x: Tensor, n: Coefficients) -> tuple[Tensor, Tensor]:
    """First and second derivative of log p in x: (E[K]/mu - 1)/a and (Var[K] - E[K])/(mu a)^2, which is never positive."""

    def part(y: Tensor, mu: Tensor, v: Tensor, a: Tensor) -> Tensor:
        pure = v <= 0
        terms, k = _log_terms(y, mu, torch.where(pure, torch.ones_like(v), v))
        weight = torch.softmax(terms, dim=1)
        excess = (weight * (k - mu[:, None])).sum(1)
        spread_k = (weight * (k - mu[:, None]) ** 2).sum(1) - excess**2
        first = torch.where(pure, y - mu, excess) / mu
        second = (torch.where(pure, torch.zeros_like(mu), spread_k) - torch.where(pure, y, excess + mu)) / mu**2
        return torch.stack([first / a, torch.clamp(second, max=0) / a**2], dim=1)

    with torch.no_grad():
        out = _in_chunks(part, *_electrons(y, x, n)).to(x.dtype)
    shape = np.broadcast_shapes(y.shape, x.shape)
    return out[:, 0].reshape(shape), out[:, 1].reshape(shape)
