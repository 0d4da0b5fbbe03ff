"""Estimates under the symmetries of the pixel grid: equivariance, the error of their mean, blocks."""

from __future__ import annotations

import numpy as np
import pytest

from firstlight.restore.symmetries import COUNT, averaged, turn

RNG = np.random.default_rng(5)


def test_symmetries_differ_and_are_undone() -> None:
    part = np.arange(2 * 3 * 5).reshape(2, 3, 5)
    seen = {turn(part, k).tobytes() + bytes(turn(part, k).shape) for k in range(COUNT)}
    assert len(seen) == COUNT
    for k in range(COUNT):
        assert np.array_equal(turn(turn(part, k), k, back=True), part)


def test_what_any_estimator_says_turns_with_the_image() -> None:
    def ask(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.cumsum(z, axis=0) * np.linspace(0, 1, z.shape[1]), np.abs(z)

    z = RNG.normal(size=(8, 16)).astype(np.float32)
    whole = averaged(ask, z, 4)
    for k in range(COUNT):
        for found, want in zip(averaged(ask, turn(z, k), 4), whole, strict=True):
            assert found is not None
            assert want is not None
            np.testing.assert_allclose(turn(found, k, back=True), want, rtol=1e-4, atol=1e-4)
    assert not np.allclose(turn(ask(turn(z, 1))[0], 1, back=True), ask(z)[0], atol=0.1)


@pytest.mark.parametrize("common", [0.5, 0.9, 1.0])
def test_the_variance_is_that_of_the_mean_of_errors_partly_shared(common: float) -> None:
    """Errors of variance 1, a share of it common to all eight: the mean's is common + (1 - common) / 8."""
    shape = (200, 200)
    shared = np.float32(100) + RNG.normal(0, common**0.5, shape).astype(np.float32)
    left = list(range(COUNT))

    def ask(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own = RNG.normal(0, (1 - common) ** 0.5, shape).astype(np.float32)
        return turn(shared + own, left.pop(0)), np.zeros(shape, dtype=np.float32)

    mean, log_variance = averaged(ask, np.zeros(shape, dtype=np.float32), 1)
    assert log_variance is not None
    want = common + (1 - common) / COUNT
    assert np.mean((mean - 100) ** 2) == pytest.approx(want, rel=0.05)
    told = np.exp(log_variance)
    assert told.min() >= 1 / COUNT - 1e-5
    assert told.mean() == pytest.approx(want, rel=0.05)


def test_lengths_are_made_multiples_and_no_variance_stays_none() -> None:
    sides = []

    def ask(z: np.ndarray) -> tuple[np.ndarray, None]:
        sides.append(z.shape)
        return z, None

    z = RNG.normal(size=(13, 21)).astype(np.float32)
    mean, none = averaged(ask, z, 8)
    np.testing.assert_allclose(mean, z, atol=1e-6)
    assert none is None
    assert set(sides) == {(16, 24), (24, 16)}
