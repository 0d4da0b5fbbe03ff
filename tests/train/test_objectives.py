"""Objectives: blind where they must be, unbiased for the error against truth, and the toy of the published comparison."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from firstlight.denoiser import estimate
from firstlight.errors import FrameError
from firstlight.train import objectives
from firstlight.train.batches import Batch


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(inputs: int = 2, outputs: int = 1, width: int = 12) -> nn.Module:
    torch.manual_seed(5)
    layers = [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, outputs, 3, padding=1))


def scene(size: int = 48, batch: int = 2) -> Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    waves = [10 + 4 * torch.sin((y + 2 * x + 11 * k) / 5.0) + 3 * torch.cos((x - y) / 3.0) for k in range(batch)]
    return torch.stack(waves)[:, None].float()


class Fixed(nn.Module):
    """An estimate that is whatever linear filter of the input: m = 0.7 x + 0.1 shifted x."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.7 * x + 0.1 * x.roll(1, dims=-1)


@given(seed=st.integers(0, 10**6), hole=st.sampled_from([1, 3, 5]), median=st.booleans(), share=st.sampled_from([0.003, 0.02]))
@settings(max_examples=25)
def test_the_output_at_a_masked_pixel_does_not_depend_on_any_pixel_of_its_hole(
    seed: int, hole: int, median: bool, share: float
) -> None:
    z = torch.randn((2, 1, 31, 40), generator=generator(seed))
    x, masked = objectives.blind(z, generator(seed), share=share, hole=hole, median=median)
    near = torch.nn.functional.max_pool2d(masked.float(), hole, 1, hole // 2) > 0
    other = torch.where(near, z + 100, z)  # every pixel of every hole changes at once
    again, same = objectives.blind(other, generator(seed), share=share, hole=hole, median=median)
    assert torch.equal(masked, same)
    assert torch.equal(x, again)
    assert torch.equal(x[~near], z[~near])
    net = small()
    assert torch.equal(estimate(net, x).mean[masked], estimate(net, again).mean[masked])


@pytest.mark.parametrize("share", [0.002, 0.01, 0.02])
def test_the_share_of_masked_pixels_is_what_was_asked(share: float) -> None:
    _, masked = objectives.blind(torch.zeros(4, 1, 200, 200), generator(1), share=share)
    assert masked.float().mean().item() == pytest.approx(share, rel=0.15)


def test_replacements_are_neighbours_or_their_median() -> None:
    z = torch.arange(4096.0).reshape(1, 1, 64, 64)
    x, masked = objectives.blind(z, generator(2))
    step = (x - z)[masked].abs()
    rows = (step / 64).round()
    assert torch.all(rows <= 2)
    assert torch.all((step - 64 * rows).abs() <= 2)
    assert torch.all(step > 0)
    smooth, where = objectives.blind(torch.full((1, 1, 64, 64), 7.0), generator(2), median=True)
    assert torch.all(smooth[where] == 7)


def test_only_masked_pixels_count() -> None:
    """Truth everywhere but at the masked pixels can be anything in the loss: it is 0 where the estimate is right there."""
    z = torch.full((1, 1, 32, 32), 3.0)
    assert objectives.n2v(Fixed(), Batch(z), generator(0), prefilter="zero").item() == pytest.approx((0.8 * 3 - 3) ** 2)
    valid = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    assert objectives.n2v(Fixed(), Batch(z, valid=valid), generator(0), prefilter="zero").item() == 0


def test_r2r_is_the_error_against_truth_plus_a_constant() -> None:
    """Pang et al. 2021: E r2r = E |m(z + a w) - truth|^2 + 1 + 1/a^2, for a network that has not seen z."""
    truth, alpha, rng = scene(128, 4), 0.5, generator(3)
    gaps = []
    for k in range(40):
        z = truth + torch.randn(truth.shape, generator=rng)
        loss = objectives.r2r(Fixed(), Batch(z), generator(k), alpha=alpha, prefilter="zero")
        w = torch.randn(z.shape, generator=generator(k))
        gaps.append(loss - ((Fixed()(z + alpha * w) - truth) ** 2).mean())
    gap = torch.stack(gaps)
    error = (gap.std() / len(gap) ** 0.5).item()
    assert error < 0.02
    assert abs(gap.mean().item() - (1 + 1 / alpha**2)) < 4 * error


def test_n2n_is_the_error_against_truth_plus_one() -> None:
    truth, rng = scene(128, 4), generator(4)
    gaps = []
    for _ in range(40):
        one, two = (truth + torch.randn(truth.shape, generator=rng) for _ in range(2))
        loss = objectives.n2n(Fixed(), Batch(one, two), rng, prefilter="zero")
        gaps.append(loss - objectives.supervised(Fixed(), Batch(one, truth), rng, prefilter="zero"))
    gap = torch.stack(gaps)
    error = (gap.std() / len(gap) ** 0.5).item()
    assert error < 0.01
    assert abs(gap.mean().item() - 1) < 4 * error


def test_neighbour_penalises_nothing_but_noise_where_the_estimate_is_the_truth() -> None:
    class Truth(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full_like(x, 5.0)

    z = 5 + torch.randn((8, 1, 128, 128), generator=generator(5))
    loss = objectives.neighbour(Truth(), Batch(z), generator(6), gamma=2.0, prefilter="zero").item()
    assert loss == pytest.approx(3.0, abs=0.05)  # |5 - g2|^2 + 2 |5 - g2 - (5 - 5)|^2 = 3 variances
    ramp = torch.arange(128.0).expand(1, 1, 128, 128) * torch.ones(128, 1)
    exact = objectives.neighbour(nn.Identity(), Batch(ramp), generator(6), gamma=2.0, prefilter="zero")
    one_step = objectives.neighbour(nn.Identity(), Batch(ramp), generator(6), gamma=0.0, prefilter="zero")
    assert torch.equal(exact, one_step)  # the second term takes the neighbours' own difference off
    assert 0 < one_step.item() < 1


def test_the_two_neighbours_share_a_side() -> None:
    z = torch.arange(4096.0).reshape(1, 1, 64, 64)
    draw = torch.randint(8, (1, 1, 32, 32), generator=generator(7))
    one, two = objectives._halves(z, draw)
    assert set((one - two).abs().unique().tolist()) == {1.0, 64.0}
    with pytest.raises(FrameError, match="even sides"):
        objectives.neighbour(Fixed(), Batch(torch.zeros(1, 1, 33, 32)), generator(0), prefilter="zero")


def test_the_log_variance_learns_the_mean_square_error_and_leaves_the_mean_alone() -> None:
    """1/2 (r^2 / (e^s + t) + log(e^s + t)) is least at e^s = E r^2 - t."""
    target, noise = torch.zeros(1, 1, 64, 64), 1.0
    residual = 1.5 * torch.randn((1, 1, 64, 64), generator=generator(8))
    mean = residual.clone().requires_grad_()
    s = torch.zeros(1, requires_grad=True)
    for _ in range(400):
        loss = objectives._loss(objectives.Estimate(mean, s.expand(1, 1, 64, 64)), target, noise, None)
        (step,) = torch.autograd.grad(loss, s)
        s = (s - 20 * step).detach().requires_grad_()
    assert s.exp().item() == pytest.approx((residual**2).mean().item() - noise, rel=0.01)
    loss = objectives._loss(objectives.Estimate(mean, s.expand(1, 1, 64, 64)), target, noise, None)
    (slope,) = torch.autograd.grad(loss, mean)
    assert torch.allclose(slope, 2 * residual / residual.numel())


@pytest.mark.parametrize("name", list(objectives.METHODS))
def test_every_method_has_a_gradient_and_repeats_itself(name: str) -> None:
    method = objectives.METHODS[name]
    z = scene() + torch.randn((2, 1, 48, 48), generator=generator(9))
    batch = Batch(z, scene() if method.target else None, torch.rand(z.shape, generator=generator(10)) > 0.1)
    net = small(outputs=2)
    one, two = (method.objective(net, batch, generator(11), prefilter="mean") for _ in range(2))
    assert torch.equal(one, two)
    one.backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in net.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in net.parameters())
    if method.target:
        with pytest.raises(FrameError, match="needs a target"):
            method.objective(net, Batch(z), generator(0))


def test_masked_l2_sees_all_but_one_hole_and_is_least_for_the_identity() -> None:
    z = torch.randn((3, 1, 32, 32), generator=generator(12))
    assert objectives.masked_l2(nn.Identity(), Batch(z), generator(0), prefilter="zero").item() == 0
    assert objectives.METHODS["masked-l2"].warning is not None
    with pytest.raises(FrameError, match="hole 32"):
        objectives.masked_l2(nn.Identity(), Batch(z), generator(0), hole=32)


@pytest.mark.parametrize(("hole", "share"), [(2, 0.01), (0, 0.01), (1, 0.0)])
def test_a_mask_that_cannot_be_is_refused(hole: int, share: float) -> None:
    with pytest.raises(FrameError, match="odd number"):
        objectives.blind(torch.zeros(1, 1, 32, 32), generator(0), share=share, hole=hole)


def test_n2v_denoises_where_masked_l2_stays_at_the_noisy_input() -> None:
    """The toy: noisy 23.2 dB; the published objective stays there, Noise2Void gains 5 dB and more."""
    size, sigma = 96, 0.069
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    truth = (0.5 + 0.25 * torch.sin(9 * x + 4 * y) + 0.25 * torch.cos(11 * y * x))[None, None]
    noisy = truth + sigma * torch.randn(truth.shape, generator=generator(13))

    def psnr(image: Tensor) -> float:
        return -10 * torch.log10(((image - truth) ** 2).mean()).item()

    def trained(name: str) -> float:
        method, net, z = objectives.METHODS[name], small(2, width=16).to(memory_format=torch.channels_last), noisy / sigma
        options = {"share": 0.02} if name == "n2v" else {}
        optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
        for step in range(200):
            loss = method.objective(net, Batch(z), generator(step), prefilter="mean", **options)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            return psnr(sigma * estimate(net, z, "mean").mean)

    before, void, masked = psnr(noisy), trained("n2v"), trained("masked-l2")
    assert before == pytest.approx(23.22, abs=0.1)
    assert abs(masked - before) < 0.3
    assert void > masked + 5
