"""The network on packed mosaics: shapes, homogeneity, and what an output depends on."""

import pytest
import torch

from firstlight.nets import PackedNet
from firstlight.nets.packed import span


def inputs(side=12, batch=2):
    torch.manual_seed(1)
    return torch.rand(batch, 36, side + 2, side + 2), torch.rand(batch, 108, side, side), torch.rand(batch, 3) * 0.02


def test_size_of_the_shipped_configuration():
    net = PackedNet()
    assert sum(p.numel() for p in net.parameters()) == 737_280
    assert net.multiple == 6


def test_shapes_and_homogeneity():
    net = PackedNet(width=8, depth=2)
    mosaic, base, sigma = inputs()
    out = net(mosaic, base, sigma)
    assert out.shape == base.shape
    assert torch.allclose(net(7 * mosaic, 7 * base, 7 * sigma), 7 * out, atol=1e-6)


def test_every_part_matters_and_no_farther_than_stated():
    net = PackedNet(width=8, depth=2)
    mosaic, base, sigma = inputs(side=20, batch=1)
    out = net(mosaic, base, sigma)
    assert not torch.equal(net(mosaic, base, 2 * sigma), out)
    for k, given in enumerate((mosaic, base)):
        changed = given.clone()
        changed[:, :, -1, -1] += 1
        now = net(*(changed if i == k else v for i, v in enumerate((mosaic, base))), sigma)
        reached = (now - out).abs().amax(1)[0].amax(1) > 0
        assert int(reached.nonzero()[0]) == 19 - net.cells


def test_a_correction_is_within_what_its_surroundings_span():
    """None where each phase is the same all around, whatever the estimate says; elsewhere up to how far like samples differ."""
    net = PackedNet(width=8, depth=2)
    mosaic, base, sigma = inputs(side=9, batch=1)
    mosaic[:, :, :7] = mosaic[:, :, :1, :1]
    with torch.no_grad():
        net.last.weight.mul_(1000)
    out = net(mosaic, base, sigma).abs().amax(1)
    around = mosaic.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
    limit = (around.amax(-1) - around.amin(-1)).amax(1)
    assert torch.allclose(span(mosaic)[:, 0], limit, atol=1e-7)
    assert not out[:, :5].any()
    assert out[:, 5:].all()
    assert torch.allclose(out[:, 5:], limit[:, 5:], atol=1e-7)


def test_bad_configurations_are_refused():
    with pytest.raises(ValueError, match="positive"):
        PackedNet(depth=0)
