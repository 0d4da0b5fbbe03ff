"""Rows that flow through the packed network give what the network gives of the whole image, at any size."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from firstlight import Mosaic, cfa
from firstlight.geometry import XTRANS
from firstlight.nets import PackedNet
from firstlight.restore import lmmse, packed

SIGMA = (0.02, 0.01, 0.015)


def whole(samples: np.ndarray, weights: np.ndarray, net: PackedNet) -> np.ndarray:
    """The network's own forward over all cells at once."""
    ends = [-n % 6 for n in samples.shape]
    wide, _ = cfa.extend(samples, Mosaic(XTRANS), ((6, 6 + ends[0]), (6, 6 + ends[1])))
    with torch.inference_mode():
        folded = functional.pixel_unshuffle(torch.from_numpy(wide)[None, None], 6)
        base = functional.conv2d(folded, packed.as_convolution(weights))
        found = functional.pixel_shuffle(base + net(folded, base, torch.tensor([SIGMA])), 6)[0].numpy()
    return found[:, : samples.shape[0], : samples.shape[1]]


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return lmmse.filters(np.array(XTRANS), SIGMA)[0]


@pytest.mark.parametrize("shape", [(6, 6), (7, 13), (61, 40), (120, 36)])
@pytest.mark.parametrize("rows", [1, 2, 5, 1000])
def test_rows_give_what_the_whole_gives(
    shape: tuple[int, int], rows: int, weights: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cell at a time, images smaller than a network's halo, odd sizes: all below 1e-5, without a correction it is not."""
    torch.manual_seed(3)
    net = PackedNet(width=8, depth=3).requires_grad_(False)
    with torch.no_grad():
        net.last.weight.mul_(30)
    samples = np.random.default_rng(1).random(shape, dtype=np.float32)
    wanted = whole(samples, weights, net)
    monkeypatch.setattr(packed, "BAND", rows * 6 * (shape[1] + 12 + -shape[1] % 6))
    found = packed.demosaicked(samples, Mosaic(XTRANS), weights, SIGMA, net=net, bf16=False)
    assert np.abs(found - wanted).max() < 1e-5
    plain = packed.demosaicked(samples, Mosaic(XTRANS), weights, SIGMA)
    assert np.abs(found - plain).max() > 1e-3
    half = packed.demosaicked(samples, Mosaic(XTRANS), weights, SIGMA, net=net, bf16=True)
    assert 0 < np.abs(half - wanted).max() < 0.03 * np.abs(wanted - plain).max()
