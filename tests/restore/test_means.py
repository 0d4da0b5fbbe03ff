"""Non-local means: contracts of a restorer, then quality against scikit-image's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight import Box, Flag, Frame, Mosaic, Noise, Unit, Unmodelled, simulate
from firstlight.errors import FrameError
from firstlight.geometry import BAYER, XTRANS
from firstlight.restore import nonlocal_means
from firstlight.restore.means import _shifts, halo


def scene(shape: tuple[int, int] = (160, 176), seed: int = 3, peak: float = 60.0) -> np.ndarray:
    return simulate.filaments(shape, np.random.default_rng(seed), peak=peak, n=12)


def observed(truth: np.ndarray, noise: Noise, seed: int = 4, **parts: object) -> Frame:
    y = noise.sample(truth, np.random.default_rng(seed)).astype(np.float32)
    return Frame(y, "YX", Unit.ELECTRON, noise, **parts)


READ = Noise(1.0, 4.0)


def noise_models(shape: tuple[int, int]) -> dict[str, Noise]:
    rng = np.random.default_rng(8)
    return {
        "scalar": Noise(0.5, 3.0, offset=-7.0),
        "read noise map": Noise(1.0, rng.uniform(0.5, 20, shape)),
        "flat-fielded": Noise(rng.uniform(0.8, 1.3, shape), rng.uniform(1, 3, shape), c=1e-4, d=0.3),
        "gaussian": Noise(0.0, 4.0),
    }


@pytest.mark.parametrize("name", noise_models((1, 1)))
def test_noise_free_is_a_fixed_point(name: str) -> None:
    truth = scene((64, 72)).astype(np.float32)
    tiny = Frame(truth, "YX", Unit.ELECTRON, noise_models(truth.shape)[name].scaled(1e-5).shifted(0.0))
    out = nonlocal_means(tiny.replace(noise=Noise(*(getattr(tiny.noise, k) for k in ("a", "b")))))
    assert out.data == pytest.approx(truth, rel=2e-3)
    none = nonlocal_means(Frame(truth, "YX", Unit.ELECTRON, Noise(0.0, 0.0)))
    np.testing.assert_array_equal(none.data, truth)
    assert not none.std.any()


@pytest.mark.parametrize("name", noise_models((1, 1)))
@settings(max_examples=6, deadline=None)
@given(y=st.integers(0, 60), x=st.integers(0, 60), h=st.integers(1, 40), w=st.integers(1, 40), bad=st.booleans())
def test_a_crop_with_its_halo_gives_the_whole_image(name: str, y: int, x: int, h: int, w: int, bad: bool) -> None:
    truth = scene((100, 110))
    frame = observed(truth, noise_models(truth.shape)[name])
    if bad:
        flags = np.where(np.random.default_rng(1).random(truth.shape) < 0.01, Flag.HOT, 0).astype(np.uint8)
        frame = frame.replace(flags=flags)
    agree(frame, Box((y, x), (min(y + h, 100), min(x + w, 110))))


def agree(frame: Frame, core: Box) -> None:
    whole = nonlocal_means(frame)
    read = core.grow(halo(frame)).intersect(Box.whole(frame.shape))
    part = nonlocal_means(frame.crop(read))
    inner = core.within(read).slices
    # relative to what is rounded: the signal above the offset, in units of its noise
    signal = np.abs(whole.data - frame.noise.offset) + 3 * np.sqrt(frame.noise.variance(whole.data))
    # a flagged pixel's mean is taken from zero, not from its own value, and rounds more
    allowed = signal * (1e-6 if frame.flags is None else np.where(frame.flags, 3e-6, 1e-6))
    assert (np.abs(part.data[inner] - whole.data[core.slices]) <= allowed[core.slices]).all()
    np.testing.assert_allclose(part.std[inner], whole.std[core.slices], rtol=1e-4)


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
@pytest.mark.parametrize("start", [(0, 0), (7, 4)])
def test_a_mosaic_crop_with_its_halo_gives_the_whole_image(pattern: tuple, start: tuple[int, int]) -> None:
    truth = scene((120, 130))
    frame = observed(truth, READ, geometry=Mosaic(pattern))
    agree(frame, Box(start, (start[0] + 20, start[1] + 33)))


def test_the_halo_is_no_larger_than_needed() -> None:
    frame = observed(scene((64, 64)), READ)
    other = frame.data.copy()
    reach = halo(frame)
    assert halo(frame, patch=3, search=5) < reach
    other[32, 32] += 3
    moved = np.argwhere(nonlocal_means(frame).data != nonlocal_means(frame.replace(data=other)).data)
    assert 7 <= np.abs(moved - 32).max() <= reach


@pytest.mark.parametrize("flag", [Flag.COSMIC_RAY, Flag.HOT, Flag.DEAD, Flag.DEFECT, Flag.NO_DATA, Flag.SATURATED])
@pytest.mark.parametrize("noise", [READ, Noise(1.0, np.full((80, 90), 4.0))])
def test_flagged_pixels_are_neither_trusted_nor_spread(flag: Flag, noise: Noise) -> None:
    truth = scene((80, 90))
    bad = np.random.default_rng(2).random(truth.shape) < 0.02
    bad[20:27, 30:41] = True
    frame = observed(truth, noise, flags=np.where(bad, flag, 0).astype(np.uint8))
    base = nonlocal_means(frame)
    np.testing.assert_array_equal(base.flags, frame.flags)
    for value in (1e30, np.nan, -np.inf, 0.0):
        data = frame.data.copy()
        data[bad] = value
        out = nonlocal_means(frame.replace(data=data))
        np.testing.assert_array_equal(out.data[~bad], base.data[~bad])
        np.testing.assert_array_equal(out.std[~bad], base.std[~bad])
        if flag == Flag.SATURATED:
            np.testing.assert_array_equal(out.data[bad], data[bad])
            assert np.isnan(out.std[bad]).all()
        else:
            np.testing.assert_array_equal(out.data[bad], base.data[bad])
    if flag != Flag.SATURATED:
        assert np.sqrt(np.mean((base.data - truth)[bad] ** 2)) < 0.8 * truth.std()
    assert np.mean((base.data - truth)[~bad] ** 2) < 0.4 * np.mean((frame.data - truth)[~bad] ** 2)


def test_unflagged_nan_counts_as_no_data_and_a_lone_hole_stays() -> None:
    frame = observed(np.full((60, 60), 20.0), READ)
    data = frame.data.copy()
    data[:, :40] = np.nan
    out = nonlocal_means(frame.replace(data=data))
    assert np.isnan(out.data[:, :25]).all()
    assert np.isfinite(out.data[:, 35:]).all()
    assert out.data[:, 35:].mean() == pytest.approx(20, abs=0.5)


@pytest.mark.parametrize("noise", [READ, Noise(1.0, np.full((64, 64), 4.0))])
@pytest.mark.parametrize("value", [1e19, 1e30, -3.4e38, 3e38])
def test_an_absurd_value_counts_as_no_data(noise: Noise, value: float) -> None:
    """Regression: its square overflowed float32, and up to 262 pixels around it became NaN."""
    frame = observed(np.full((64, 64), 20.0), noise)
    flags = np.zeros((64, 64), np.uint8)
    flags[28:33, 33] = Flag.HOT
    data = frame.data.copy()
    data[30, 30] = value
    out = nonlocal_means(frame.replace(data=data, flags=flags))
    flags[30, 30] = Flag.NO_DATA
    same = nonlocal_means(frame.replace(flags=flags))
    np.testing.assert_array_equal(out.data, same.data)
    np.testing.assert_array_equal(out.std, same.std)


def test_two_threads_give_what_one_gives() -> None:
    from concurrent.futures import ThreadPoolExecutor

    frames = [observed(scene((90, 200), seed=k), READ, seed=k) for k in range(4)]
    with ThreadPoolExecutor(2) as pool:
        for out, frame in zip(pool.map(nonlocal_means, frames), frames, strict=True):
            one = nonlocal_means(frame)
            np.testing.assert_array_equal(out.data, one.data)
            np.testing.assert_array_equal(out.std, one.std)


def test_a_border_flag_word_without_doubt_is_no_flag() -> None:
    frame = observed(scene((40, 40)), READ)
    edge = nonlocal_means(frame.replace(flags=np.full((40, 40), Flag.EDGE | Flag.FLOORED, np.uint8)))
    np.testing.assert_array_equal(edge.data, nonlocal_means(frame).data)


def test_refuses_unmodelled_noise_with_the_reason() -> None:
    frame = Frame(np.ones((9, 9)), "YX", Unit.ELECTRON, Unmodelled("drizzled: pixels are correlated"))
    with pytest.raises(FrameError, match="drizzled: pixels are correlated"):
        nonlocal_means(frame)


@pytest.mark.parametrize("wrong", [{"patch": 4}, {"patch": 5.0}, {"patch": 1}, {"search": 0}, {"search": 6}, {"strength": 0.0}])
def test_refuses_wrong_parameters(wrong: dict) -> None:
    with pytest.raises(FrameError, match="expected"):
        nonlocal_means(observed(scene((20, 20)), READ), **wrong)


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
def test_colours_of_a_mosaic_are_not_mixed(pattern: tuple) -> None:
    mosaic = Mosaic(pattern, phase=(1, 1))
    level = np.array([20.0, 60.0, 35.0])[mosaic.at((96, 102))]
    out = nonlocal_means(observed(level, READ, geometry=mosaic))
    assert out.geometry == mosaic
    for color in range(3):
        here = mosaic.at(level.shape) == color
        assert out.data[here].mean() == pytest.approx(
            level[here].mean(), abs=4 * np.sqrt((level[here].mean() + 4) / here.sum())
        )
    assert np.std(out.data - level) < 0.5 * np.sqrt(READ.variance(level)).mean()
    for y, x in _shifts(observed(level, READ, geometry=mosaic), 5, 15):
        np.testing.assert_array_equal(np.roll(mosaic.cell(), (y, x), axis=(0, 1)), mosaic.cell())


def test_other_colours_do_not_enter_a_uniform_one() -> None:
    mosaic = Mosaic(BAYER)
    green = mosaic.at((48, 48)) == 1
    frame = observed(np.full((48, 48), 30.0), Noise(1.0, 1.0), geometry=mosaic)
    far = frame.replace(data=np.where(green, frame.data, 1e4).astype(np.float32))
    out = nonlocal_means(far)
    assert out.data[green].max() < 100
    assert out.data[green].mean() == pytest.approx(30, abs=0.2)


@pytest.mark.parametrize("mean", [0.0, 0.5, 2.0, 10.0])
@pytest.mark.parametrize("kind", ["scalar", "map"])
def test_flat_fields_are_unbiased_at_low_signal(mean: float, kind: str) -> None:
    shape = (256, 256)
    noise = Noise(1.0, 2.0 if kind == "scalar" else np.random.default_rng(0).uniform(1, 6, shape))
    out = nonlocal_means(observed(np.full(shape, mean), noise, seed=int(10 * mean)))
    assert out.data.mean() == pytest.approx(mean, abs=0.06)  # 4 % of the read noise


@pytest.mark.parametrize("name", ["tubules", "spots", "stars", "chart"])
def test_chi_square_over_its_expectation_and_standard_error_against_truth(name: str) -> None:
    rng, shape = np.random.default_rng(77), (192, 192)
    truth, noise = {
        "tubules": lambda: (simulate.filaments(shape, rng, n=20), Noise(1.0, 2.5)),
        "spots": lambda: (simulate.spots(shape, rng), Noise(1.0, 2.5)),
        "stars": lambda: (simulate.star_field(shape, rng, n=40)[0], Noise(1.0, 25.0)),
        "chart": lambda: (simulate.chart(shape, rng).mean(-1) * 60, Noise(1.0, 4.0)),
    }[name]()
    frame = observed(truth, noise, seed=9)
    out = nonlocal_means(frame)
    v = noise.variance(out.data)
    ratio = np.mean((frame.data - out.data) ** 2 / v) / (1 - np.mean(out.std**2 / v))
    assert 0.9 < ratio < 1.1
    assert 0.55 < np.sqrt(np.mean(((out.data - truth) / out.std) ** 2)) < 1.35


def test_flat_fielded_data_keep_quality() -> None:
    truth = scene((160, 160), peak=600)
    flat = 1 + 0.03 * np.random.default_rng(5).standard_normal(truth.shape)
    plain = nonlocal_means(observed(truth, READ))
    mapped = nonlocal_means(observed(truth, Noise(1 / flat, 4 / flat**2)))
    assert np.mean((mapped.data - truth) ** 2) < 1.15 * np.mean((plain.data - truth) ** 2)


def test_noisy_pixels_of_a_map_weigh_less() -> None:
    b = np.where(np.random.default_rng(1).random((96, 96)) < 0.3, 900.0, 1.0)
    truth = np.full((96, 96), 5.0)
    out = nonlocal_means(observed(truth, Noise(1.0, b)))
    assert np.std(out.data - truth) < 0.35


@pytest.mark.parametrize("seed", [0, 1])
def test_at_least_the_quality_of_scikit_images_fast_mode(seed: int) -> None:
    from skimage.restoration import denoise_nl_means

    truth = scene((192, 192), seed=seed)
    frame = observed(truth, READ, seed=seed)
    z = READ.stabilise(frame.data)
    peers = [
        READ.unstabilise(denoise_nl_means(z, patch_size=5, patch_distance=8, h=h, sigma=1.0, fast_mode=True))
        for h in (0.5, 0.6, 0.7, 0.8)
    ]
    best = min(np.mean((p - truth) ** 2) for p in peers)
    assert np.mean((nonlocal_means(frame).data - truth) ** 2) < best


def test_agrees_with_weights_written_out() -> None:
    """The sums of the kernel against its definition in numpy, flags and borders included."""
    from firstlight.restore import nlm

    rng = np.random.default_rng(6)
    z, var = rng.normal(0, 1, (13, 17)).astype(np.float32), rng.uniform(0.5, 2, (13, 17)).astype(np.float32)
    prec = (rng.random(z.shape) > 0.2) / var
    z = np.where(prec > 0, z, 0).astype(np.float32)
    frame = Frame(z, "YX", Unit.ELECTRON, READ)
    shifts = _shifts(frame, 3, 7)
    sums = np.zeros((4, *z.shape), np.float32)
    nlm.accumulate(z, var, prec.astype(np.float32), shifts, 1, 18.0, 1 / 108, sums)
    expected = np.zeros((4, *z.shape))
    pad = [np.pad(a, 1) for a in (z, var, prec)]
    for i in np.ndindex(z.shape):
        for t in [*shifts, *(-shifts)]:
            j = (i[0] + t[0], i[1] + t[1])
            if not (0 <= j[0] < 13 and 0 <= j[1] < 17):
                continue
            (zi, vi, pi), (zj, vj, pj) = ([a[k[0] : k[0] + 3, k[1] : k[1] + 3] for a in pad] for k in (i, j))
            ok = (pi > 0) & (pj > 0)
            d = np.sum(((zi - zj) ** 2 * 2)[ok] / (vi + vj)[ok]) * 9 / max(ok.sum(), 1)
            w = np.clip(1 - (d - 18) / 108, 0, 1) ** 8 * min(ok.sum() / 4, 1)
            step = prec[j] * (z[j] - z[i])
            expected[:, i[0], i[1]] += w * step, w * prec[j], w**3 * step, w**3 * prec[j]
    np.testing.assert_allclose(sums, expected, rtol=2e-4, atol=2e-4)


def test_every_plane_on_its_own_and_any_number() -> None:
    rng = np.random.default_rng(3)
    truth = np.stack([scene((40, 44), seed=k) for k in range(3)])
    noise = Noise(np.array([1.0, 2.0, 0.5]).reshape(3, 1, 1), 4.0)
    y = noise.sample(truth, rng)
    whole = nonlocal_means(
        Frame(np.rint(y).astype(np.int32), "ZYX", Unit.ELECTRON, noise, flags=np.zeros((1, 1, 44), np.uint8))
    )
    assert whole.data.dtype == np.float32
    assert whole.std.dtype == np.float32
    for k, a in enumerate((1.0, 2.0, 0.5)):
        one = nonlocal_means(Frame(np.rint(y[k]), "YX", Unit.ELECTRON, Noise(a, 4.0)))
        np.testing.assert_allclose(whole.data[k], one.data, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (3, 2), (5, 40)])
def test_small_images(shape: tuple[int, int]) -> None:
    out = nonlocal_means(observed(np.full(shape, 9.0), READ))
    assert out.shape == shape
    assert np.isfinite(out.data).all()


@pytest.mark.parametrize("name", noise_models((1, 1)))
@pytest.mark.parametrize("k", [0.01, 250.0])
def test_linear_in_the_unit(name: str, k: float) -> None:
    truth = scene((60, 64))
    frame = observed(truth, noise_models(truth.shape)[name])
    scaled = nonlocal_means(frame.replace(data=(frame.data * np.float64(k)), noise=frame.noise.scaled(k)))
    base = nonlocal_means(frame)
    np.testing.assert_allclose(scaled.data, base.data * k, rtol=1e-4, atol=1e-3 * k)
    np.testing.assert_allclose(scaled.std, base.std * k, rtol=1e-2)


def test_the_argument_is_untouched_and_the_step_recorded() -> None:
    frame = observed(scene((30, 30)), READ, flags=np.zeros((30, 30), np.uint8), spacing={"X": 0.1})
    data, flags = frame.data.copy(), frame.flags.copy()
    frame.data.setflags(write=False)
    frame.flags.setflags(write=False)
    out = nonlocal_means(frame, strength=0.9, std=False)
    np.testing.assert_array_equal(frame.data, data)
    np.testing.assert_array_equal(frame.flags, flags)
    assert out.std is None
    assert isinstance(out.noise, Unmodelled)
    assert "correlated" in out.noise.reason
    assert out.history[-1].step == "restore.nonlocal_means"
    assert out.history[-1].params == {"patch": 5, "search": 15, "strength": 0.9, "std": False}
    assert (out.unit, out.spacing, out.observation) == (frame.unit, frame.spacing, frame.observation)
