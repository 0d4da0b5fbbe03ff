"""Membranes and nuclei: what fluorescence microscopes look at besides filaments and spots."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["membranes", "nuclei"]

Array = NDArray[Any]


def membranes(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    size: float = 40.0,
    width: float = 1.3,
    peak: float = 50.0,
    background: float = 1.0,
) -> Array:
    """Walls (Gaussian sigma `width` [px]) between cells about `size` [px] wide over a background; the brightest is `peak` [e-].

    Cells are the Voronoi regions of random points seen through a smooth distortion; each cell lights its own side of a wall.
    """
    from scipy.ndimage import gaussian_filter
    from scipy.spatial import cKDTree

    def smooth(sigma: float) -> Array:
        field = gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
        return np.asarray(field / field.std())

    count = max(3, round(1.4 * (shape[0] + 2 * size) * (shape[1] + 2 * size) / size**2))
    seeds = rng.uniform(-size, np.array(shape) + size, (count, 2))
    y, x = np.mgrid[: shape[0], : shape[1]]
    place = np.stack([y + 0.12 * size * smooth(size / 2), x + 0.12 * size * smooth(size / 2)], axis=-1)
    distance, nearest = cKDTree(seeds).query(place, k=2)
    apart = np.linalg.norm(seeds[nearest[..., 0]] - seeds[nearest[..., 1]], axis=-1)
    wall = (distance[..., 1] ** 2 - distance[..., 0] ** 2) / (2 * apart)  # px, to the line halfway between the two points
    light = np.exp(-0.5 * (wall / width) ** 2) * rng.uniform(0.3, 1, count)[nearest[..., 0]] * (1 + 0.15 * smooth(2.0))
    return np.asarray(background + np.maximum(light, 0) * ((peak - background) / light.max()))


def nuclei(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    density: float = 5e-4,
    radius: float = 14.0,
    peak: float = 50.0,
    background: float = 1.5,
) -> Array:
    """Soft-edged ellipses about `radius` [px] (`density` per px), their chromatin mottled; the brightest is `peak` [e-]."""
    from scipy.ndimage import gaussian_filter

    mottle = 1 + 0.25 * gaussian_filter(rng.standard_normal(shape), 1.5) * 1.5 * np.sqrt(4 * np.pi)
    image = np.zeros(shape)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    for _ in range(max(1, round(density * image.size))):
        cy, cx, angle = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(0, np.pi)
        a, b = radius * rng.uniform(0.6, 1.3, 2)
        r = int(max(a, b)) + 6
        box = np.s_[max(0, int(cy) - r) : int(cy) + r, max(0, int(cx) - r) : int(cx) + r]
        v, u = y[box] - cy, x[box] - cx
        rho = np.hypot((u * np.cos(angle) + v * np.sin(angle)) / a, (v * np.cos(angle) - u * np.sin(angle)) / b)
        image[box] += rng.uniform(0.3, 1) / (1 + np.exp((rho - 1) * min(a, b) / 0.9))
    image *= np.maximum(mottle, 0.1)
    return np.asarray(background + image * ((peak - background) / image.max()))
