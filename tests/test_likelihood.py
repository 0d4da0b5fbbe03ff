"""The Poisson-Gaussian likelihood against published scores, brute-force sums, finite differences and an exact posterior."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from firstlight import Noise
from firstlight.errors import FrameError
from firstlight.likelihood import coefficients, nll, prox, score, transmission_nll, transmission_score, variance

METHODS = ("exact", "wls", "gauss")
# (y, mu, read noise) -> exact, wls, gauss
SCORES = [
    ((5, 3, 2), (0.266100, 0.285714, 0.255102)),
    ((10, 8, 2), (0.157876, 0.166667, 0.138889)),
    ((2, 1.5, 2), (0.024793, 0.090909, 0.004132)),
    ((0, 1, 1), (-0.554029, -0.5, -0.625)),
    ((-1, 0.5, 1.5), (-0.528790, -0.545455, -0.578512)),
]


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def brute(y: float, mu: float, s: float) -> float:
    """log p(y | mu) by a plain sum over a far too wide range."""
    k = np.arange(0, int(mu + y + 60 * (np.sqrt(mu) + s) + 60))
    return float(np.logaddexp.reduce(stats.poisson.logpmf(k, mu) + stats.norm.logpdf(y, k, s)))


@pytest.mark.parametrize(("case", "expected"), SCORES)
def test_published_scores(case: tuple[float, float, float], expected: tuple[float, ...]) -> None:
    y, mu, s = case
    got = [score(t(y), t(mu), Noise(1.0, s * s), method=m).item() for m in METHODS]
    np.testing.assert_allclose(got, expected, atol=5e-7)


@given(
    mu=st.floats(0.01, 3e4), s=st.floats(0.05, 60), z=st.floats(-4, 4), gain=st.floats(0.1, 30), offset=st.floats(-100, 1000)
)
@settings(max_examples=60, deadline=None)
def test_exact_equals_the_brute_force_sum_in_any_unit(mu: float, s: float, z: float, gain: float, offset: float) -> None:
    y = mu + z * np.sqrt(mu + s * s)
    noise = Noise(1 / gain, (s / gain) ** 2, offset)
    got = nll(t(offset + y / gain), t(offset + mu / gain), noise, method="exact").item()
    want = -(brute(y, mu, s) + np.log(gain))
    assert got == pytest.approx(want, rel=1e-7, abs=1e-6)


@pytest.mark.parametrize(("mu", "s"), [(0.3, 0.4), (4.0, 1.6), (90.0, 5.0)])
def test_exact_is_a_density(mu: float, s: float) -> None:
    y = torch.linspace(-12 * s, mu + 12 * np.sqrt(mu + s * s) + 12, 40001, dtype=torch.float64)
    p = torch.exp(-nll(y, torch.full_like(y, mu), Noise(1.0, s * s), method="exact"))
    assert torch.trapezoid(p, y).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gain", [1.0, 2.3])
def test_score_is_minus_the_gradient_of_nll(method: str, gain: float) -> None:
    rng = np.random.default_rng(1)
    x = torch.from_numpy(100 + rng.uniform(0.2, 200, 400)).requires_grad_()
    noise = Noise(1 / gain, 3.0, 100.0, c=0.0 if method == "exact" else 1e-3)
    y = torch.from_numpy(noise.sample(x.detach().numpy(), rng))
    (auto,) = torch.autograd.grad(nll(y, x, noise, method=method).sum(), x)
    torch.testing.assert_close(score(y, x.detach(), noise, method=method), -auto, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("method", ["exact", "gauss"])
def test_score_against_finite_differences(method: str) -> None:
    rng = np.random.default_rng(2)
    noise = Noise(0.4, 0.7, 10.0)
    x = torch.from_numpy(10 + rng.uniform(0.5, 80, 300))
    y = torch.from_numpy(noise.sample(x.numpy(), rng))
    h = 1e-4
    slope = -(nll(y, x + h, noise, method=method) - nll(y, x - h, noise, method=method)) / (2 * h)
    torch.testing.assert_close(score(y, x, noise, method=method), slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_score_points_towards_the_data(method: str) -> None:
    # DESIGN, impossible 3: with a Gaussian prior, prior score + likelihood score vanishes at the mode of the exact posterior
    y, prior_mean, prior_var, s = 30.0, 12.0, 40.0, 2.0
    grid = np.linspace(0.05, 80, 8001)
    posterior = np.array([brute(y, m, s) for m in grid[::20]]) + stats.norm.logpdf(grid[::20], prior_mean, prior_var**0.5)
    mode = grid[::20][np.argmax(posterior)]
    assert prior_mean < mode < y
    x = t(mode - 2, mode, mode + 2)
    total = score(torch.full_like(x, y), x, Noise(1.0, s * s), method=method) - (x - prior_mean) / prior_var
    assert total[0] > 0 > total[2]
    if method == "exact":
        assert abs(total[1]) < 0.03
    assert score(t(30.0), t(12.0), Noise(1.0, 4.0), method=method).item() > 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("mu", "s"), [(0.7, 0.5), (6.0, 1.6), (300.0, 5.0)])
def test_scores_average_to_zero_over_the_data(method: str, mu: float, s: float) -> None:
    rng = np.random.default_rng(3)
    noise, n = Noise(1.0, s * s), 40000
    g = score(
        torch.from_numpy(noise.sample(np.full(n, mu), rng)), torch.full((n,), mu, dtype=torch.float64), noise, method=method
    )
    assert abs(g.mean().item()) < 4 * g.std().item() / np.sqrt(n)


def test_score_at_zero_mean_has_its_finite_limit() -> None:
    y, s = 0.8, 1.2
    assert score(t(y), t(0.0), Noise(1.0, s * s), method="exact").item() == pytest.approx(
        np.expm1((2 * y - 1) / (2 * s * s)), rel=1e-5
    )


def test_without_read_noise_it_is_poisson() -> None:
    y, mu = t(0, 3, 9), t(0.5, 3.5, 6.0)
    want = -stats.poisson.logpmf(y.numpy(), mu.numpy())
    np.testing.assert_allclose(nll(y, mu, Noise(1.0, 0.0), method="exact").numpy(), want, rtol=1e-12)
    np.testing.assert_allclose(score(y, mu, Noise(1.0, 0.0), method="exact").numpy(), (y / mu - 1).numpy(), rtol=1e-12)
    assert nll(t(2.5), t(3.0), Noise(1.0, 0.0), method="exact").item() == np.inf


def test_float32_keeps_its_precision_at_high_counts() -> None:
    y, x = torch.tensor([20100.0]), torch.tensor([20000.0])
    got = score(y, x, Noise(1.0, 25.0), method="exact")
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(score(y.double(), x.double(), Noise(1.0, 25.0), method="exact").item(), rel=1e-5)
    assert got.item() == pytest.approx(100 / 20025, rel=1e-2)


def test_noise_as_cell_map_and_variance() -> None:
    noise = Noise(np.array([[0.5, 1.0], [2.0, 4.0]]), 1.0, 10.0, c=1e-3, d=0.5)
    x = torch.linspace(5, 60, 30, dtype=torch.float64).reshape(5, 6)
    np.testing.assert_allclose(variance(x, noise).numpy(), noise.variance(x.numpy()), rtol=1e-12)
    assert coefficients(noise, x).a.shape == (5, 6)


@pytest.mark.parametrize("response", [1.0, 0.6])
def test_prox_wls_minimises_its_quadratic(response: float) -> None:
    rng = np.random.default_rng(4)
    x0 = torch.from_numpy(rng.uniform(1, 100, 50))
    noise, step = Noise(1.0, 4.0), 3.0
    y = torch.from_numpy(noise.sample(response * x0.numpy(), rng))
    v = variance(response * x0, noise)
    x = prox(y, x0, step, noise, response=response)
    torch.testing.assert_close((x - x0) / step, response * (y - response * x) / v, rtol=1e-10, atol=1e-12)


@given(
    x0=st.floats(0.05, 2000), z=st.floats(-3, 3), s=st.floats(0.2, 8), step=st.floats(0.01, 400), response=st.floats(0.3, 2),
    gain=st.floats(0.3, 5),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_prox_exact_is_stationary_or_at_the_offset(
    x0: float, z: float, s: float, step: float, response: float, gain: float
) -> None:
    noise = Noise(1 / gain, (s / gain) ** 2, 0.0)
    y = t(response * x0 + z * np.sqrt(response * x0 / gain + noise.b))
    x = prox(y, t(x0), step, noise, response=response, method="exact", iterations=60)
    slope = (-(x - x0) / step + response * score(y, response * x, noise, method="exact")).item()
    scale = 1 / np.sqrt(step) + response / np.sqrt(noise.variance(response * x0))
    assert abs(slope) < 1e-5 * scale or (x.item() < 1e-6 and slope < 0)


def test_prox_exact_agrees_with_wls_at_high_counts() -> None:
    y, x0 = t(10300.0), t(10000.0)
    a, b = prox(y, x0, 2000.0, Noise(1.0, 25.0)), prox(y, x0, 2000.0, Noise(1.0, 25.0), method="exact")
    assert a.item() == pytest.approx(b.item(), rel=1e-4)
    assert x0.item() < b.item() < y.item()


@pytest.mark.parametrize(("form", "x"), [("transmission", (0.9, 0.2, 0.03)), ("attenuation", (0.1, 1.6, 3.5))])
def test_transmission_likelihood(form: str, x: tuple[float, ...]) -> None:
    n0, y = 500.0, t(440, 110, 12)
    xs = t(*x).requires_grad_()
    mean = n0 * xs if form == "transmission" else n0 * torch.exp(-xs)
    value = transmission_nll(y, xs, n0, form=form)
    np.testing.assert_allclose(value.detach().numpy(), -stats.poisson.logpmf(y.numpy(), mean.detach().numpy()), rtol=1e-10)
    for s in (0.0, 3.0):
        (auto,) = torch.autograd.grad(transmission_nll(y, xs, n0, form=form, read_noise=s).sum(), xs)
        torch.testing.assert_close(transmission_score(y, xs.detach(), n0, form=form, read_noise=s), -auto)
    brighter = transmission_score(y + 50, xs.detach(), n0, form=form) - transmission_score(y, xs.detach(), n0, form=form)
    assert bool((brighter > 0).all()) == (form == "transmission")


def test_refusals() -> None:
    with pytest.raises(FrameError, match="method 'map', expected one of exact"):
        score(t(1.0), t(1.0), Noise(1.0, 1.0), method="map")  # type: ignore[arg-type]
    with pytest.raises(FrameError, match="not concave"):
        prox(t(1.0), t(1.0), 1.0, Noise(1.0, 1.0), method="gauss")
    with pytest.raises(FrameError, match="zero or negative"):
        nll(t(1.0), t(1.0), Noise(0.0, 1.0))
    with pytest.raises(FrameError, match="form 'log'"):
        transmission_nll(t(1.0), t(1.0), 1.0, form="log")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["exact", "wls", "gauss"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_photon_where_none_is_expected_is_no_nan(method: str, dtype: torch.dtype) -> None:
    """Without read noise the variance vanishes at the offset; a score of 0/0 would spread through every later step."""
    noise = Noise(0.5, 0.0, offset=3.0)
    y, x = (torch.tensor(v, dtype=dtype) for v in ([3.0, 8.0, 3.0], [3.0, 3.0, 1.0]))
    assert torch.isfinite(score(y, x, noise, method=method)).all()
    assert torch.isfinite(nll(y, x, noise, method=method)).all()
    assert score(y, x, noise, method=method)[0] == (-1 / 0.5 if method == "exact" else 0)
