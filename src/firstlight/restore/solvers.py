"""Iterations on batches of slices: each a generator of (images, residual, relative change) for `driver.iterate`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.restore.driver import Iterates, Rays

__all__ = ["conjugate_gradients", "expectation", "landweber", "simultaneous", "weighted"]

Array = NDArray[Any]
ROUNDED = 1e-11  # of the first gradient's square: below it directions are made of rounding
LEAST = 1e-2  # of the mean of the data: line integrals below it divide as if they were it


def conjugate_gradients(rays: Rays, damping: float = 0.0) -> Iterates:
    """min |A x - b|^2 + damping |x|^2 through A^T A alone; Hestenes and Stiefel (1952)."""
    from firstlight.restore.iterative_kernels import dot, step_along

    x, r = rays.first(), rays.right()
    hp = np.empty_like(x)
    if rays.start != "zero":
        _gram(rays, x, damping, hp)
        r -= hp
    p, gamma = r.copy(), np.array([dot(a, a) for a in r])
    end = ROUNDED * gamma
    while True:
        _gram(rays, p, damping, hp)
        for i in range(len(x)):
            curvature = dot(p[i], hp[i])
            alpha = gamma[i] / curvature if curvature > 0 and gamma[i] > end[i] else 0.0
            new = step_along(x[i], r[i], p[i], hp[i], alpha)
            p[i] *= np.float32(new / gamma[i] if gamma[i] > 0 else 0.0)
            p[i] += r[i]
            gamma[i] = new
        yield x, None, None


def landweber(rays: Rays, step: float, sign: bool) -> Iterates:
    """x += step A^T (b - A x), x >= 0 with `sign`; Landweber (1951)."""
    x, c = rays.first(), rays.right()
    change = np.empty_like(x)
    while True:
        rays.gram(x, change)
        np.subtract(c, change, out=change)
        change *= np.float32(step)
        x += change
        if sign:
            np.maximum(x, 0, out=x)
        yield x, None, None


def simultaneous(rays: Rays, relaxation: float, sign: bool) -> Iterates:
    """SIRT: x += C A^T R (b - A x), R and C one over the sums of rows and columns; Gilbert (1972), Gregor and Benson (2008)."""
    x = rays.first()
    ones = np.ones((1, *x.shape[1:]), np.float32)
    rows = 1 / np.maximum(rays.forward(np.broadcast_to(ones, x.shape)), 1)  # a ray that misses the image sums to nothing
    columns = np.float32(relaxation) / np.maximum(rays.adjoint(np.ones_like(rays.data)), 1)
    residual = np.empty_like(rays.data)
    while True:
        np.subtract(rays.data, rays.forward(x, residual), out=residual)
        error = _squares(residual)
        residual *= rows
        change = rays.adjoint(residual)
        change *= columns
        x += change
        if sign:
            np.maximum(x, 0, out=x)
        yield x, _rms(error, residual.shape[0] * residual.shape[2]), None


def expectation(rays: Rays, subsets: int) -> Iterates:
    """MLEM: x *= A^T (b / A x) / A^T 1; Shepp and Vardi (1982). OSEM: on subsets of angles, Hudson and Larkin (1994)."""
    parts = [rays.subset(subsets, s) for s in range(subsets)] if subsets > 1 else [rays]
    sums = [np.maximum(p.adjoint(np.ones_like(p.data)), 1) for p in parts]
    x = np.maximum(rays.first(), 0)
    mean = np.mean(np.maximum(rays.data, 0), axis=(0, 2)) * rays.data.shape[2] / (np.pi / 4 * rays.grid.size**2)
    x += (np.float32(0.01 if x.any() else 1) * mean.astype(np.float32))[:, None, None]  # nothing grows where it is 0
    floor = (np.float32(LEAST) * np.mean(np.maximum(rays.data, 0), axis=(0, 2)))[None, :, None] + np.float32(1e-20)
    while True:
        error = np.zeros(len(x))
        for part, total in zip(parts, sums, strict=True):
            ratio = part.forward(x)
            error += _squares(part.data - ratio)
            np.maximum(ratio, floor, out=ratio)
            np.divide(np.maximum(part.data, 0), ratio, out=ratio)
            factor = part.adjoint(ratio)
            factor /= total
            x *= np.maximum(factor, np.float32(0.1), out=factor)  # the band-limited projector rings below 0
        yield x, _rms(error, rays.data.shape[0] * rays.data.shape[2]), None


def weighted(rays: Rays, weights: Array, damping: float) -> Iterates:
    """min sum w (A x - b)^2 + damping |x|^2, w (A, S, X) of mean 1, by CGLS through the pair; the residual is weighted too."""
    x = rays.first()
    residual = rays.data - rays.forward(x) if x.any() else rays.data.copy()
    r = rays.adjoint(weights * residual) - np.float32(damping) * x
    p, gamma, q = r.copy(), _norms(r), np.empty_like(residual)
    end = ROUNDED * gamma
    count = residual.shape[0] * residual.shape[2]
    while True:
        rays.forward(p, q)
        curvature = np.sum(weights * q * q, axis=(0, 2), dtype=np.float64) + damping * _norms(p)
        alpha = np.divide(gamma, curvature, out=np.zeros_like(gamma), where=(curvature > 0) & (gamma > end)).astype(np.float32)
        x += alpha[:, None, None] * p
        residual -= alpha[None, :, None] * q
        r = rays.adjoint(weights * residual) - np.float32(damping) * x
        new = _norms(r)
        p *= np.divide(new, gamma, out=np.zeros_like(new), where=gamma > 0).astype(np.float32)[:, None, None]
        p += r
        gamma = new
        np.multiply(residual, residual, out=q)
        q *= weights
        yield x, _rms(np.asarray(np.sum(q, axis=(0, 2), dtype=np.float64)), count), None


def _gram(rays: Rays, x: Array, damping: float, out: Array) -> None:
    rays.gram(x, out)
    if damping:
        out += np.float32(damping) * x


def _norms(x: Array) -> Array:
    return np.asarray(np.einsum("syx,syx->s", x, x, dtype=np.float64))


def _squares(y: Array) -> Array:
    """Sum of squares of each slice's projections (A, S, X)."""
    return np.asarray(np.einsum("asx,asx->s", y, y, dtype=np.float64))


def _rms(squares: Array, count: int) -> Array:
    return np.asarray(np.sqrt(squares / count))
