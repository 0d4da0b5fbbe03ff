"""Total variation: the adjoints of its kernels, the minimum against a plain dense iteration, the weight it chooses."""

from __future__ import annotations

import numpy as np
import pytest

from firstlight import restore
from firstlight.errors import FrameError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.noise import Noise, Unmodelled
from firstlight.operators import radon
from firstlight.restore.iterative_kernels import dual, gradient
from firstlight.simulate import Ellipse, phantom, projections, shepp_logan, shepp_logan_ellipses


def scan(ellipses, n, count, noise, seed=0, model=True):
    angles, rng = np.arange(count) * np.pi / count, np.random.default_rng(seed)
    data = projections(ellipses, angles, n)
    data = (data + noise * rng.standard_normal(data.shape)).astype(np.float32)[:, None]
    known = Noise(0.0, noise**2) if model else Unmodelled("none")
    return Frame(data, "AYX", Unit.OPTICAL_DEPTH, known, geometry=Scan(angles, center=(n - 1) / 2))


def differences(x):
    u, v = np.zeros(x.shape), np.zeros(x.shape)
    u[:-1], v[:, :-1] = np.diff(x, axis=0), np.diff(x, axis=1)
    return u, v


def backwards(u, v):
    out = -u - v
    out[1:] += u[:-1]
    out[:, 1:] += v[:, :-1]
    return out


def test_the_kernels_are_differences_and_their_adjoint():
    rng = np.random.default_rng(1)
    x, zero = rng.standard_normal((2, 9, 7)).astype(np.float32)[0], np.zeros((9, 7), np.float32)
    u, v, w, row = zero.copy(), zero.copy(), zero.copy(), np.zeros((2, 7), np.float32)
    moved, size = dual(x.copy(), zero, u, v, w, row, 1.0, 0.0, 1e9)
    np.testing.assert_allclose([u, v], differences(x), atol=1e-6)
    assert (moved, size) == (0, pytest.approx(np.sum(x.astype(float) ** 2)))
    a, b, out = (*rng.standard_normal((2, 9, 7)).astype(np.float32), zero.copy())
    a[-1], b[:, -1] = 0, 0
    gradient(zero, zero, a, b, zero, out)
    assert np.vdot(out, x) == pytest.approx(np.vdot(a, u) + np.vdot(b, v), rel=1e-5)


def test_the_dual_is_projected_and_moves_from_beyond_the_step():
    rng = np.random.default_rng(2)
    x, d, u, v = rng.standard_normal((4, 9, 7)).astype(np.float32)
    u[-1], v[:, -1], w = 0, 0, -np.abs(rng.standard_normal((9, 7))).astype(np.float32)
    beyond, du, dv, dw = x - 2 * d, u.copy(), v.copy(), w.copy()
    now = x.copy()
    dual(now, d, du, dv, dw, np.zeros((2, 7), np.float32), 0.7, 0.3, 0.5)
    gu, gv = differences(beyond)
    lu, lv = u + 0.7 * gu, v + 0.7 * gv
    k = np.maximum(1, np.hypot(lu, lv) / 0.5)
    np.testing.assert_allclose([du, dv], [lu / k, lv / k], atol=1e-5)
    np.testing.assert_allclose(dw, np.minimum(w + 0.3 * beyond, 0), atol=1e-6)
    np.testing.assert_allclose(now, x - d, atol=1e-6)


@pytest.mark.parametrize("weight", [0.05, 0.5])
def test_the_minimum_is_that_of_a_plain_dense_iteration(weight):
    n = 16
    frame = scan([Ellipse(0.05, 0.5, -0.3, 5.5, 4.2, 0.4)], n, 12, 0.02)
    columns = radon(frame.geometry.angles, n, slices=n * n, convolution=False).forward(
        np.eye(n * n, dtype=np.float32).reshape(-1, n, n)
    )
    a, b = columns.transpose(0, 2, 1).reshape(-1, n * n).astype(float), frame.data[:, 0].reshape(-1).astype(float)

    def value(x):
        return np.sum((a @ x.ravel() - b) ** 2) / 2 + weight * np.hypot(*differences(x)).sum()

    sigma = 1.0
    tau = 1 / (np.linalg.norm(a, 2) ** 2 / 2 + 8 * sigma)
    x, u, v = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
    for _ in range(4000):
        new = np.maximum(x - tau * ((a.T @ (a @ x.ravel() - b)).reshape(n, n) + backwards(u, v)), 0)
        gu, gv = differences(2 * new - x)
        u, v, x = u + sigma * gu, v + sigma * gv, new
        k = np.maximum(1, np.hypot(u, v) / weight)
        u, v = u / k, v / k
    out = restore.total_variation(frame, weight=weight, iterations=400, tolerance=0.0, pair=True).data[0].astype(float)
    assert out.min() >= 0
    assert value(out) == pytest.approx(value(x), rel=2e-3)
    assert np.abs(out - x).max() < 0.03 * x.max()


def test_a_constant_stays_constant():
    n = 64
    disc = [Ellipse(0.02, 0.0, 0.0, 22.0, 22.0)]
    frame = scan(disc, n, 40, 0.02)
    out = restore.total_variation(frame).data[0]
    inside = phantom([Ellipse(1.0, 0.0, 0.0, 18.0, 18.0)], n) == 1
    assert out[inside].mean() == pytest.approx(0.02, rel=0.01)
    assert out[inside].std() < 0.01 * 0.02
    fbp = restore.reconstruct(frame).data[0]
    assert fbp[inside].std() > 0.05 * 0.02


@pytest.mark.parametrize("seed", [0, 1])
def test_few_noisy_views_and_a_weight_that_the_noise_chooses(seed):
    n = 128
    frame, truth = scan(shepp_logan_ellipses(n), n, 48, 0.25, seed), shepp_logan(n)
    out = restore.total_variation(frame)
    line = out.history[-1].params
    assert line["noise_from"] == "the noise model"
    assert list(line["residuals"].values())[-1] == pytest.approx(0.25, rel=0.1)

    def error(image):
        return float(np.sqrt(np.mean((image - truth) ** 2)))

    best = min(error(restore.total_variation(frame, weight=w, tolerance=5e-4).data[0]) for w in (0.5, 1, 2, 4, 8, 16))
    assert error(out.data[0]) < 1.3 * best
    assert error(out.data[0]) < 0.6 * error(restore.reconstruct(frame, filter="hann").data[0])


def test_noise_given_and_noise_seen():
    n = 128
    frame = scan(shepp_logan_ellipses(n), n, 48, 0.25, model=False)
    given, seen = restore.total_variation(frame, noise=0.25), restore.total_variation(frame)
    assert given.history[-1].params["noise_from"] == "noise"
    assert seen.history[-1].params["noise_from"] == "a local parabola along X"
    assert np.linalg.norm(given.data - seen.data) < 0.2 * np.linalg.norm(given.data)
    np.testing.assert_allclose(given.data, restore.total_variation(scan(shepp_logan_ellipses(n), n, 48, 0.25)).data, atol=1e-5)


def test_refusals():
    frame = scan([Ellipse(0.02, 0.0, 0.0, 5.0, 5.0)], 16, 12, 0.01)
    with pytest.raises(FrameError, match="weight -1"):
        restore.total_variation(frame, weight=-1)
    with pytest.raises(FrameError, match="optical depth"):
        restore.total_variation(frame.replace(unit=Unit.TRANSMISSION))


def test_the_dendrite(data):
    """Cut projections with rings, four columns as one: the flat metal gets smoother, and what is seen in it stays."""
    from scipy.io import loadmat

    file = loadmat(data / "tomography" / "dendrite_sino.mat")
    sino = file["sinoRD"].T.reshape(360, 1, 315, 4).mean(axis=3).astype(np.float32) * 1e-3
    center = (626.3 + 0.5) / 4 - 0.5
    frame = Frame(sino, "AYX", Unit.OPTICAL_DEPTH, Unmodelled("read"), geometry=Scan(file["anglesRad"].ravel(), center=center))
    with pytest.raises(FrameError, match="cuts"):
        restore.total_variation(frame)
    out, fbp = restore.total_variation(frame, pair=True).data[0], restore.reconstruct(frame).data[0]
    middle = (slice(70, 240), slice(70, 240))

    def grain(x):
        return float(np.median(np.abs(np.diff(x[middle], axis=1))))

    def blurred(x):
        return x[middle].reshape(34, 5, 34, 5).mean(axis=(1, 3)).ravel()

    assert out.min() >= 0
    assert grain(out) < 0.5 * grain(fbp)
    assert np.corrcoef(blurred(out), blurred(fbp))[0, 1] > 0.9
