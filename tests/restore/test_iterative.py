"""Iterative reconstruction: against dense algebra through the operator's own matrix, by property, and on noise."""

from __future__ import annotations

import numpy as np
import pytest

from firstlight import restore
from firstlight.box import Box
from firstlight.errors import FrameError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.noise import Noise, Unmodelled
from firstlight.operators import radon
from firstlight.restore import driver
from firstlight.simulate import Ellipse, phantom, projections

N, A = 16, 24
ANGLES = np.arange(A) * np.pi / A
BODY = [Ellipse(0.05, 0.5, -0.3, 5.5, 4.2, 0.4), Ellipse(0.04, -1.5, 1.0, 1.5, 2.0)]
STEPS = [restore.cgls, restore.landweber, restore.tikhonov, restore.sirt, restore.mlem, restore.osem, restore.least_squares]
STEPS += [restore.total_variation]
NAMES = [s.__name__ for s in STEPS]


def scan(rows=1, n=N, angles=ANGLES, noise=0.0, seed=0, scale=1.0, center=None):
    rng = np.random.default_rng(seed)
    parts = [[Ellipse(e.value * (1 + k / 4), e.x, e.y + 0.2 * k, e.a, e.b, e.angle) for e in BODY] for k in range(rows)]
    bodies = [[Ellipse(e.value / scale, *(scale * v for v in (e.x, e.y, e.a, e.b)), e.angle) for e in p] for p in parts]
    data = np.stack([projections(p, angles, n, center) for p in bodies], 1)
    data = (data + noise * rng.standard_normal(data.shape)).astype(np.float32)
    model = Noise(0.0, max(noise, 1e-3) ** 2)
    return Frame(
        data, "AYX", Unit.OPTICAL_DEPTH, model, geometry=Scan(angles, center=(n - 1) / 2 if center is None else center)
    )


def matrix(n=N, angles=ANGLES):
    """Columns: the projections of each pixel."""
    operator = radon(angles, n, slices=n * n, convolution=False)
    return (
        operator.forward(np.eye(n * n, dtype=np.float32).reshape(-1, n, n)).transpose(0, 2, 1).reshape(-1, n * n).astype(float)
    )


def right(frame):
    return np.asarray(frame.data[:, 0], dtype=float).reshape(-1)


def residuals(out):
    return list(out.history[-1].params["residuals"].values())


def test_cgls_ends_at_least_squares():
    a, frame = matrix(), scan(noise=0.02)
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    seen = s > 0.05 * s[0]  # what the data determine; half of the pixels' patterns
    exact = (u[:, seen].T @ right(frame)) / s[seen]
    out = vt[seen] @ restore.cgls(frame, iterations=60, pair=True).data.ravel()
    assert seen.sum() > 100
    np.testing.assert_allclose(out, exact, atol=1e-2 * np.abs(exact).max())


def test_one_step_of_cgls_is_steepest_descent():
    a, frame = matrix(), scan(noise=0.02)
    g = a.T @ right(frame)
    expected = g * (g @ g) / np.sum((a @ g) ** 2)
    np.testing.assert_allclose(restore.cgls(frame, iterations=1, pair=True).data.ravel(), expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("start", ["zero", "fbp"])
def test_the_residual_of_cgls_falls(pair, start):
    frame = scan(n=64, scale=4.0, noise=0.05, rows=3)
    seen = [residuals(restore.cgls(frame, iterations=k, pair=pair, start=start))[-1] for k in range(1, 9)]
    assert np.all(np.diff(seen) < 0 if pair else np.diff(seen) < 2e-3 * seen[0])


@pytest.mark.parametrize("weight", [1.0, 30.0])
def test_tikhonov_is_the_dense_solution(weight):
    a, frame = matrix(), scan(noise=0.05)
    exact = np.linalg.solve(a.T @ a + weight * np.eye(N * N), a.T @ right(frame))
    out = restore.tikhonov(frame, weight=weight, iterations=120, pair=True).data.ravel()
    np.testing.assert_allclose(out, exact, atol=1e-3 * exact.max())
    weighty = restore.least_squares(frame, weight=weight, iterations=120).data.ravel()
    np.testing.assert_allclose(weighty, exact, atol=1e-3 * exact.max())


def test_sirt_is_the_textbook_iteration():
    a, frame = matrix(), scan(noise=0.02)
    b, x = right(frame), np.zeros(N * N)
    r, c = 1 / np.maximum(a @ np.ones(N * N), 1), 1 / np.maximum(a.T @ np.ones(b.size), 1)
    for _ in range(12):
        x = np.maximum(x + c * (a.T @ (r * (b - a @ x))), 0)
    out = restore.sirt(frame, iterations=12, nonnegative=True)
    np.testing.assert_allclose(out.data.ravel(), x, atol=2e-4 * x.max())


def test_landweber_is_the_textbook_iteration():
    a, frame = matrix(), scan(noise=0.02)
    step, x = 0.9 / np.linalg.norm(a, 2) ** 2, np.zeros(N * N)
    for _ in range(12):
        x = x + step * (a.T @ (right(frame) - a @ x))
    out = restore.landweber(frame, iterations=12, relaxation=0.9, pair=True).data.ravel()
    assert np.linalg.norm(out - x) < 0.03 * np.linalg.norm(x)  # the largest eigenvalue is found by iteration


@pytest.mark.parametrize(("step", "options"), [(restore.mlem, {}), (restore.osem, {"subsets": 4})])
def test_expectation_stays_positive_and_keeps_the_counts(step, options):
    frame = scan(n=48, scale=3.0, noise=0.01)
    out = step(frame, iterations=15, **options).data
    assert out.min() >= 0
    sums = radon(ANGLES, 48, convolution=False).forward(out).sum(axis=(1, 2))
    assert sums.mean() == pytest.approx(np.maximum(frame.data, 0).sum(axis=(1, 2)).mean(), rel=0.02)


def test_mlem_is_the_textbook_iteration():
    wide = [Ellipse(0.05, 0.0, 0.0, 6.5, 6.0), Ellipse(0.03, 0.0, 0.0, 30.0, 30.0)]  # covers every pixel: no ray is empty
    data = projections(wide, ANGLES, N).astype(np.float32)[:, None]
    frame = Frame(data, "AYX", Unit.OPTICAL_DEPTH, Unmodelled("none"), geometry=Scan(ANGLES, center=(N - 1) / 2))
    a, b = matrix(), right(frame)
    x = np.full(N * N, b.mean() * N / A * A / (np.pi / 4 * N * N))
    for _ in range(6):
        x = x * np.maximum(a.T @ (b / (a @ x)) / np.maximum(a.T @ np.ones(b.size), 1), 0)
    np.testing.assert_allclose(restore.mlem(frame, iterations=6).data.ravel(), x, atol=2e-3 * x.max())


def test_weights_of_the_noise_make_a_better_image():
    rng = np.random.default_rng(3)
    frame, n = scan(n=32, scale=2.0), 32
    std = np.where(rng.uniform(size=frame.shape) < 0.3, 0.5, 0.02).astype(np.float32)
    c = np.arange(n) - (n - 1) / 2
    inside, truth = (
        np.hypot(c, c[:, None]) < 14,
        phantom([Ellipse(e.value / 2, 2 * e.x, 2 * e.y, 2 * e.a, 2 * e.b, e.angle) for e in BODY], n),
    )
    error: dict[str, list[float]] = {"least_squares": [], "cgls": []}
    for _ in range(10):
        noisy = frame.replace(
            data=(frame.data + std * rng.standard_normal(std.shape)).astype(np.float32), noise=Noise(0.0, std**2)
        )
        for name, options in (("least_squares", {}), ("cgls", {"pair": True})):
            best = min(
                float(np.mean((getattr(restore, name)(noisy, iterations=k, **options).data[0] - truth)[inside] ** 2))
                for k in (3, 6, 12)
            )
            error[name].append(best)
    assert np.mean(error["least_squares"]) < 0.5 * np.mean(error["cgls"])


def test_the_shared_noise_of_the_flat_is_no_weight():
    frame, shared = scan(n=32, scale=2.0), np.linspace(0, 5, 32)[None, None]
    with_flat = frame.replace(noise=Noise(0.0, 1e-4, d=shared))
    np.testing.assert_array_equal(
        restore.least_squares(with_flat, iterations=4).data,
        restore.least_squares(frame.replace(noise=Noise(0.0, 1e-4)), iterations=4).data,
    )


@pytest.mark.parametrize("step", STEPS, ids=NAMES)
def test_a_section_is_part_of_the_whole(step):
    frame = scan(n=32, scale=2.0, rows=11, noise=0.02)
    whole = step(frame, iterations=4, tolerance=1e-2)  # conjugate gradients make more of rounding with each
    part = step(frame.crop(Box((0, 7, 0), (A, 10, 32))), iterations=4, tolerance=1e-2)
    np.testing.assert_allclose(part.data, whole.data[7:10], atol=2e-5 * whole.data.max())


@pytest.mark.parametrize("step", STEPS, ids=NAMES)
def test_units_history_and_truth(step):
    n = 48
    geometry = {"angles": np.arange(72) * np.pi / 72, "center": 25.3}
    frame = scan(n=n, scale=3.0, **geometry).replace(geometry=Scan(geometry["angles"], center=25.3, pixel=4.0))
    before = frame.data.copy()
    out = step(frame, iterations=12)
    assert (out.unit, out.axes, out.shape) == (Unit.ATTENUATION, "ZYX", (1, n, n))
    assert out.history[-1].step == f"restore.{step.__name__}"
    assert out.history[-1].params["ended"][1] <= 12
    assert np.all(np.isfinite(residuals(out)))
    truth = phantom([Ellipse(e.value / 3, 3 * e.x, 3 * e.y, 3 * e.a, 3 * e.b, e.angle) for e in BODY], n) * 1e3 / 4.0
    assert np.sqrt(np.mean((out.data[0] - truth) ** 2)) < 0.25 * truth.max()
    assert np.corrcoef(out.data[0].ravel(), truth.ravel())[0, 1] > 0.9
    np.testing.assert_array_equal(frame.data, before)
    assert step.needs.memory(frame, {}, 1e6) > 3e6


@pytest.mark.parametrize("step", [restore.cgls, restore.landweber, restore.tikhonov, restore.total_variation])
def test_a_convolution_leaves_the_outside_empty(step):
    out = step(scan(n=32, scale=2.0, noise=0.05), iterations=6).data[0]
    c = np.arange(32) - 15.5
    outside = np.hypot(c, c[:, None]) >= 16
    assert not out[outside].any()
    assert out[~outside].any()


@pytest.mark.parametrize("size", [17, 31, 45])
def test_a_size_that_is_no_good_for_transforms(size):
    frame = scan(n=37, scale=2.0)
    for step in (restore.cgls, restore.total_variation):
        out, other = step(frame, size=size, iterations=30).data[0], step(frame, size=size, iterations=30, pair=True).data[0]
        assert out.shape == (size, size)
        if size > 30:
            assert np.linalg.norm(out - other) < 0.15 * np.linalg.norm(other)


@pytest.mark.parametrize("step", STEPS, ids=NAMES)
def test_what_is_not_finite_is_refused(step):
    frame = scan()
    data = frame.data.copy()
    data[3, 0, 5] = np.nan
    with pytest.raises(FrameError, match="finite"):
        step(frame.replace(data=data))


def test_refusals():
    frame = scan()
    with pytest.raises(FrameError, match="cuts"):
        restore.cgls(frame.replace(data=frame.data + 1))
    with pytest.raises(FrameError, match="relaxation 2"):
        restore.sirt(frame, relaxation=2)
    with pytest.raises(FrameError, match="subsets"):
        restore.osem(frame, subsets=0)
    with pytest.raises(FrameError, match="start"):
        restore.cgls(frame, start="one")
    with pytest.raises(FrameError, match="iterations"):
        restore.mlem(frame, iterations=0)
    with pytest.raises(FrameError, match="noise"):
        restore.least_squares(frame.replace(noise=Unmodelled("smoothed")))
    with pytest.raises(FrameError, match="0 or less"):
        restore.least_squares(frame.replace(noise=Noise(0.0, 0.0)))


def test_stopping_where_the_noise_explains_the_rest():
    frame = scan(n=64, scale=4.0, noise=0.05, rows=2)
    out = restore.cgls(frame, iterations=50, discrepancy=True)
    assert out.history[-1].params["ended"][1] < 50
    before = restore.cgls(frame, iterations=out.history[-1].params["ended"][0] - 1)
    assert residuals(out)[-1] <= 0.05 < residuals(before)[-1]
    assert restore.cgls(frame, iterations=50, tolerance=0.3).history[-1].params["ended"][1] < 10


def test_progress_is_told():
    seen: list[tuple[int, int]] = []
    with driver.progress(lambda done, total: seen.append((done, total))):
        restore.cgls(scan(rows=10), iterations=4)
    assert seen[-1] == (8, 8)
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    restore.cgls(scan(), iterations=2)
    assert seen[-1] == (8, 8)
