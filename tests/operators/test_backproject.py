"""Plain backprojection: linear interpolation and its exact adjoint, whatever travels together; tilted axes against blobs."""

from __future__ import annotations

import numpy as np
import pytest

from firstlight.errors import FrameError
from firstlight.operators import lamino, radon_line
from firstlight.operators.backproject import backproject, filtered, inside

ANGLES = np.concatenate([np.linspace(-1, 7, 23), [0, np.pi / 4, np.pi / 2, np.pi]])


def by_numpy(q, angles, center, size):
    c = np.arange(size) - (size - 1) / 2
    out = np.zeros((size, size))
    for row, t in zip(q, angles, strict=True):
        u = c * np.cos(t) + c[:, None] * np.sin(t) + center
        out += np.interp(u, np.arange(row.size), row, left=0, right=0)
    return out


@pytest.mark.parametrize("slices", [1, 3, 4, 16, 19])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("columns", "size"), [(24, 24), (20, 37), (31, 12)])
def test_it_is_linear_interpolation(slices, shared, columns, size):
    rng = np.random.default_rng(1)
    q = rng.standard_normal((ANGLES.size, slices, columns)).astype(np.float32)
    centers = np.full(slices, 10.3) if shared else rng.uniform(8, 13, slices)
    out = backproject(q, ANGLES, centers, size, workers=2)
    for s in range(slices):
        expected = by_numpy(q[:, s], ANGLES, centers[s], size)
        differs = np.abs(out[s] - expected) > 1e-4
        assert differs.mean() < 0.01  # a pixel on the detector's very end may fall on either side
        assert np.abs(out[s] - expected)[~differs].max() < 2e-5


@pytest.mark.parametrize("slices", [1, 4, 18])
@pytest.mark.parametrize("center", [None, 7.3, "each"])
@pytest.mark.parametrize("size", [24, 41])
def test_the_line_projector_has_its_exact_adjoint(slices, center, size):
    rng = np.random.default_rng(2)
    center = rng.uniform(5, 20, slices) if center == "each" else center
    operator = radon_line(ANGLES, 24, center=center, size=size, slices=slices, workers=2)
    x = rng.standard_normal(operator.in_shape).astype(np.float32)
    y = rng.standard_normal(operator.out_shape).astype(np.float32)
    left, right = np.vdot(operator(x).astype(float), y), np.vdot(x.astype(float), operator.T(y))
    assert abs(left - right) < 1e-6 * np.linalg.norm(operator(x)) * np.linalg.norm(y)


def blobs(n, z, y, x, sigma):
    c = np.arange(n) - (n - 1) / 2
    return np.exp(-((c[:, None, None] - z) ** 2 + (c[:, None] - y) ** 2 + (c - x) ** 2) / (2 * sigma**2)).astype(np.float32)


def shadow(angles, rows, columns, tilt, row, center, z, y, x, sigma):
    """Line integrals (A, Y, X) of a Gaussian of height 1: a Gaussian around the point on which its middle falls."""
    t = np.asarray(angles)[:, None, None]
    tilt = np.deg2rad(tilt)
    u = x * np.cos(t) + y * np.sin(t) + center
    v = z * np.sin(tilt) + (y * np.cos(t) - x * np.sin(t)) * np.cos(tilt) + row
    d2 = (np.arange(columns) - u) ** 2 + (np.arange(rows)[:, None] - v) ** 2
    return np.sqrt(2 * np.pi) * sigma * np.exp(-d2 / (2 * sigma**2))


@pytest.mark.parametrize("tilt", [35.0, 60.0, 90.0, 115.0])
def test_line_integrals_at_any_tilt(tilt):
    angles = np.linspace(0, 2 * np.pi, 7)
    operator = lamino(angles, 44, 50, tilt=tilt, center=20.6, row=25.2, size=40, height=40, workers=2)
    found = operator(blobs(40, 5, -4, 7, 4.0))
    truth = shadow(angles, 50, 44, tilt, 25.2, 20.6, 5, -4, 7, 4.0)
    # Interpolation blurs by 1/6 px^2 along each axis, and voxels on pixels make a moire (De Man and Basu 2004).
    assert np.abs(found - truth).max() < 0.04 * truth.max()
    assert np.sqrt(np.mean((found - truth) ** 2)) < 0.003 * truth.max()
    assert found.sum() == pytest.approx(truth.sum(), rel=1e-3)


@pytest.mark.parametrize("tilt", [50.0, 90.0, 100.0])
@pytest.mark.parametrize(("rows", "height"), [(9, 12), (1, 3)])
def test_the_tilted_projector_has_its_exact_adjoint(tilt, rows, height):
    rng = np.random.default_rng(3)
    operator = lamino(ANGLES, 14, rows, tilt=tilt, center=6.2, size=17, height=height, workers=2)
    x = rng.standard_normal(operator.in_shape).astype(np.float32)
    y = rng.standard_normal(operator.out_shape).astype(np.float32)
    left, right = np.vdot(operator(x).astype(float), y), np.vdot(x.astype(float), operator.T(y))
    assert abs(left - right) < 1e-6 * np.linalg.norm(x) * np.linalg.norm(operator.T(y))


def test_at_90_degrees_the_axis_is_that_of_a_tomogram():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((5, 20, 20)).astype(np.float32)
    tilted, plain = lamino(ANGLES, 20, 5, tilt=90.0, center=9.2), radon_line(ANGLES, 20, center=9.2, slices=5)
    np.testing.assert_allclose(tilted(x), plain(x), atol=1e-4)
    y = plain(x)
    np.testing.assert_allclose(tilted.T(y), plain.T(y), atol=2e-6 * np.abs(plain.T(y)).max())


@pytest.mark.parametrize("start", [-3.0, 0.0, 5.0, 40.0])
@pytest.mark.parametrize("step", [-1.0, -0.3, -1e-5, 0.0, 1e-17, 0.7, 1.0])
def test_inside(start, step):
    first, stop = inside(start, step, 50, 20.0)
    u = start + np.arange(50) * step
    np.testing.assert_array_equal(np.arange(first, stop), np.flatnonzero((u >= 0) & (u <= 20)))


@pytest.mark.parametrize("tilt", [0.0, 180.0, -30.0, np.nan])
def test_tilts_that_are_none(tilt):
    with pytest.raises(FrameError, match="between 0 and 180"):
        lamino(ANGLES, 10, 5, tilt=tilt)


def test_shapes_that_are_none():
    with pytest.raises(FrameError, match="expected at least"):
        lamino(ANGLES, 1, 5, tilt=80)
    with pytest.raises(FrameError, match="expected at least"):
        radon_line([], 10)


def test_what_is_not_finite_is_refused():
    p = np.ones((4, 2, 8), np.float32)
    p[1, 1, 3] = np.nan
    with pytest.raises(FrameError, match="not finite"):
        filtered(p, "ramp")
