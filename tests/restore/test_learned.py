"""The learned restorer: contracts that hold for any network, with random and with empty ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from firstlight import Box, Flag, Frame, Mosaic, Noise, Unit, Unmodelled, scale, simulate
from firstlight.errors import FrameError, ModelError
from firstlight.geometry import BAYER, XTRANS
from firstlight.model_file import PERCENTILE, Model, new, save
from firstlight.restore import denoise
from firstlight.restore.learned import halo, multiple

READ = Noise(1.0, 4.0)


def lively(seed: int = 3, **config: object) -> Model:
    """A random network whose corrections are of the order of the noise."""
    torch.manual_seed(seed)
    model = new("lean", {"inputs": 2, "widths": [6, 8]} | config)
    with torch.no_grad():
        model.net.last.weight.mul_(20)
    return model


def empty(log_variance: float = 0.0) -> Model:
    """A network that corrects nothing: the estimate is the local mean of 9 x 9 px."""
    model = new("lean", {"inputs": 2, "widths": [4]})
    with torch.no_grad():
        for weight in model.net.parameters():
            weight.zero_()
    return model


def observed(truth: np.ndarray, noise: Noise, seed: int = 4, **parts: object) -> Frame:
    y = noise.sample(truth, np.random.default_rng(seed)).astype(np.float32)
    return Frame(y, "YX", Unit.ELECTRON, noise, **parts)


def scene(shape: tuple[int, int] = (150, 170)) -> np.ndarray:
    return simulate.filaments(shape, np.random.default_rng(3), peak=60.0, n=12)


def noise_models(shape: tuple[int, int]) -> dict[str, Noise]:
    rng = np.random.default_rng(8)
    return {
        "scalar": Noise(0.5, 3.0, offset=-7.0),
        "read noise map": Noise(1.0, rng.uniform(0.5, 20, shape), offset=rng.normal(0, 3, shape)),
        "flat-fielded": Noise(rng.uniform(0.8, 1.3, shape), rng.uniform(1, 3, shape), c=1e-4, d=0.3),
        "gaussian": Noise(0.0, 4.0),
    }


@pytest.mark.parametrize("name", noise_models((1, 1)))
def test_flat_light_is_restored_without_bias(name: str) -> None:
    for level in (0.0, 2.0, 40.0):
        noise = noise_models((300, 300))[name]
        truth = np.broadcast_to(noise.offset, (300, 300)) + level
        out = denoise(observed(truth, noise), model=empty(), std=True)
        error = (out.data - truth)[20:-20, 20:-20]
        spread = np.sqrt(np.mean(noise.variance(truth)) / error.size)
        assert abs(error.mean()) < 5 * spread + 0.01 * level  # 1 %: gains averaged over 9 px are not each pixel's own
        assert error.std() < 0.2 * np.sqrt(np.mean(noise.variance(truth)))
        # an empty network's log-variance is 0: its bars are the detector's own noise
        if name in ("scalar", "gaussian") and level > 2:
            assert np.median(out.std) == pytest.approx(np.sqrt(np.mean(noise.variance(truth))), rel=0.03)


@pytest.mark.parametrize("name", noise_models((1, 1)))
@pytest.mark.parametrize("bad", [False, True])
def test_aligned_crops_with_their_halo_give_the_whole_image(name: str, bad: bool) -> None:
    truth = scene((260, 250))
    frame = observed(truth, noise_models(truth.shape)[name])
    if bad:
        flags = np.where(np.random.default_rng(1).random(truth.shape) < 0.01, Flag.HOT, 0).astype(np.uint8)
        flags[120:150, 100:120] = Flag.DEFECT
        frame = frame.replace(flags=flags)
    agree(frame, lively(), Box((132, 124), (150, 141)))


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
def test_on_a_mosaic_too(pattern: tuple) -> None:
    truth = scene((600, 420))
    mosaic = Mosaic(pattern, (1, 0))
    noise = Noise(np.where(mosaic.cell() == 1, 1.0, 1.3), 4.0)
    agree(observed(truth, noise, geometry=mosaic), lively(widths=[4], unshuffle=1), Box((330, 200), (344, 216)))


def test_under_symmetries_too() -> None:
    """The far sides are no multiples of the network's grid, the crop's neither: turned, both must meet it alike."""
    agree(observed(scene((261, 250)), READ), lively(), Box((132, 124), (150, 141)), ensemble=True)


def agree(frame: Frame, model: Model, core: Box, *, ensemble: bool = False) -> None:
    reach, step = halo(frame, model=model), [multiple(frame, model=model) * p for p in frame.period()]
    start = tuple(max(0, a - reach) // s * s for a, s in zip(core.start, step, strict=True))
    stop = tuple(min(b + reach, n) for b, n in zip(core.stop, frame.shape, strict=True))
    assert start != (0, 0)
    whole, part = (
        denoise(f, model=model, std=True, bf16=False, ensemble=ensemble) for f in (frame, frame.crop(Box(start, stop)))
    )
    inside = core.within(Box(start, stop)).slices
    np.testing.assert_allclose(part.data[inside], whole.data[core.slices], rtol=2e-4, atol=2e-3)
    np.testing.assert_allclose(part.std[inside], whole.std[core.slices], rtol=2e-3, atol=2e-3)


def test_blocks_give_the_whole_image(tmp_path: Path) -> None:
    from firstlight import io

    model, frame = lively(), observed(scene((700, 90)), READ)
    whole = denoise(frame, model=model, std=True, bf16=False)
    need = {"halo": halo(frame, model=model), "multiple": multiple(frame, model=model), "memory": 300 * 90 * 128 * 3}
    assert len(scale.bands(frame, need["halo"], need["memory"], 2, need["multiple"])) > 2
    with io.create(tmp_path / "out.fits", whole.replace(std=None), dtype=np.float32, std=True) as writer:
        scale.map_blocks(lambda b: denoise(b, model=model, std=True, bf16=False), frame, writer, workers=2, **need)
    back = io.read(tmp_path / "out.fits")
    np.testing.assert_allclose(np.asarray(back.data), whole.data, rtol=2e-4, atol=2e-3)


def test_flagged_pixels_say_nothing_and_are_filled() -> None:
    truth = scene()
    frame = observed(truth, READ)
    flags = np.zeros(truth.shape, np.uint8)
    flags[40, 50], flags[60:63, 70:73], flags[100, 100] = Flag.COSMIC_RAY, Flag.HOT, Flag.SATURATED
    hit = np.where(flags > 0, np.float32(9e4), frame.data)
    hit[20, 30] = np.nan
    hit[10, 10] = -3e38
    frame = frame.replace(flags=flags)
    out, again = (denoise(frame.replace(data=d), model=lively(), std=True) for d in (hit, np.where(hit == 9e4, 5e4, hit)))
    filled = np.isin(flags, [Flag.COSMIC_RAY, Flag.HOT])
    filled[20, 30] = filled[10, 10] = True
    assert np.all(np.isfinite(out.data))
    assert np.abs(out.data[filled] - truth[filled]).max() < 60
    assert out.data[100, 100] == 9e4
    others = flags != Flag.SATURATED
    np.testing.assert_array_equal(out.data[others], again.data[others])
    np.testing.assert_array_equal(np.isnan(out.std), filled | ~others)


def test_where_nothing_is_trusted_the_input_stays() -> None:
    flags = np.full((80, 80), Flag.NO_DATA, np.uint8)
    flags[:20] = 0
    frame = observed(np.full((80, 80), 20.0), READ, flags=flags)
    out = denoise(frame, model=empty(), std=True)
    np.testing.assert_array_equal(out.data[40:], frame.data[40:])
    assert np.isnan(out.std[20:]).all()
    assert np.abs(out.data[22:34] - 20).max() < 4


def test_pixels_noisier_than_their_surroundings_count_less() -> None:
    rng = np.random.default_rng(5)
    noisy = rng.random((200, 200)) < 0.02
    noise = Noise(1.0, np.where(noisy, 40.0**2, 2.0))
    truth = np.full(noisy.shape, 50.0)
    out = denoise(observed(truth, noise), model=empty())
    quiet = denoise(observed(truth, Noise(1.0, 2.0)), model=empty())
    blind = denoise(observed(truth, noise).replace(noise=Noise(1.0, 2.0)), model=empty())
    assert np.std(out.data) < 1.05 * np.std(quiet.data)
    assert np.std(blind.data) > 1.2 * np.std(quiet.data)
    assert abs(np.mean(out.data) - 50) < 0.1


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_a_pixel_unlike_its_surroundings_leaves_no_square_around_it(name: str) -> None:
    parts = {"a": 1.0, "b": 30.0, "c": 4e-3, "d": 2.5}
    odd = np.full((90, 90), parts[name])
    odd[45, 45] *= 300
    sky = Frame(np.full((90, 90), 40, np.float32), "YX", Unit.ELECTRON, Noise(**{**parts, name: odd}))
    out = np.asarray(denoise(sky, model=empty()).data)
    plain = np.asarray(denoise(sky.replace(noise=Noise(**parts)), model=empty()).data)
    np.testing.assert_allclose(out, plain, rtol=1e-4)


def test_what_happens_to_the_rest_of_the_frame() -> None:
    noise = Noise(np.array([1.0, 2.0]).reshape(2, 1, 1), 4.0)
    truth = np.stack([scene(), 2 * scene()])
    y = noise.sample(truth, np.random.default_rng(2)).astype(np.float32)
    flags = np.zeros(truth.shape[1:], np.uint8)
    frame = Frame(y, "CYX", Unit.ADU, noise, flags=flags, spacing={"Y": 0.1, "X": 0.1})
    before = y.copy()
    model = lively()
    out = denoise(frame, model=model)
    np.testing.assert_array_equal(frame.data, before)
    assert isinstance(out.noise, Unmodelled)
    assert out.std is None
    assert (out.unit, out.flags is flags, out.spacing) == (Unit.ADU, True, frame.spacing)
    assert out.data.dtype == np.float32
    last = out.history[-1]
    assert (last.step, last.params["weights"]) == ("restore.denoise", model.digest())
    alone = denoise(frame.replace(data=y[1], axes="YX", noise=Noise(2.0, 4.0)), model=model)
    np.testing.assert_array_equal(out.data[1], alone.data)


def test_data_without_noise_stay() -> None:
    frame = Frame(scene().astype(np.float32), "YX", Unit.ELECTRON, Noise(0.0, 0.0))
    out = denoise(frame, model=lively(), std=True)
    np.testing.assert_array_equal(out.data, frame.data)
    assert not out.std.any()


def test_a_model_from_its_file_and_a_recipe_from_the_history(tmp_path: Path) -> None:
    from firstlight import recipe

    path, frame = save(lively(), tmp_path / "m.safetensors"), observed(scene(), READ)
    out = denoise(frame, model=str(path), bf16=False)
    np.testing.assert_array_equal(out.data, denoise(frame, model=lively(), bf16=False).data)
    text = recipe.from_history(out)
    assert f'model = "{path}"' in text
    assert f"found: weights = {lively().digest()}" in text
    save(lively(seed=9), path)  # another model under the same name
    assert not np.array_equal(out.data, denoise(frame, model=str(path), bf16=False).data)


def test_refusals(tmp_path: Path) -> None:
    frame = observed(scene(), READ)
    with pytest.raises(FrameError, match="drizzled"):
        denoise(frame.replace(noise=Unmodelled("drizzled: neighbours share noise")), model=lively())
    with pytest.raises(ModelError, match="no such file"):
        denoise(frame, model=str(tmp_path / "absent.safetensors"))
    with pytest.raises(ModelError, match="domain percentile"):
        denoise(frame, model=new("seed", {"channels": 1, "base": 2}, scaling=PERCENTILE))
    with pytest.raises(ModelError, match="2 channels"):
        denoise(frame, model=new("lean", {"inputs": 4, "outputs": 4, "widths": [4]}))
    with pytest.raises(ModelError, match="axes ZYX"):
        denoise(frame, model=new("lean", {"inputs": 2, "widths": [4], "dims": 3}, axes="ZYX"))
    with pytest.raises(ModelError, match="no error bars"):
        denoise(frame, model=new("lean", {"inputs": 2, "outputs": 1, "widths": [4]}), std=True)
