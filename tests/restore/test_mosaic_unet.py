"""The documented U-Net over a mosaic: tiles equal the whole, in any phase, and no edge is dark."""

import numpy as np
import pytest
import torch

from firstlight import model_file
from firstlight.cfa import pad
from firstlight.frame import Frame, Observation, Unit
from firstlight.geometry import BAYER, XTRANS, Mosaic
from firstlight.nets import MosaicUNet
from firstlight.noise import Noise
from firstlight.restore import demosaic, mosaic_unet
from firstlight.restore.mosaic_unet import through_unet


@pytest.fixture
def net() -> MosaicUNet:
    torch.manual_seed(3)
    net = MosaicUNet(2).eval()
    with torch.no_grad():
        net(torch.rand(1, 4, 32, 32))
    return net


def samples(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(4).random(shape).astype(np.float32)


@pytest.mark.parametrize("mosaic", [Mosaic(XTRANS), Mosaic(BAYER)])
def test_tiles_equal_the_whole(mosaic: Mosaic, net: MosaicUNet, monkeypatch: pytest.MonkeyPatch) -> None:
    data = samples((301, 410))
    monkeypatch.setattr(mosaic_unet, "TILE", 288)
    tiled = through_unet(data, mosaic, net)
    monkeypatch.setattr(mosaic_unet, "TILE", 1200)
    np.testing.assert_allclose(tiled, through_unet(data, mosaic, net), atol=1e-5)


def test_the_pattern_is_where_the_network_learned_it(net: MosaicUNet) -> None:
    # a crop of a mosaic, its phase told, gives the crop of the result where the crop's edge is out of sight
    data, mosaic = samples((384, 384)), Mosaic(XTRANS)
    whole = through_unet(data, mosaic, net)
    part = through_unet(data[7:, 3:], pad(mosaic, (-7, -3)), net, start=(7, 3))
    np.testing.assert_allclose(part[:, 130:160, 130:160], whole[:, 137:167, 133:163], atol=1e-5)


def test_the_documented_blend_has_no_dark_edge(net: MosaicUNet) -> None:
    class Same(torch.nn.Module):
        halo, multiple = 107, 16

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, 1:] * 0 + x[:, :1]

    data = samples((321, 300))
    found = through_unet(data, Mosaic(XTRANS), Same(), documented=True)
    np.testing.assert_array_equal(found, np.broadcast_to(data, (3, 321, 300)))


@pytest.mark.parametrize("linear", [False, True])
def test_demosaic_runs_it_in_the_light_it_was_trained_in(linear: bool) -> None:
    light = {"light": "linear", "balanced": False} if linear else {}
    scaling = {"domain": "mosaic", "prefilter": "zero", "pattern": [list(row) for row in XTRANS], **light}
    torch.manual_seed(5)
    model = model_file.new("mosaic-unet", {"base": 2}, scaling=scaling)
    data = 100 * samples((48, 60))
    frame = Frame(data, "YX", Unit.ADU, Noise(0.5, 4.0), geometry=Mosaic(XTRANS), observation=Observation(saturation=200.0))
    out = demosaic(frame, method="net", model=model)
    assert out.shape == (3, 48, 60)
    if linear:
        direct = through_unet(data / np.float32(200), Mosaic(XTRANS), model.net, documented=True)
        np.testing.assert_allclose(out.data, 200 * direct, rtol=1e-5)
    else:
        kept = demosaic(frame, method="net", model=model, keep_samples=True).data
        color = Mosaic(XTRANS).at((48, 60))
        np.testing.assert_allclose(np.take_along_axis(kept, color[None], 0)[0], data, rtol=1e-5)
