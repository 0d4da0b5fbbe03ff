"""The noise of stabilised data at a few electrons: against draws, and as objectives and held-out risk must take it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from firstlight.frame import Frame, Unit
from firstlight.noise import Noise
from firstlight.train import objectives
from firstlight.train.batches import Batch
from firstlight.train.sources import expected, stabilised
from firstlight.train.unsteady import deviation
from firstlight.train.validation import r2r_risk, summary

FAINT = Noise(1.0, 1.6**2, 0.0)  # sd of stabilise(y) at 1 e-: 1.075


class Kept(nn.Module):
    """m = x."""

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("gain", "read_noise", "offset"), [(1.0, 0.0, 0.0), (2.0, 0.3, 7.0), (0.5, 1.6, 100.0), (1.0, 5.0, 0.0)]
)
def test_the_deviation_is_that_of_draws(gain: float, read_noise: float, offset: float) -> None:
    noise = Noise(gain, (gain * read_noise) ** 2, offset)
    mean = offset + gain * np.array([0.05, 0.3, 1, 2.5, 6, 20, 300])
    draws = noise.stabilise(noise.sample(np.broadcast_to(mean, (60000, 7)), np.random.default_rng(1)))
    assert np.allclose(deviation(noise, mean), draws.std(axis=0), atol=0.012)


def test_maps_are_taken_pixel_by_pixel_and_other_transforms_for_steady() -> None:
    mean = np.full((1, 2), 0.5)
    found = deviation(Noise(1.0, np.array([[0.09, 2.56]]), 0.0), mean)
    assert found[0, 0] == deviation(Noise(1.0, 0.09), mean)[0, 0]
    assert found[0, 1] == deviation(Noise(1.0, 2.56), mean)[0, 0]
    assert found[0, 0] < 0.85 < 1.05 < found[0, 1]
    assert np.all(deviation(Noise(0.0, 4.0), mean) == 1)
    assert np.all(deviation(Noise(1.0, 4.0, 0.0, 1e-4), mean) == 1)


def test_planes_tell_it_where_it_differs_from_one() -> None:
    rng = np.random.default_rng(2)
    dim, bright = (Frame(FAINT.sample(np.full((64, 64), m), rng), "YX", Unit.ELECTRON, FAINT) for m in (1.0, 100.0))
    (plane,) = stabilised(dim)
    assert plane.sigma is not None
    assert plane.sigma.mean() == pytest.approx(float(deviation(FAINT, np.array(1.0))), abs=0.01)
    assert stabilised(bright)[0].sigma is None


def faint(seed: int) -> tuple[Batch, float]:
    mean = np.full((16, 1, 64, 64), 1.0)
    z = FAINT.stabilise(FAINT.sample(mean, np.random.default_rng(seed))).astype(np.float32)
    sigma = deviation(FAINT, mean)
    return Batch(torch.from_numpy(z), None, None, torch.from_numpy(sigma)), float(expected(FAINT, np.array(1.0)))


def test_held_out_risk_is_unbiased_at_a_few_electrons() -> None:
    batches = [faint(k)[0] for k in range(6)]
    figure, error = summary(r2r_risk(Kept(), batches, alpha=0.5, prefilter="zero"))
    own = float(deviation(FAINT, np.array(1.0))) ** 2
    assert error < 0.01
    assert abs(figure - 1.25 * own) < 4 * error + 0.005  # the table's own error
    assert abs(figure - 1.25) > 0.1


def test_r2r_is_the_error_against_truth_plus_a_constant_at_a_few_electrons() -> None:
    own, gaps = float(deviation(FAINT, np.array(1.0))) ** 2, []
    for k in range(6):
        batch, truth = faint(k)
        assert batch.sigma is not None
        loss = objectives.r2r(Kept(), batch, torch.Generator().manual_seed(k), alpha=1.0, prefilter="zero")
        w = torch.randn(batch.z.shape, generator=torch.Generator().manual_seed(k)) * batch.sigma
        gaps.append((loss - ((batch.z + w - truth) ** 2).mean()).item())
    error = float(np.std(gaps, ddof=1) / len(gaps) ** 0.5)
    assert error < 0.02
    assert abs(np.mean(gaps) - 2 * own) < 4 * error + 0.01
