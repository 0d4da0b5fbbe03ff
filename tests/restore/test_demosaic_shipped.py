"""The demosaicking networks that ship: every phase, flat fields, edges, seams, samples, what they were made of."""

import numpy as np
import pytest

from firstlight import Frame, Mosaic, Noise, Observation, Unit, model_file, operators, simulate
from firstlight.geometry import BAYER, XTRANS
from firstlight.restore import demosaic

NAMES = {XTRANS: "demosaic_xtrans", BAYER: "demosaic_bayer"}
STILL = Noise(0.0, 0.0)
DETECTOR = Noise(1 / 5000, (3 / 5000) ** 2)
PHASES = [(XTRANS, (1, 2)), (XTRANS, (5, 1)), (BAYER, (1, 0))]  # all of them: test_demosaic.py, with a network that sees less


@pytest.fixture(scope="module")
def nets():
    return {pattern: model_file.load(model_file.shipped(name)) for pattern, name in NAMES.items()}


def sampled(truth, pattern, phase=(0, 0), noise=STILL):
    shape = truth.shape[-2:]
    data = operators.mosaic(pattern, shape, phase=phase)(truth)
    seen = Observation(saturation=1.0)
    return Frame(data, "YX", Unit.ELECTRON, noise, geometry=Mosaic(pattern, phase), observation=seen)


def learned(frame, net, **params):
    return demosaic(frame, method="net", model=net, bf16=False, **params).data


def scene(shape, seed=1):
    return np.asarray(simulate.chart(shape, np.random.default_rng(seed)).transpose(2, 0, 1), dtype=np.float32)


def flat(rgb, side):
    return np.ones((3, side, side), np.float32) * np.array(rgb, np.float32)[:, None, None]


@pytest.fixture(scope="module")
def wholes(nets):
    """A scene in each of the two ways in which cells of 6 x 6 can lie on an X-Trans pattern: (3, 3) later it is the same."""
    truth, found = scene((258, 264)), {}
    for pattern in NAMES:
        for shift in ((0, 0), (3, 3)) if pattern is XTRANS else ((0, 0),):
            out = np.full(truth.shape, np.nan, np.float32)
            part = truth[:, shift[0] :, shift[1] :]
            out[:, shift[0] :, shift[1] :] = learned(sampled(part, pattern, shift, DETECTOR), nets[pattern])
            found[pattern, shift] = out
    return truth, found


@pytest.mark.parametrize(("pattern", "phase"), PHASES)
def test_every_phase_gives_the_same_colours_as_a_crop(pattern, phase, nets, wholes):
    """Away from the edge by what the network sees: to 1e-5 those of the whole, for one of the two ways to lay the cells."""
    truth, found = wholes
    y, x = phase
    out = learned(sampled(truth[:, y:, x:], pattern, phase, DETECTOR), nets[pattern])
    edge = nets[pattern].halo + 6
    far = [np.abs(w[:, y:, x:] - out)[:, edge:-edge, edge:-edge].max() for (p, _), w in found.items() if p is pattern]
    assert out.shape[1] - 2 * edge > 6
    assert min(far) < 1e-5


@pytest.mark.parametrize("pattern", NAMES)
@pytest.mark.parametrize("noise", [STILL, DETECTOR])
@pytest.mark.parametrize("rgb", [(0.4, 0.4, 0.4), (0.7, 0.4, 0.1), (0.02, 0.02, 0.02)])
def test_a_flat_field_stays_flat(pattern, noise, rgb, nets):
    """Of any colour, edge rows and columns included, as with the linear estimate: nothing at the pattern's period."""
    frame = sampled(flat(rgb, 60), pattern, (1, 2), noise)
    out = learned(frame, nets[pattern])
    assert np.abs(out - demosaic(frame, method="lmmse").data).max() < 3e-6
    assert np.ptp(out, axis=(1, 2)).max() < 3e-6


@pytest.mark.parametrize("pattern", NAMES)
def test_a_noisy_flat_field_holds_next_to_nothing_at_the_patterns_period(pattern, nets):
    """The mean over 100 cells and 60 draws, known to a 77th of one pixel's noise: below a 20th of it."""
    total = np.zeros((3, 6, 6))
    for seed in range(60):
        frame = sampled(flat((0.4, 0.4, 0.4), 96), pattern, (1, 2), DETECTOR)
        frame = frame.replace(data=DETECTOR.sample(frame.data, np.random.default_rng(seed)).astype(np.float32))
        total += learned(frame, nets[pattern])[:, 18:78, 18:78].reshape(3, 10, 6, 10, 6).mean((1, 3)) / 60
    assert np.std(total, axis=(1, 2)).max() < 0.05 * np.sqrt(DETECTOR.variance(np.float64(0.4)))


@pytest.mark.parametrize("pattern", NAMES)
def test_bands_of_a_large_frame_leave_no_seam(pattern, nets, monkeypatch):
    from firstlight.restore import packed

    frame = sampled(scene((420, 90), 2), pattern, (1, 1), DETECTOR)
    whole = learned(frame, nets[pattern])
    for name in ("BAND", "NET_BAND"):
        monkeypatch.setattr(packed, name, 30 * 90, raising=False)
    assert np.abs(learned(frame, nets[pattern]) - whole).max() < 1e-5


@pytest.mark.parametrize("pattern", NAMES)
def test_samples_are_kept(pattern, nets):
    frame = sampled(scene((66, 72), 3), pattern, (1, 2))
    out = learned(frame, nets[pattern], keep_samples=True)
    color = frame.geometry.at(frame.shape)
    assert np.abs(np.take_along_axis(out, color[None], 0)[0] - frame.data).max() < 1e-6


@pytest.mark.parametrize("name", NAMES.values())
def test_the_card_says_what_it_was_made_of(name):
    path = model_file.shipped(name)
    card = model_file.load(path).card
    assert path.stat().st_size < 6e6
    assert len(card["data"]) > 20
    assert all(d["licence"] for d in card["data"])
    assert "scripts/train_demosaic.py PHOTOS" in card["command"]
    assert card["figures"]["psnr_db"]


@pytest.mark.parametrize("pattern", NAMES)
def test_it_beats_the_linear_estimate_on_a_picture_never_trained_on(pattern, nets):
    """By 1 dB or more on skimage's astronaut, halved in light: samples of light, and of 2000 e- with noise of seed 5."""
    from skimage import data

    light = simulate.linearise(data.astronaut() / 255.0).reshape(256, 2, 256, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    light = np.ascontiguousarray(light, dtype=np.float32)
    for noise in (STILL, Noise(1 / 2000, (3 / 2000) ** 2)):
        frame = sampled(light, pattern, noise=noise)
        random = np.random.default_rng(5).normal(size=frame.shape) * np.sqrt(noise.variance(frame.data))
        frame = frame.replace(data=(frame.data + random).astype(np.float32))
        error = [
            np.sqrt(np.maximum(o, 0)) - np.sqrt(light)
            for o in (demosaic(frame, method="lmmse").data, learned(frame, nets[pattern]))
        ]
        lmmse, net = (-10 * np.log10(np.mean(e[:, 8:-8, 8:-8] ** 2)) for e in error)
        assert net > lmmse + 1, (net, lmmse)
