"""The lean U-Net: its parameters, its honest halo, its homogeneity, its third dimension."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from firstlight.nets import LeanUNet


def positive(net: nn.Module) -> nn.Module:
    """All weights positive and double: no rounding or ReLU hides a dependence."""
    with torch.no_grad():
        for weight in net.parameters():
            weight.abs_().add_(0.01)
    return net.double().eval()


def reach(net: nn.Module, inputs: int, axis: int, dims: int = 2) -> int:
    """The farthest input [px] along `axis` that an output depends on, over one period of outputs."""
    m, worst = net.multiple, 0
    length = 2 * net.halo // m * m + 4 * m
    shape = [m] * dims
    shape[axis] = length
    for pixel in range(length // 2, length // 2 + m):
        x = torch.rand(1, inputs, *shape, dtype=torch.float64).requires_grad_(True)
        net(x)[(0, 0, *(pixel if i == axis else 0 for i in range(dims)))].backward()
        assert x.grad is not None
        seen = torch.nonzero(x.grad.movedim(axis + 2, 0).flatten(1).abs().sum(1))[:, 0]
        worst = max(worst, pixel - int(seen.min()), int(seen.max()) - pixel)
    return worst


@pytest.mark.parametrize(
    ("config", "axis"),
    [
        ({"widths": (3, 3, 3)}, 0),
        ({"widths": (3, 3, 3)}, 1),
        ({"widths": (3, 3), "unshuffle": 1}, 1),
        ({"widths": (3,), "unshuffle": 3}, 0),
        ({"widths": (2,), "dims": 3}, 0),
        ({"widths": (2, 2), "unshuffle": 1, "dims": 3}, 2),
    ],
)
def test_the_halo_is_what_outputs_depend_on(config: dict, axis: int) -> None:
    net = positive(LeanUNet(inputs=2, **config))
    assert reach(net, 2, axis, config.get("dims", 2)) == net.halo


def test_the_default_is_small_and_of_known_size() -> None:
    net = LeanUNet(inputs=2)
    assert sum(p.numel() for p in net.parameters()) == 420_352
    assert (net.halo, net.multiple) == (51, 8)
    assert not any("bias" in name for name, _ in net.named_parameters())


@pytest.mark.parametrize("dims", [2, 3])
def test_shape_and_homogeneity(dims: int) -> None:
    torch.manual_seed(5)
    net = LeanUNet(inputs=1, outputs=2, widths=(4, 6, 8), dims=dims).double()
    x = torch.randn(2, 1, *([16] * (dims - 1)), 24, dtype=torch.float64)
    y = net(x)
    assert y.shape == (2, 2, *x.shape[2:])
    torch.testing.assert_close(net(7.5 * x), 7.5 * y)
    assert y.abs().max() > 0


@pytest.mark.parametrize("dims", [2, 3])
def test_folding_is_pixel_unshuffle(dims: int) -> None:
    from firstlight.nets.lean import _fold, _unfold

    x = torch.arange(2 * 3 * 4 * 6 * 8, dtype=torch.float32).reshape(2, 3, 4, 6, 8)
    x = x if dims == 3 else x[:, :, 0]
    folded = _fold(x, 2)
    assert torch.equal(_unfold(folded, 2), x)
    assert torch.equal(folded[:, 1], x[(slice(None), 0, *[slice(0, None, 2)] * (dims - 1), slice(1, None, 2))])
    if dims == 2:
        assert torch.equal(folded, nn.functional.pixel_unshuffle(x, 2))


def test_impossible_configurations_are_refused() -> None:
    for config in ({"dims": 4}, {"inputs": 0}, {"widths": ()}):
        with pytest.raises(ValueError, match="expected positive numbers and dims 2 or 3"):
            LeanUNet(**config)
