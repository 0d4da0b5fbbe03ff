"""A^T W A as a convolution equals the pair, where no projection is cut."""

from __future__ import annotations

import numpy as np
import pytest

from firstlight.operators import Gridding, Normal, radon

N = 64
C = np.arange(N) - (N - 1) / 2
INSIDE = np.hypot(C[None], C[:, None]) < 0.8 * N / 2


@pytest.mark.parametrize("slices", [1, 2, 3])
@pytest.mark.parametrize("center", [None, 30.2])
def test_the_convolution_is_the_pair(slices, center):
    rng = np.random.default_rng(4)
    angles = np.sort(rng.uniform(0, np.pi, 70))
    smooth = np.stack(
        [np.exp(-((C[None] - x) ** 2 + (C[:, None] - y) ** 2) / 18) for x, y in rng.uniform(-12, 12, (slices, 2))]
    )
    operator = radon(angles, N, center=center, slices=slices)
    x = smooth.astype(np.float32)
    pair, fast = operator.adjoint(operator.forward(x)), operator.gram(x)
    assert np.abs(pair - fast)[:, INSIDE].max() < 3e-3 * np.abs(pair).max()
    assert fast[:, INSIDE].sum() == pytest.approx(pair[:, INSIDE].sum(), rel=1e-3)


def test_weights_of_projections():
    rng = np.random.default_rng(5)
    angles = np.arange(50) * np.pi / 50
    weights = rng.uniform(0, 2, 50)
    grid = Gridding(angles, N, filtered=False)
    waves = grid.phases((N - 1) / 2, nyquist=0.0)
    x = np.exp(-((C[None] - 5) ** 2 + C[:, None] ** 2) / 18)[None].astype(np.float32)
    pair = grid.adjoint(grid.forward(x, waves) * weights[:, None, None].astype(np.float32), waves)
    assert np.abs(pair - Normal(grid, weights)(x))[:, INSIDE].max() < 3e-3 * np.abs(pair).max()


def test_it_is_symmetric_and_not_negative():
    rng = np.random.default_rng(6)
    normal = Normal(Gridding(np.arange(40) * np.pi / 40, N, filtered=False))
    x, y = rng.standard_normal((2, 1, N, N)).astype(np.float32)
    assert np.vdot(normal(x), y) == pytest.approx(np.vdot(x, normal(y)), rel=1e-4)
    assert np.vdot(x, normal(x)) > 0
    assert np.vdot(y - y.mean(), normal(y - y.mean())) > 0


def test_the_circulant_has_the_operators_value_at_each_wave():
    rng = np.random.default_rng(7)
    normal = Normal(Gridding(np.arange(40) * np.pi / 40, N, filtered=False), rng.uniform(0.5, 1.5, 40))
    symbol, i = normal.circulant(), np.arange(N)
    for k, m in ((0, 0), (1, 0), (3, 60), (20, 11), (32, 32)):
        phase = 2 * np.pi * (k * i[:, None] + m * i[None]) / N
        x = np.stack([np.cos(phase), np.sin(phase)]).astype(np.float32)
        assert symbol[k, m] == pytest.approx(np.vdot(x, normal(x)) / N**2, rel=1e-3, abs=1e-5 * symbol.max())


def test_part_of_the_angles_in_the_same_workspaces():
    rng = np.random.default_rng(8)
    angles, y = np.arange(30) * np.pi / 30, rng.standard_normal((30, 3, N)).astype(np.float32)
    grid = Gridding(angles, N, filtered=False, pairs=2)
    waves = grid.phases(30.0)
    part = slice(1, None, 4)
    own = Gridding(angles[part], N, filtered=False, pairs=2)
    for _ in range(2):
        np.testing.assert_allclose(
            grid.subset(part).adjoint(y[part], waves[part]), own.adjoint(y[part], waves[part]), atol=1e-5
        )
    assert grid.adjoint(y, waves).shape == (3, N, N)
