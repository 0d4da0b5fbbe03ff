"""Gridding: exact against analytic line integrals, an adjoint that is one, and nothing that leaks between slices."""

from __future__ import annotations

import numpy as np
import pytest

from firstlight.errors import FrameError
from firstlight.operators import Gridding, radon, radon_line
from firstlight.operators.ramp import angle_weights, response


def blob(angles, columns, center, x, y, sigma):
    """Line integrals (A, X) of a Gaussian of height 1 at (x, y) from the rotation axis [px]."""
    s = np.arange(columns) - center
    s0 = x * np.cos(angles) + y * np.sin(angles)
    return np.sqrt(2 * np.pi) * sigma * np.exp(-((s - s0[:, None]) ** 2) / (2 * sigma**2))


def image(size, x, y, sigma):
    c = np.arange(size) - (size - 1) / 2
    return np.exp(-((c[None] - x) ** 2 + (c[:, None] - y) ** 2) / (2 * sigma**2))


def fbp(grid, sinograms, center, filter="ramp", **more):
    waves = grid.phases(center) * response(filter, grid.width) * angle_weights(grid.angles)[:, None]
    return grid.adjoint(sinograms, waves.astype(np.complex64), **more)


def disc(size, share=0.95):
    c = np.arange(size) - (size - 1) / 2
    return np.hypot(c[None], c[:, None]) < share * size / 2


@pytest.mark.parametrize(("columns", "size"), [(128, None), (129, None), (125, 125), (128, 100), (100, 129)])
@pytest.mark.parametrize("shift", [0.0, 5.3])
def test_a_smooth_object_comes_back_to_the_fifth_digit(columns, size, shift):
    angles = np.arange(200) * np.pi / 200
    center = (columns - 1) / 2 + shift
    grid = Gridding(angles, columns, size=size)
    p = blob(angles, columns, center, 9, -6, 7)[:, None].astype(np.float32)
    error = fbp(grid, p, center)[0] - image(grid.size, 9, -6, 7)
    within = disc(grid.size, 0.9 * min(columns - 2 * abs(shift), grid.size) / grid.size)
    assert np.sqrt(np.mean(error[within] ** 2)) < 2e-5
    assert np.abs(error[within]).max() < 2e-4


@pytest.mark.parametrize("n", [128, 135])
def test_a_disc_of_value_one_is_one(n):
    angles = np.arange(300) * np.pi / 300
    radius = 0.9 * n / 2
    s = np.arange(n) - (n - 1) / 2
    fine = s[:, None] + (np.arange(16) + 0.5) / 16 - 0.5
    row = (2 * np.sqrt(np.maximum(0, radius**2 - fine**2))).mean(1)
    p = np.broadcast_to(row, (300, 1, n)).astype(np.float32)
    out = fbp(Gridding(angles, n), p, (n - 1) / 2)[0]
    assert abs(out[n // 2 - 8 : n // 2 + 8, n // 2 - 8 : n // 2 + 8].mean() - 1) < 1e-3


@pytest.mark.parametrize("slices", [1, 2, 3, 5, 17])
def test_each_slice_is_its_own_whatever_travels_with_it(slices):
    rng = np.random.default_rng(1)
    angles = np.arange(40) * np.pi / 40
    p = rng.standard_normal((40, slices, 33)).astype(np.float32)
    grid = Gridding(angles, 33)
    together = fbp(grid, p, 16.2)
    for s in range(slices):
        alone = fbp(grid, p[:, s : s + 1], 16.2)[0]
        np.testing.assert_allclose(together[s], alone, atol=2e-6)


def test_workers_and_workspaces_change_nothing():
    rng = np.random.default_rng(2)
    angles = np.arange(30) * np.pi / 30
    p = rng.standard_normal((30, 40, 24)).astype(np.float32)
    one = fbp(Gridding(angles, 24, workers=1, pairs=2), p, 11.5)
    many = Gridding(angles, 24, workers=3, pairs=2)
    for _ in range(2):
        np.testing.assert_array_equal(fbp(many, p, 11.5), one)


@pytest.mark.parametrize("filtered", [True, False])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("columns", "size", "slices"), [(32, 32, 3), (31, 40, 1), (40, 27, 16)])
def test_the_adjoint_is_one(filtered, turned, columns, size, slices):
    rng = np.random.default_rng(3)
    angles = rng.uniform(-4, 4, 25)
    grid = Gridding(angles, columns, size=size, filtered=filtered)
    waves = grid.phases(columns / 2 - 3.2, nyquist=0.0)
    turns = rng.uniform(-2, 2, slices) / grid.width if turned else None
    x = rng.standard_normal((slices, size, size)).astype(np.float32)
    y = rng.standard_normal((25, slices, columns)).astype(np.float32)
    left = np.vdot(grid.forward(x, waves, turns=turns).astype(float), y)
    right = np.vdot(x.astype(float), grid.adjoint(y, waves, turns=turns))
    size_of = np.linalg.norm(grid.forward(x, waves, turns=turns)) * np.linalg.norm(y)
    assert abs(left - right) < 3e-6 * size_of


def test_line_integrals_of_a_smooth_object():
    angles = np.linspace(0, np.pi, 50)
    grid = Gridding(angles, 128, filtered=False)
    p = grid.forward(image(128, 12, -20, 6)[None].astype(np.float32), grid.phases(60.0, nyquist=0.0))[:, 0]
    truth = blob(angles, 128, 60.0, 12, -20, 6)
    assert np.abs(p - truth).max() < 2e-3 * truth.max()
    assert np.sqrt(np.mean((p - truth) ** 2)) < 3e-4 * truth.max()


def test_centres_of_their_own():
    angles = np.arange(200) * np.pi / 200
    centers = np.array([60.0, 66.5, 63.2])
    p = np.stack([blob(angles, 128, c, 9, -6, 7) for c in centers], 1).astype(np.float32)
    grid = Gridding(angles, 128)
    out = fbp(grid, p, centers.mean(), turns=(centers - centers.mean()) / grid.width)
    assert np.abs(out - image(128, 9, -6, 7))[:, disc(128, 0.85)].max() < 2e-4


def test_a_projection_that_the_detector_cuts_is_continued():
    angles = np.arange(200) * np.pi / 200
    whole = 1.6 * 128 / 2
    s = np.arange(128) - 63.5
    p = np.broadcast_to(2 * np.sqrt(whole**2 - s**2), (200, 1, 128)).astype(np.float32)
    grid = Gridding(angles, 128)
    flat = disc(128, 0.8)
    spread_of = {edge: np.ptp(fbp(grid, p, 63.5, edge=edge)[0][flat]) for edge in (0, 4)}
    assert spread_of[4] < 0.4 * spread_of[0]


def test_what_is_not_finite_is_refused():
    p = np.zeros((10, 2, 16), np.float32)
    p[3, 1, 5] = np.nan
    grid = Gridding(np.arange(10) * 0.3, 16)
    with pytest.raises(FrameError, match="not finite"):
        fbp(grid, p, 7.5)


@pytest.mark.parametrize(
    ("angles", "expected"),
    [
        (np.arange(4) * np.pi / 4, [np.pi / 4] * 4),
        (np.arange(8) * np.pi / 4, [np.pi / 8] * 8),  # a full turn: opposite angles share
        (np.linspace(0, np.pi, 5), [np.pi / 8, np.pi / 4, np.pi / 4, np.pi / 4, np.pi / 8]),
        (np.arange(10) * 0.02, [0.02] * 10),  # a missing wedge
        ([0.3], [np.pi]),
    ],
)
def test_angle_weights(angles, expected):
    np.testing.assert_allclose(angle_weights(np.asarray(angles)), expected, rtol=1e-6)


@pytest.mark.parametrize("passes", [2, 3, 4])
def test_turns_repeated_with_jitter_cover_half_a_turn(passes):
    """As passes of an encoder that never stops at quite the same angle."""
    one = np.arange(50) * np.pi / 50
    angles = np.concatenate([one + 1e-6 * k for k in range(passes)])
    weights = angle_weights(angles)
    assert weights.sum() == pytest.approx(np.pi)
    np.testing.assert_allclose(weights.reshape(passes, -1).sum(axis=0), np.pi / 50, rtol=1e-3)


def test_repeated_turns_of_a_limited_arc_leave_the_wedge_out():
    one = np.arange(30) * np.pi / 60
    angles = np.concatenate([one + 1e-6 * k for k in range(3)])
    assert angle_weights(angles).sum() == pytest.approx(np.pi / 2, rel=1e-3)


@pytest.mark.parametrize(
    ("angles", "options", "message"),
    [
        (np.zeros((2, 3)), {}, "expected"),
        ([], {}, "expected"),
        ([0.0, np.nan], {}, "finite"),
        ([0.0, 1.0], {"center": np.nan}, "expected one finite number"),
        ([0.0, 1.0], {"center": [1.0, 2.0, 3.0], "slices": 2}, "expected one finite number"),
        ([0.0, 1.0], {"slices": 0}, "0 slices"),
    ],
)
def test_operators_refuse_what_they_cannot_use(angles, options, message):
    for make in (radon, radon_line):
        with pytest.raises(FrameError, match=message):
            make(angles, 10, **options)


@pytest.mark.parametrize("options", [{"pairs": 3}, {"width": 21}, {"width": 8}, {"workers": 0}])
def test_geometries_refused(options):
    with pytest.raises(FrameError, match="expected"):
        Gridding(np.zeros(2), 10, **options)


def test_no_slices_are_no_slices():
    grid = Gridding(np.zeros(2), 10, workers=2)
    assert grid.adjoint(np.zeros((2, 0, 10), np.float32), grid.phases(4.5)).shape == (0, 10, 10)
