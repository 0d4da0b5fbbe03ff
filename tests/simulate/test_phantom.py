"""Ellipse phantoms: images and projections against areas, integrals and each other."""

from __future__ import annotations

import numpy as np
import pytest

from firstlight.errors import FrameError
from firstlight.simulate import Ellipse, phantom, projections, shepp_logan, shepp_logan_ellipses

LEANING = [Ellipse(0.7, 5.3, -3.1, 12.0, 6.5, 0.4), Ellipse(-0.2, -8.0, 2.2, 3.0, 9.0, -1.1)]


def test_the_sum_is_the_area():
    area = sum(e.value * np.pi * e.a * e.b for e in LEANING)
    assert phantom(LEANING, 64).sum() == pytest.approx(area, rel=1e-3)
    sums = projections(LEANING, np.linspace(0, 3, 7), 64).sum(axis=1)
    np.testing.assert_allclose(sums, area, rtol=1e-12)


def test_projections_at_right_angles_are_sums_of_the_image():
    image = phantom(LEANING, 64)
    down, across = projections(LEANING, [0.0, np.pi / 2], 64)
    np.testing.assert_allclose(image.sum(axis=0), down, atol=0.02)
    np.testing.assert_allclose(image.sum(axis=1), across, atol=0.02)


def test_a_leaning_projection_against_integration_of_points():
    t, fine = 0.8, 40
    c = (np.arange(64 * fine) + 0.5) / fine - 32
    x, y = np.meshgrid(c, c)
    inside = np.zeros(x.shape)
    for e in LEANING:
        u, v = (
            (x - e.x) * np.cos(e.angle) + (y - e.y) * np.sin(e.angle),
            (y - e.y) * np.cos(e.angle) - (x - e.x) * np.sin(e.angle),
        )
        inside += e.value * ((u / e.a) ** 2 + (v / e.b) ** 2 < 1)
    s = x * np.cos(t) + y * np.sin(t) + 30.2
    counted = np.histogram(s, bins=np.arange(65) - 0.5, weights=inside)[0] / fine**2
    np.testing.assert_allclose(projections(LEANING, [t], 64, 30.2)[0], counted, atol=0.03)
    blocks = inside.reshape(64, fine, 64, fine).mean(axis=(1, 3))
    np.testing.assert_allclose(phantom(LEANING, 64), blocks, atol=0.02)


def test_the_head():
    head = shepp_logan(128)
    assert head.max() == pytest.approx(1.0)
    assert head.min() == pytest.approx(0.0, abs=1e-12)
    assert head[64, 64] == pytest.approx(0.2)
    assert head[6, 64] == pytest.approx(1.0)
    assert head[2, 64] == 0
    assert projections(shepp_logan_ellipses(512), [0.0], 512)[0, 256] == pytest.approx(shepp_logan(512)[:, 256].sum(), rel=2e-3)


def test_refusals():
    with pytest.raises(FrameError, match="size 0"):
        phantom([], 0)
    with pytest.raises(FrameError, match="0 angles"):
        projections([], [], 8)
