"""The noise of stabilised data at a few electrons: against draws, and as objectives and held-out risk must take it."""

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from torch import Tensor, nn

from firstlight import simulate
from firstlight.frame import Frame, Unit
from firstlight.noise import Noise
from firstlight.train import objectives
from firstlight.train.batches import Batch
from firstlight.train.sources import counts, expected, stabilised
from firstlight.train.unsteady import deviation, skewness
from firstlight.train.validation import count_risk, r2r_risk, summary

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


class Bent(nn.Module):
    """m = x - x^2 / 20: bent, so that skewed noise shows."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x**2 / 20


def test_the_risk_of_counts_is_the_error_against_truth_where_that_of_stabilised_counts_is_not() -> None:
    """The error of u(m(f(k + a sqrt(v) w))) about truth over v, at 1 e-; both risks against it."""
    mean, alpha, rng = np.full((32, 1, 64, 64), 1.0), 0.2, np.random.default_rng(5)
    square = FAINT.b
    told, true, stable = [], [], []
    for k in range(6):
        data = FAINT.sample(mean, rng).astype(np.float32)
        sigma = torch.full(data.shape, float(np.sqrt(square)))
        batch = Batch(torch.from_numpy(data), None, None, sigma)
        told.append(count_risk(Bent(), [batch], alpha=alpha, seed=k, prefilter="zero"))
        again = data + alpha * np.sqrt(1 + square) * rng.standard_normal(data.shape)
        z = FAINT.stabilise(again)
        true.append(np.mean((FAINT.unstabilise(z - z**2 / 20) - mean) ** 2) / (1 + square))
        z = FAINT.stabilise(data).astype(np.float32)
        steady = Batch(torch.from_numpy(z), None, None, torch.from_numpy(deviation(FAINT, mean)))
        found = summary(r2r_risk(Bent(), [steady], alpha=alpha, seed=k, prefilter="zero"))[0]
        z = z + alpha * deviation(FAINT, mean) * rng.standard_normal(z.shape)
        stable.append(found - np.mean((z - z**2 / 20 - expected(FAINT, np.array(1.0))) ** 2))
    off, error = abs(np.concatenate(told).mean() - np.mean(true)), summary(np.concatenate(told))[1]
    assert error < 0.003
    assert off < 0.035  # 0.011 from v, the mean of 25 noisy pixels, the rest from the skewness 0.15
    assert abs(np.mean(stable)) > 3 * off


class Smooth(nn.Module):
    """m = the mean of 3 x 3 px."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(nn.functional.pad(x, (1,) * 4, mode="reflect"), 3, stride=1)


def test_the_risk_of_counts_holds_on_fine_structure() -> None:
    """Filaments narrower than the 5 px over which the variance is taken."""
    rng = np.random.default_rng(8)
    truth = np.stack([simulate.filaments((64, 64), rng, peak=50.0, n=6)[None] for _ in range(24)])
    data = FAINT.sample(truth, rng).astype(np.float32)
    batch = Batch(torch.from_numpy(data), None, None, torch.full(data.shape, float(np.sqrt(FAINT.b))))
    told = count_risk(Smooth(), [batch], alpha=0.2, draws=4, prefilter="zero")
    v = np.maximum(uniform_filter(data, (0, 0, 5, 5), mode="mirror"), 0) + FAINT.b
    again = data + 0.2 * np.sqrt(v) * rng.standard_normal(data.shape)
    found = FAINT.unstabilise(Smooth()(torch.from_numpy(FAINT.stabilise(again))).numpy())
    true = np.mean((found - truth) ** 2 / v)
    assert abs(told.mean() - true) < 0.02


def test_counts_are_the_planes_before_they_are_stabilised() -> None:
    noise = Noise(2.0, np.array([[4.0, 9.0]]).repeat(20, axis=0).repeat(10, axis=1), 7.0)
    data = noise.sample(np.full((20, 20), 30.0), np.random.default_rng(3))
    data[4, 5] = np.nan
    frame = Frame(data, "YX", Unit.ELECTRON, noise)
    found, (plane,) = counts([frame]), stabilised(frame)
    assert found is not None
    (raw,) = (found[i] for i in range(len(found)))
    assert raw.valid is not None
    assert raw.sigma is not None
    assert plane.valid is not None
    assert np.array_equal(raw.valid, plane.valid)
    z = 2 * np.sqrt(np.maximum(raw.z + 0.375 + raw.sigma**2, 0))
    assert np.allclose(z[raw.valid], plane.z[plane.valid], atol=1e-4)
    assert counts([frame, frame.replace(noise=Noise(0.0, 4.0))]) is None


@pytest.mark.parametrize(
    ("gain", "read_noise", "offset"), [(1.0, 0.0, 0.0), (2.0, 0.3, 7.0), (0.5, 1.6, 100.0), (1.0, 5.0, 0.0)]
)
def test_the_skewness_is_that_of_draws(gain: float, read_noise: float, offset: float) -> None:
    noise = Noise(gain, (gain * read_noise) ** 2, offset)
    mean = offset + gain * np.array([0.5, 1, 2.5, 6, 20, 300])
    z = noise.stabilise(noise.sample(np.broadcast_to(mean, (400000, 6)), np.random.default_rng(1)))
    off = z - z.mean(axis=0)
    assert np.allclose(skewness(noise, mean), (off**3).mean(axis=0) / off.std(axis=0) ** 3, atol=0.04)


@pytest.mark.parametrize("skew", [-0.97, 0.0, 0.4, 2.0])
def test_recorruption_is_drawn_with_the_noise_s_skewness(skew: float) -> None:
    n = torch.randn(2_000_000, generator=torch.Generator().manual_seed(1)).double()
    for alpha in (0.8, 1.0):
        w = objectives._skewed(n, torch.full_like(n, skew), alpha)
        assert abs(w.mean()) < 0.003
        assert abs(w.var() - 1) < 0.01
        assert (w**3).mean() == pytest.approx(skew / alpha, abs=0.03)


def test_r2r_of_a_bent_network_is_its_error_plus_a_constant_only_where_skewness_is_told() -> None:
    """Least over the bend c of m = z - c z^2: that of the error against truth."""
    rng, mean = np.random.default_rng(7), np.full((64, 1, 64, 64), 1.0)
    truth, own = float(expected(FAINT, np.array(1.0))), float(deviation(FAINT, np.array(1.0)))
    z = torch.from_numpy(FAINT.stabilise(FAINT.sample(mean, rng)).astype(np.float32))
    sigma, skew = torch.full_like(z, own), torch.full_like(z, float(skewness(FAINT, np.array(1.0))))
    gaps = []
    for told in (skew, None):
        w = torch.randn(z.shape, generator=torch.Generator().manual_seed(3))
        x = z + own * objectives._skewed(w, told, 1.0)
        batch = Batch(z, None, None, sigma, told)
        losses = [objectives.r2r(f, batch, torch.Generator().manual_seed(3), prefilter="zero").item() for f in (Kept(), Bent())]
        errors = [((f(x) - truth) ** 2).mean().item() for f in (Kept(), Bent())]
        gaps.append(losses[1] - losses[0] - (errors[1] - errors[0]))
    assert abs(gaps[0]) < 0.02
    assert abs(gaps[1]) > 0.06
