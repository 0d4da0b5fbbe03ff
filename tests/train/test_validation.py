"""Held-out risk: the error against truth, without it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from firstlight.errors import FrameError
from firstlight.train.batches import Batch
from firstlight.train.objectives import n2v
from firstlight.train.validation import difference, objective_risk, r2r_risk, summary, target_risk


class Scaled(nn.Module):
    """m = k x: its risk about a truth t with noise 1 + a^2 is (k - 1)^2 t^2 + k^2 (1 + a^2)."""

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        return self.k * x


def held(seed: int = 1, level: float = 3.0, valid: Tensor | None = None) -> list[Batch]:
    rng = torch.Generator().manual_seed(seed)
    return [Batch(level + torch.randn((16, 1, 64, 64), generator=rng), None, valid) for _ in range(8)]


@pytest.mark.parametrize("alpha", [0.2, 0.5])
@pytest.mark.parametrize("k", [0.0, 0.6, 1.0])
def test_r2r_risk_is_the_error_against_truth(alpha: float, k: float) -> None:
    figure, error = summary(r2r_risk(Scaled(k), held(), alpha=alpha, prefilter="zero"))
    wanted = (k - 1) ** 2 * 9 + k**2 * (1 + alpha**2)
    assert error < 0.05
    assert abs(figure - wanted) < 4 * error + 1e-6


def test_equal_networks_have_equal_risk_and_the_better_one_is_found() -> None:
    one, two, same = (r2r_risk(Scaled(k), held(), prefilter="zero") for k in (0.9, 0.7, 0.9))
    assert np.array_equal(one, same)
    gain, error = difference(one, two)
    assert gain + 3 * error < 0
    assert error < summary(one)[1]  # the same draws: the difference is known better than either


def test_pixels_that_are_not_valid_do_not_count() -> None:
    batches = held()
    mask = torch.ones(16, 1, 64, 64, dtype=torch.bool)
    mask[..., :32] = False
    spoiled = [Batch(torch.where(mask, b.z, 1e4), None, mask) for b in batches]
    risk = r2r_risk(Scaled(0.6), spoiled, prefilter="zero").mean()
    assert risk == pytest.approx(0.16 * 9 + 0.36 * 1.25, rel=0.05)
    none = torch.zeros_like(mask)
    with pytest.raises(FrameError, match="no valid pixel"):
        summary(r2r_risk(Scaled(0.6), [Batch(batches[0].z, None, none)], prefilter="zero"))


def test_the_network_comes_back_as_it_was() -> None:
    net = nn.Sequential(nn.BatchNorm2d(1)).train()
    before = net[0].running_mean.clone()
    r2r_risk(net, held(), prefilter="zero")
    assert net.training
    assert torch.equal(before, net[0].running_mean)
    assert torch.is_grad_enabled()


def test_with_a_target_it_is_the_difference_less_the_targets_own_noise() -> None:
    rng = torch.Generator().manual_seed(7)
    batches = [Batch(b.z, 3 + torch.randn(b.z.shape, generator=rng)) for b in held()]
    figure, error = summary(target_risk(Scaled(0.6), batches, noise=1.0, prefilter="zero"))
    assert abs(figure - (0.16 * 9 + 0.36)) < 4 * error < 0.1
    with pytest.raises(FrameError, match="without a target"):
        target_risk(Scaled(0.6), held(), prefilter="zero")


def test_the_objective_itself_is_repeatable() -> None:
    one, two = (objective_risk(nn.Conv2d(2, 1, 3, padding=1, bias=False), held()[:2], n2v) for _ in range(2))
    assert one.shape == (2,)
    assert not np.array_equal(one, two)  # other weights
    net = nn.Conv2d(2, 1, 3, padding=1)
    assert np.array_equal(*(objective_risk(net, held()[:2], n2v) for _ in range(2)))
