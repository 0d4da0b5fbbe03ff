"""Prediction by tiles equals prediction of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.errors import ModelError
from firstlight.inference import _sides, fast_bf16, predict, ready
from firstlight.model_file import PERCENTILE, Model, new
from firstlight.tiles import plan


def lively(name: str, config: dict, **parts: object) -> Model:
    """A random network whose outputs are far from zero at every pixel."""
    torch.manual_seed(11)
    model = new(name, config, **parts)
    with torch.no_grad():
        for weight in model.net.parameters():
            weight.mul_(3 if name == "lean" else 1.2)
    return model


CASES = {
    "2-D": (lambda: lively("lean", {"inputs": 2, "widths": [8, 12, 16]}), (1, 141, 303), 128**2),
    "2-D, input": (
        lambda: lively("lean", {"inputs": 1, "widths": [8, 8]}, scaling={"domain": "stabilised", "prefilter": "input"}),
        (1, 199, 64),
        64**2,
    ),
    "3-D": (lambda: lively("lean", {"inputs": 2, "widths": [4, 6], "dims": 3}, axes="ZYX"), (1, 20, 175, 50), 20 * 64 * 56),
    "documented": (lambda: lively("seed", {"channels": 2, "base": 2}, scaling=PERCENTILE), (2, 40, 900), 48 * 400),
}


@pytest.mark.parametrize("name", CASES)
def test_tiles_equal_the_whole(name: str) -> None:
    make, shape, tile = CASES[name]
    model = make()
    z = np.random.default_rng(4).normal(10, 3, shape).astype(np.float32)
    net = ready(model.net, bf16=False)
    whole, whole_log = predict(model, z, net=net, tile=1 << 24)
    tiled, tiled_log = predict(model, z, net=net, tile=tile)
    assert np.abs(whole - z).max() > 0.1
    np.testing.assert_allclose(tiled, whole, rtol=1e-5, atol=1e-4)
    if name == "documented":
        assert whole_log is None
        assert tiled_log is None
    else:
        np.testing.assert_allclose(tiled_log, whole_log, rtol=1e-5, atol=1e-4)
        assert np.ptp(whole_log) > 0


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 60), st.sampled_from([1, 4, 8, 16]))
def test_tiles_are_within_the_pixels_allowed_where_the_halo_leaves_room(y: int, x: int, halo: int, multiple: int) -> None:
    sides = _sides((y, x), 1 << 18, halo, multiple)
    tiles = plan((y, x), sides, halo, multiple, multiple)
    assert np.prod(sides) <= 1 << 18
    seen = sum(int(np.prod(np.subtract(t.read.stop, t.read.start))) for t in tiles)
    assert seen <= 3 * (y + multiple) * (x + multiple)


def test_a_smaller_halo_would_show() -> None:
    model, shape, tile = CASES["2-D"][0](), *CASES["2-D"][1:]
    less = Model(model.net, model.scaling, model.axes, model.halo // 3, model.multiple, model.card)
    z = np.random.default_rng(4).normal(10, 3, shape).astype(np.float32)
    net = ready(model.net, bf16=False)
    assert np.abs(predict(less, z, net=net, tile=tile)[0] - predict(model, z, net=net, tile=1 << 24)[0]).max() > 1e-3


def test_bf16_is_close_and_leaves_the_model_alone() -> None:
    model = lively("lean", {"inputs": 2, "widths": [8, 12]})
    z = np.random.default_rng(4).normal(10, 3, (1, 64, 64)).astype(np.float32)
    single = predict(model, z, net=ready(model.net, bf16=False))[0]
    half = predict(model, z, net=ready(model.net, bf16=True))[0]
    correction = np.abs(single - z).max()
    assert 0 < np.abs(half - single).max() < 0.02 * correction
    assert next(model.net.parameters()).dtype == torch.float32
    assert isinstance(fast_bf16(), bool)


def test_an_image_of_other_dimensions_is_refused() -> None:
    with pytest.raises(ModelError, match="expected channels and YX"):
        predict(lively("lean", {"inputs": 2, "widths": [4]}), np.zeros((8, 8), np.float32))
