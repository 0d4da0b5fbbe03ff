"""What networks are given: local means that are ones, differences that stay bounded, and an answer in the data's units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from firstlight.denoiser import PREFILTERS, REACH, estimate, inputs


class Kept(torch.nn.Module):
    """Says nothing, and keeps what it was given."""

    def forward(self, x):
        self.seen = x
        return torch.zeros_like(x)


def frame(seed=0, size=24):
    return torch.as_tensor(np.random.default_rng(seed).normal(20, 3, (1, 1, size, size)).astype(np.float32))


@pytest.mark.parametrize("prefilter", PREFILTERS)
def test_a_network_that_says_nothing_leaves_the_base(prefilter):
    x = frame()
    found = estimate(Kept(), x, prefilter).mean
    if prefilter in ("input", "limited"):
        torch.testing.assert_close(found, x)
    assert found.shape == x.shape
    assert inputs(prefilter) in (1, 2)


def test_the_gaussian_mean_is_scipys():
    x, net = frame(), Kept()
    estimate(net, x, "limited")
    wanted = gaussian_filter(x[0, 0].numpy().astype(np.float64), 1.7, mode="mirror", truncate=5 / 1.7)
    np.testing.assert_allclose(2 * np.sinh(net.seen[0, 1].numpy()), wanted, rtol=1e-4)


def test_a_bright_star_does_not_drown_the_network():
    x, net = frame(), Kept()
    x[0, 0, 12, 12] = 2000.0
    estimate(net, x, "limited")
    assert net.seen[0, 0].abs().max() < 10


@pytest.mark.parametrize("prefilter", ["mean", "limited"])
def test_it_reaches_as_far_as_it_says(prefilter):
    x, net = frame(), Kept()
    estimate(net, x, prefilter)
    before = net.seen.clone()
    x[0, 0, 12, 12] += 50
    estimate(net, x, prefilter)
    moved = (net.seen - before).abs().sum(1)[0] > 1e-5
    rows = torch.nonzero(moved.any(1)).ravel()
    assert int(rows.min()) == 12 - REACH[prefilter]
    assert int(rows.max()) == 12 + REACH[prefilter]


@pytest.mark.parametrize("size", [2, 4, 5, 6])
def test_a_patch_smaller_than_its_reach(size):
    assert torch.isfinite(estimate(Kept(), frame(size=size), "limited").mean).all()
