"""Whole images through any network: tiles equal the whole, scaling undone, stars kept, the documented blend without seams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from firstlight import Flag, Frame, Mosaic, Noise, Unit, Unmodelled, inference, model_file
from firstlight.errors import FirstlightError
from firstlight.measure.white import noise_scale, with_white_noise
from firstlight.model_file import PERCENTILE, Model
from firstlight.restore.pictured import cosine, denoise_picture, percentiles

UNKNOWN = Unmodelled("a picture")


class Identity(nn.Module):
    """Returns its input: what the scaling alone does."""

    halo, multiple = 0, 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def seed(channels: int = 3, base: int = 2) -> Model:
    torch.manual_seed(0)
    made = model_file.new("seed", {"channels": channels, "base": base}, scaling=PERCENTILE)
    made.net.train()
    with torch.no_grad():  # running statistics that are not the initial ones
        made.net(torch.rand(2, channels, 32, 32))
    made.net.eval()
    return made


def identity(channels: int = 3, axes: str = "YX", domain: str = "percentile") -> Model:
    scaling = {**PERCENTILE, "domain": domain}
    return model_file.new("seed", {"channels": channels, "base": 1}, scaling=scaling, axes=axes, net=Identity())


def picture(shape: tuple[int, ...], axes: str, seed: int = 0) -> Frame:
    rng = np.random.default_rng(seed)
    data = rng.normal(60, 5, shape)
    data[..., 5, 7] = 4000
    return Frame(data.astype(np.float32), axes, Unit.ARBITRARY, UNKNOWN)


@pytest.mark.parametrize(
    ("shape", "axes", "channels", "inner"),
    [
        ((3, 40, 37), "CYX", 3, "YX"),
        ((40, 37), "YX", 3, "YX"),
        ((2, 40, 37), "CYX", 1, "YX"),
        ((2, 3, 20, 21), "TCYX", 3, "YX"),
        ((4, 20, 21), "ZYX", 1, "YX"),
        ((4, 20, 21), "ZYX", 1, "ZYX"),
        ((2, 3, 4, 20, 21), "TCZYX", 3, "ZYX"),
    ],
)
@pytest.mark.parametrize("profile", ["physical", "documented"])
def test_a_network_that_does_nothing_changes_nothing(
    shape: tuple[int, ...], axes: str, channels: int, inner: str, profile: str
) -> None:
    frame = picture(shape, axes)
    before = frame.data.copy()
    if profile == "documented":
        with pytest.warns(UserWarning, match="clipped|blended"):
            out = denoise_picture(frame, model=identity(channels, inner), profile="documented")
    else:
        out = denoise_picture(frame, model=identity(channels, inner))
    inside = frame.data < np.percentile(frame.data, 97)
    inside &= frame.data > np.percentile(frame.data, 3)
    np.testing.assert_allclose(out.data[inside], frame.data[inside], rtol=1e-5)
    star = out.data[..., 5, 7]
    assert np.all(star < 3900) if profile == "documented" else np.allclose(star, 4000, rtol=1e-5)
    np.testing.assert_array_equal(frame.data, before)
    assert out.axes == axes
    assert out.data.dtype == np.float32
    assert isinstance(out.noise, Unmodelled)
    assert out.history[-1].step == "restore.denoise_picture"
    assert out.history[-1].params["profile"] == profile


def test_tiles_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    model, frame = seed(), picture((3, 400, 330), "CYX")
    whole = denoise_picture(frame, model=model, bf16=False).data
    seen = []

    def small(m: Model, z: np.ndarray, **more: object) -> object:
        seen.append(z.shape)
        return inference.predict(m, z, tile=300 * 300, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("firstlight.restore.pictured.predict", small)
    tiled = denoise_picture(frame, model=model, bf16=False).data
    assert seen == [(3, 400, 330)]
    np.testing.assert_allclose(tiled, whole, rtol=1e-4, atol=1e-3)
    assert np.abs(whole - frame.data).max() > 1  # the network does something


def test_grey_is_what_equal_channels_give_on_average() -> None:
    model, grey = seed(), picture((48, 40), "YX")
    colour = Frame(np.stack([grey.data] * 3), "CYX", Unit.ARBITRARY, UNKNOWN)
    want = denoise_picture(colour, model=model, bf16=False).data.mean(axis=0)
    np.testing.assert_allclose(
        denoise_picture(grey, model=model, bf16=False).data, want, atol=0.02
    )  # percentiles of thrice the values


def test_scaling_and_shifting_the_picture_scales_and_shifts_the_answer() -> None:
    model, frame = seed(), picture((3, 48, 40), "CYX")
    other = frame.replace(data=3 * frame.data + 100)
    one, two = (denoise_picture(f, model=model, bf16=False).data for f in (frame, other))
    np.testing.assert_allclose(two, 3 * one + 100, rtol=1e-3)


def test_stabilised_channels_use_the_noise() -> None:
    noise = Noise(2.0, np.array([4.0, 9.0, 16.0]).reshape(3, 1, 1), 10.0)
    frame = Frame(noise.sample(np.full((3, 40, 40), 300.0), np.random.default_rng(0)), "CYX", Unit.ELECTRON, noise)
    out = denoise_picture(frame, model=identity(3, domain="stabilised"))
    bias = 2.0 / 4  # the exact inverse of one value is not the value: about a/4 more (Makitalo & Foi 2013)
    np.testing.assert_allclose(out.data, frame.data + bias, atol=0.1)
    with pytest.raises(FirstlightError, match="a picture"):
        denoise_picture(frame.replace(noise=UNKNOWN), model=identity(3, domain="stabilised"))


def test_what_is_not_trusted_does_not_spread() -> None:
    model, frame = seed(), picture((3, 48, 40), "CYX")
    flags = np.zeros((48, 40), np.uint8)
    flags[20, 20], flags[30, 30] = int(Flag.COSMIC_RAY), int(Flag.SATURATED)
    wild = frame.data.copy()
    wild[:, 20, 20] = np.nan
    a = denoise_picture(frame.replace(flags=flags), model=model, bf16=False).data
    b = denoise_picture(frame.replace(data=wild, flags=flags), model=model, bf16=False).data
    np.testing.assert_array_equal(a, b)
    assert np.isfinite(b).all()
    np.testing.assert_array_equal(b[:, 30, 30], frame.data[:, 30, 30])


def test_refusals() -> None:
    frame = picture((3, 20, 20), "CYX")
    cells = ((0, 1), (1, 2))
    mosaic = Frame(frame.data[0], "YX", Unit.ARBITRARY, UNKNOWN, geometry=Mosaic(cells))
    for bad, model, reason in (
        (picture((2, 20, 20), "CYX"), identity(3), "3 channels, the image has 2"),
        (frame, identity(3, "ZYX"), "volumes"),
        (mosaic, identity(3), "mosaic"),
    ):
        with pytest.raises(FirstlightError, match=reason):
            denoise_picture(bad, model=model)
    with pytest.raises(FirstlightError, match="profile"):
        denoise_picture(frame, model=identity(3), profile="other")  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [1, 2, 17, 512])
def test_cosine_weights_never_vanish(n: int) -> None:
    w = cosine(n)
    assert w.min() > 0
    np.testing.assert_allclose(w, w[::-1])
    if n == 512:
        np.testing.assert_allclose(w[:256] + w[256:], 1)


def test_the_documented_blend_of_a_constant_is_that_constant() -> None:
    frame = Frame(np.full((700, 530), 7.0, np.float32), "YX", Unit.ARBITRARY, UNKNOWN)
    with pytest.warns(UserWarning, match="documented"):
        out = denoise_picture(frame, model=identity(1), profile="documented")
    np.testing.assert_allclose(out.data, 7.0, rtol=1e-6)


def test_percentiles_are_the_documented_ones() -> None:
    values = np.arange(1001.0)
    rule = percentiles(values, identity())
    np.testing.assert_allclose(rule.apply(np.array([10.0, 995.0])), [0, 1], atol=1e-6)


def test_white_noise_is_measured() -> None:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:200, :200]
    data = 50 * np.sin(x / 20) + y + rng.normal(0, 2.5, (200, 200))
    assert noise_scale(data) == pytest.approx(2.5, rel=0.03)
    codes = Frame(np.where(x < 20, 9, 0).astype(np.uint8), "YX", Unit.DISPLAY, UNKNOWN)
    noise = with_white_noise(codes).noise
    assert isinstance(noise, Noise)
    assert noise.b == pytest.approx(1 / 12)
    with pytest.raises(FirstlightError, match="detector"):
        with_white_noise(codes.replace(data=np.zeros((20, 20))))
