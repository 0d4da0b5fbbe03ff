"""The torch twin of the gridding: equal to the compiled engine to 1e-5 of the maximum, batch by batch, and as strict."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from firstlight.errors import FrameError
from firstlight.operators import Gridding
from firstlight.operators.gridding_torch import TorchGridding, device_of
from firstlight.operators.ramp import angle_weights, response

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA on this machine")
DEVICES = ["torch", pytest.param("cuda", marks=CUDA)]


def close(found, expected):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("filtered", [True, False])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("columns", "size", "slices"), [(64, 64, 3), (61, 80, 1), (80, 51, 18)])
def test_parity(device, filtered, turned, columns, size, slices):
    rng = np.random.default_rng(1)
    angles = np.concatenate([rng.uniform(-4, 4, 30), [0, np.pi / 4, np.pi / 2, np.pi]])
    grid = Gridding(angles, columns, size=size, filtered=filtered)
    twin = TorchGridding(grid, device)
    turns = rng.uniform(-2, 2, slices) / grid.width if turned else None
    y = rng.standard_normal((34, slices, columns)).astype(np.float32)
    x = rng.standard_normal((slices, size, size)).astype(np.float32)
    for nyquist in (0.0, 0.5):
        waves = grid.phases(columns / 2 - 3.2, nyquist=nyquist)
        close(twin.adjoint(y, waves, turns=turns), grid.adjoint(y, waves, turns=turns))
        close(twin.forward(x, waves, turns=turns), grid.forward(x, waves, turns=turns))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("edge", "columns"), [(1, 45), (4, 45), (2, 3)])
def test_filtered_backprojection_with_its_edges(device, edge, columns):
    rng = np.random.default_rng(2)
    angles = np.arange(50) * np.pi / 50
    p = (3 + rng.standard_normal((50, 2, columns))).astype(np.float32)
    grid = Gridding(angles, columns)
    waves = (grid.phases(0.47 * columns) * response("shepp", grid.width) * angle_weights(angles)[:, None]).astype(np.complex64)
    close(TorchGridding(grid, device).adjoint(p, waves, edge=edge), grid.adjoint(p, waves, edge=edge))


def test_batches_are_bounded_by_memory_and_change_nothing():
    rng = np.random.default_rng(3)
    grid = Gridding(np.arange(20) * 0.16, 24)
    p = rng.standard_normal((20, 7, 24)).astype(np.float32)
    waves = grid.phases(11.5)
    turns = rng.uniform(-1, 1, 7) / grid.width
    whole = TorchGridding(grid)
    small = TorchGridding(grid, memory=2.5 * whole.bytes_per_slice())
    assert [part.stop - part.start for part in small._parts(7)] == [2, 2, 2, 1]
    assert len(whole._parts(7)) == 1
    close(small.adjoint(p, waves, turns=turns), whole.adjoint(p, waves, turns=turns))
    x = rng.standard_normal((7, 24, 24)).astype(np.float32)
    close(small.forward(x, waves, turns=turns), whole.forward(x, waves, turns=turns))


def test_tensors_in_tensors_out():
    grid = Gridding(np.arange(20) * 0.16, 24)
    twin, waves = TorchGridding(grid), grid.phases(11.5)
    p = torch.from_numpy(np.random.default_rng(4).standard_normal((20, 2, 24)))
    out = twin.adjoint(p, waves)
    assert isinstance(out, torch.Tensor)
    close(out.numpy(), grid.adjoint(p.numpy(), waves))
    assert isinstance(twin.forward(out, waves), torch.Tensor)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(value):
    p = np.zeros((10, 2, 16), np.float32)
    p[3, 1, 5] = value
    grid = Gridding(np.arange(10) * 0.3, 16)
    with pytest.raises(FrameError, match="not finite"):
        TorchGridding(grid).adjoint(p, grid.phases(7.5))


def test_shapes_that_do_not_fit():
    grid = Gridding(np.arange(10) * 0.3, 16)
    with pytest.raises(FrameError, match="expected \\(10 angles"):
        TorchGridding(grid).adjoint(np.zeros((9, 2, 16)), grid.phases(7.5))
    with pytest.raises(FrameError, match="expected \\(slices, 16"):
        TorchGridding(grid).forward(np.zeros((2, 16, 15)), grid.phases(7.5))


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:0"])
def test_devices_that_are_none(name):
    with pytest.raises(FrameError, match="expected cpu"):
        device_of(name)


def test_a_cuda_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FrameError, match="install torch for CUDA, or use cpu"):
        device_of("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(FrameError, match="counted from 0"):
        device_of("cuda:1")
