"""The documented pipeline's U-Net."""

from __future__ import annotations

import torch

from firstlight.nets import SeedUNet


def test_it_has_the_documented_number_of_parameters() -> None:
    assert sum(p.numel() for p in SeedUNet().parameters()) == 17_461_491


def test_nothing_beyond_the_halo_is_seen() -> None:
    # max pooling hides most of the dependence for any one input: the farthest is tried, with inputs that win their window
    torch.manual_seed(2)
    net = SeedUNet(1, 2).double().eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.abs_().add_(0.01)
    length, reached = 320, 0
    x = torch.zeros(1, 1, 16, length, dtype=torch.float64)
    with torch.no_grad():
        rest = net(x)
        for at in range(160, 176):
            lit = x.clone()
            lit[..., at] = 1.0
            changed = torch.nonzero((net(lit) - rest).abs().sum((0, 1, 2)) > 0)[:, 0]
            reached = max(reached, at - int(changed.min()), int(changed.max()) - at)
    assert reached == net.halo


def test_shape() -> None:
    assert SeedUNet(3, 2)(torch.rand(2, 3, 32, 48)).shape == (2, 3, 32, 48)
