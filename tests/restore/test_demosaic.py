"""Demosaicking: contracts for every method and pattern, then the estimates against truth and against LibRaw."""

import numpy as np
import pytest

from firstlight import Flag, Frame, Mosaic, Noise, Observation, Unit, Unmodelled, cfa, io, model_file, operators, simulate
from firstlight.errors import FrameError, ModelError
from firstlight.geometry import BAYER, XTRANS
from firstlight.restore import demosaic, lmmse
from firstlight.restore.encoding import Encoding, encoding

QUAD = ((0, 0, 1, 1), (0, 0, 1, 1), (1, 1, 2, 2), (1, 1, 2, 2))
STILL = Noise(0.0, 0.0)
DETECTOR = Noise(1 / 5000, (3 / 5000) ** 2)
PHASES = [(XTRANS, (y, x)) for y in range(6) for x in range(3)] + [(BAYER, (y, x)) for y in range(2) for x in range(2)]


def sampled(truth, pattern, phase=(0, 0), noise=STILL, **changes):
    shape = truth.shape[-2:]
    data = operators.mosaic(pattern, shape, phase=phase)(truth)
    seen = Observation(saturation=1.0)
    return Frame(data, "YX", Unit.ELECTRON, noise, geometry=Mosaic(pattern, phase), observation=seen).replace(**changes)


def scene(shape=(96, 102), seed=1):
    return np.asarray(simulate.chart(shape, np.random.default_rng(seed)).transpose(2, 0, 1), dtype=np.float32)


@pytest.fixture(scope="module")
def nets():
    """Untrained networks: their corrections are small, but not zero."""
    import torch

    torch.manual_seed(4)
    made = {}
    for pattern in (XTRANS, BAYER):
        scaling = {"domain": "mosaic", "prefilter": "zero", "pattern": [list(row) for row in pattern]}
        made[pattern] = model_file.new("packed", {"pack": 6, "width": 8, "depth": 2}, scaling=scaling)
    return made


def ways(pattern, nets):
    yield {"method": "bilinear"}
    yield {"method": "lmmse"}
    if pattern in nets:
        yield {"method": "net", "model": nets[pattern], "bf16": False}


@pytest.mark.parametrize("pattern", [XTRANS, BAYER, QUAD])
@pytest.mark.parametrize("noise", [STILL, DETECTOR])
def test_a_flat_field_of_any_colour_stays_flat(pattern, noise):
    """Edge rows and columns included; no energy at the pattern's period. Samples without the noise that is stated are off by
    the correction of its mean, a quarter of an electron of 5000."""
    truth = np.ones((3, 40, 44), np.float32) * np.array([0.7, 0.4, 0.1], np.float32)[:, None, None]
    for way in ways(pattern, {}):
        out = demosaic(sampled(truth, pattern, (1, 2), noise), **way).data
        assert np.abs(out - truth).max() < (2e-6 if noise is STILL else 1e-4)
        assert np.ptp(out, axis=(1, 2)).max() < 3e-6


@pytest.mark.parametrize(("pattern", "phase"), PHASES)
def test_every_phase_gives_the_same_colours_as_a_crop(pattern, phase):
    """The same light through a mosaic that starts elsewhere: cropping first or last is the same, away from the edge."""
    truth = scene((54, 60))
    part = sampled(truth[:, phase[0] :, phase[1] :], pattern, phase)
    for method in ("bilinear", "lmmse"):
        first = demosaic(sampled(truth, pattern), method=method).data[:, phase[0] :, phase[1] :]
        assert np.abs(first - demosaic(part, method=method).data)[:, 6:-6, 6:-6].max() < 1e-5


@pytest.mark.parametrize(("pattern", "ran"), [(XTRANS, "net"), (BAYER, "net"), (QUAD, "lmmse")])
def test_auto_is_the_network_where_one_is_shipped(pattern, ran, nets):
    """History names what ran, so that it runs again as a recipe; a standard error asks for the estimate that gives one."""
    frame = sampled(scene((48, 54)), pattern, (1, 0), DETECTOR)
    out = demosaic(frame)
    assert out.history[-1].params["method"] == ran
    assert np.array_equal(out.data, demosaic(frame, method=ran).data)
    assert demosaic(frame, std=True).history[-1].params["method"] == "lmmse"
    if pattern in nets:
        named = demosaic(frame, model=nets[pattern]).history[-1].params
        assert named["method"] == "net"
        assert named["weights"] == nets[pattern].digest()


@pytest.fixture(scope="module")
def wholes(nets):
    """A scene with cells of 6 x 6 laid from the first pixel, and of X-Trans, which is the same there, from (3, 3) on."""
    truth, found = scene((114, 120)), {}
    for pattern, shift in ((XTRANS, (0, 0)), (XTRANS, (3, 3)), (BAYER, (0, 0))):
        y, x = shift
        out = np.full(truth.shape, np.nan, np.float32)
        out[:, y:, x:] = demosaic(sampled(truth[:, y:, x:], pattern, shift), method="net", model=nets[pattern], bf16=False).data
        found[pattern, shift] = out
    return truth, found


@pytest.mark.parametrize(("pattern", "phase"), PHASES)
def test_a_network_serves_every_phase(pattern, phase, nets, wholes):
    """Its colours are those of the whole, for one of the two ways to lay its cells on an X-Trans pattern."""
    truth, found = wholes
    y, x = phase
    last = demosaic(sampled(truth[:, y:, x:], pattern, phase), method="net", model=nets[pattern], bf16=False).data
    edge = nets[pattern].halo + 6
    far = [np.abs(w[:, y:, x:] - last)[:, edge:-edge, edge:-edge].max() for (p, _), w in found.items() if p is pattern]
    assert last.shape[1] > 2 * edge + 6
    assert min(far) < 1e-5


@pytest.mark.parametrize("pattern", [XTRANS, BAYER])
def test_flips_and_turns_commute_with_the_linear_estimate(pattern):
    frame = sampled(scene(), pattern, (2, 1), DETECTOR)
    out = demosaic(frame, method="lmmse").data
    turned = frame.replace(data=np.rot90(frame.data), geometry=cfa.turn(frame.geometry, frame.shape, 1))
    assert np.abs(np.rot90(out, axes=(1, 2)) - demosaic(turned, method="lmmse").data).max() < 2e-5
    flipped = frame.replace(data=frame.data[::-1], geometry=cfa.flip(frame.geometry, frame.shape, 0))
    assert np.abs(out[:, ::-1] - demosaic(flipped, method="lmmse").data).max() < 2e-5


@pytest.mark.parametrize("pattern", [XTRANS, BAYER, QUAD])
def test_samples_are_kept_without_noise(pattern, nets):
    frame = sampled(scene(), pattern, (3, 1))
    color = frame.geometry.at(frame.shape)
    for way in ways(pattern, nets):
        out = demosaic(frame, keep_samples=True, **way).data
        assert np.abs(np.take_along_axis(out, color[None], 0)[0] - frame.data).max() < 1e-6
    out = demosaic(frame, method="lmmse").data  # the linear estimate keeps them by itself
    assert np.abs(np.take_along_axis(out, color[None], 0)[0] - frame.data).max() < 1e-5


@pytest.mark.parametrize("method", ["lmmse", "net"])
def test_bands_leave_no_seam(method, nets, monkeypatch):
    from firstlight.restore import packed

    frame = sampled(scene((150, 60)), XTRANS, (4, 1), DETECTOR)
    way = {"method": method, "bf16": False} | ({"model": nets[XTRANS]} if method == "net" else {})
    whole = demosaic(frame, **way).data
    for rows in (6, 30, 144):
        monkeypatch.setattr(packed, "BAND", rows * 66)
        assert np.abs(demosaic(frame, **way).data - whole).max() < 1e-5
    if method == "net":
        assert np.abs(whole - demosaic(frame, method="lmmse").data).max() > 1e-4  # it does something


def test_a_changed_unit_changes_nothing_else(nets):
    frame = sampled(scene(), XTRANS, noise=DETECTOR)
    k = 5000.0
    more = frame.replace(data=frame.data * np.float32(k), noise=DETECTOR.scaled(k), observation=Observation(saturation=k))
    for way in ways(XTRANS, nets):
        assert np.abs(demosaic(more, **way).data / k - demosaic(frame, **way).data).max() < 2e-5


def test_bilinear_is_that_of_libraw(tmp_path):
    """The same mosaic, written as a DNG. LibRaw divides by sums of weights n as int(256 / n) / 256: too dark by up to 4/256."""
    rawpy = pytest.importorskip("rawpy")
    truth = scene((522, 528))
    for pattern in (XTRANS, BAYER):
        frame = sampled(truth, pattern, unit=Unit.ADU, noise=Noise(1.0, 1.0))
        data = np.round(frame.data * 40000).astype(np.uint16)
        seen = Observation(offset=0.0, saturation=65535.0, white_balance=(1.0, 1.0, 1.0))
        io.write(frame.replace(data=data, observation=seen), tmp_path / "m.dng")
        with rawpy.imread(str(tmp_path / "m.dng")) as raw:
            theirs = raw.postprocess(
                demosaic_algorithm=rawpy.DemosaicAlgorithm.LINEAR,
                output_color=rawpy.ColorSpace.raw,
                gamma=(1, 1),
                no_auto_bright=True,
                no_auto_scale=True,
                user_wb=[1.0, 1.0, 1.0, 1.0],
                user_flip=0,
                output_bps=16,
            )
        ours = demosaic(frame.replace(data=data), method="bilinear").data
        excess = (ours - theirs.transpose(2, 0, 1))[:, 8:-8, 8:-8]
        assert excess.min() >= -1
        assert np.all(excess <= 2 + (ours[:, 8:-8, 8:-8] * 4 / 256 if pattern is XTRANS else 0))


@pytest.mark.parametrize("pattern", [XTRANS, BAYER])
def test_the_linear_estimate_beats_means_and_denoises(pattern):
    truth = scene((240, 240), 5)
    errors = {}
    for name, noise in (("still", STILL), ("noisy", Noise(1 / 300, (3 / 300) ** 2))):
        frame = sampled(truth, pattern, noise=noise)
        if name == "noisy":
            frame = frame.replace(data=noise.sample(frame.data, np.random.default_rng(2)).astype(np.float32))
        for method in ("bilinear", "lmmse"):
            errors[name, method] = np.sqrt(np.mean((demosaic(frame, method=method).data - truth) ** 2))
    assert errors["still", "lmmse"] < 0.8 * errors["still", "bilinear"]
    assert errors["noisy", "lmmse"] < 0.95 * errors["noisy", "bilinear"]  # half of the scene is texture as rough as noise
    flat = np.full((3, 120, 120), 0.3, np.float32)
    frame = sampled(flat, pattern, noise=noise)
    frame = frame.replace(data=noise.sample(frame.data, np.random.default_rng(2)).astype(np.float32))
    left = {m: np.std(demosaic(frame, method=m).data) for m in ("bilinear", "lmmse")}
    assert left["lmmse"] < 0.7 * left["bilinear"]


def test_the_estimate_of_noisy_light_is_unbiased():
    """Balanced red and blue have two times green's noise: means of flat fields still come out, dark ones included."""
    rng = np.random.default_rng(3)
    for level, share in ((0.004, 0.05), (0.02, 0.03), (0.3, 0.03)):  # 12, 60 and 900 e-
        a = np.array([2.0, 1.0, 2.0])[Mosaic(XTRANS).cell()] / 3000
        noise = Noise(a, (2.5 * a) ** 2)
        truth = np.full((3, 300, 300), level, np.float32)
        frame = sampled(truth, XTRANS, noise=noise)
        frame = frame.replace(data=noise.sample(frame.data, rng).astype(np.float32))
        out = demosaic(frame, method="lmmse").data
        shot = np.sqrt(noise.variance(frame.data).max())
        assert np.abs(out.mean((1, 2)) - level).max() < share * shot


@pytest.mark.parametrize("pattern", [XTRANS, BAYER])
def test_error_bars_are_those_of_a_picture_of_the_model(pattern):
    """A picture drawn from the covariance itself: the errors are as large as stated, colour by colour."""
    rng, n = np.random.default_rng(7), 240
    c = lmmse.model()
    wide = np.zeros((3, 3, n, n))
    place = np.arange(-lmmse.LAGS, lmmse.LAGS + 1)
    window = np.hanning(2 * lmmse.LAGS + 3)[1:-1]
    near = c * window[:, None] * window
    wide[:, :, place[:, None], place[None]] = near
    spectrum = np.moveaxis(np.fft.fft2(wide).real, (0, 1), (-2, -1))
    value, vector = np.linalg.eigh(spectrum)
    root = vector * np.sqrt(np.maximum(value, 0))[..., None, :]
    white = np.fft.fft2(rng.normal(size=(3, n, n))).transpose(1, 2, 0)[..., None]
    truth = np.fft.ifft2((root @ np.swapaxes(vector, -1, -2) @ white)[..., 0].transpose(2, 0, 1)).real
    sigma = (0.02, 0.01, 0.03)
    cell = np.array(pattern)
    from firstlight.restore.packed import demosaicked

    color = Mosaic(pattern).at((n, n))
    y = operators.mosaic(pattern, (n, n))(truth) + rng.normal(size=(n, n)) * np.array(sigma)[color]
    weights, variance = lmmse.filters(cell, sigma, near)
    out = demosaicked(y.astype(np.float32), Mosaic(pattern), weights, sigma)
    error = (out - truth)[:, 18:-18, 18:-18].reshape(3, 34, 6, 34, 6)
    assert np.allclose(error.var((1, 3)), variance, rtol=0.25)
    assert np.mean(error**2) == pytest.approx(variance.mean(), rel=0.05)


def test_error_bars_of_a_frame():
    frame = sampled(scene(), XTRANS, noise=DETECTOR)
    out = demosaic(frame, std=True, method="lmmse")
    assert out.std.shape == out.shape
    assert (out.std > 0).all()
    color = frame.geometry.at(frame.shape)
    kept = demosaic(frame.replace(noise=STILL), std=True, method="lmmse", keep_samples=True)
    assert np.take_along_axis(kept.std, color[None], 0).max() == 0


@pytest.mark.parametrize("pattern", [XTRANS, BAYER])
def test_the_ensemble_commutes_with_flips_and_turns(pattern, nets):
    """A network's answer depends on which way up the picture is; the mean over all eight does not."""
    frame = sampled(scene((60, 54)), pattern, (2, 1), DETECTOR)
    turned = frame.replace(data=np.rot90(frame.data), geometry=cfa.turn(frame.geometry, frame.shape, 1))
    flipped = frame.replace(data=frame.data[:, ::-1], geometry=cfa.flip(frame.geometry, frame.shape, 1))
    way = {"method": "net", "model": nets[pattern], "bf16": False}
    one, all8 = demosaic(frame, **way).data, demosaic(frame, ensemble=True, **way).data
    assert np.abs(np.rot90(one, axes=(1, 2)) - demosaic(turned, **way).data).max() > 1e-4
    for changed, move in ((turned, lambda x: np.rot90(x, axes=(1, 2))), (flipped, lambda x: x[..., ::-1])):
        assert np.abs(move(all8) - demosaic(changed, ensemble=True, **way).data).max() < 1e-5
    if pattern is BAYER:  # the linear estimate commutes
        assert np.abs(demosaic(frame, ensemble=True, method="lmmse").data - demosaic(frame, method="lmmse").data).max() < 2e-5


@pytest.mark.parametrize("pattern", [XTRANS, BAYER])
def test_strength_zero_interpolates_and_keeps_samples(pattern):
    frame = sampled(scene(), pattern, noise=DETECTOR)
    frame = frame.replace(data=frame.data - 0.1)  # some far below black
    color = frame.geometry.at(frame.shape)
    off = demosaic(frame, strength=0.0, method="lmmse").data
    assert np.abs(np.take_along_axis(off, color[None], 0)[0] - frame.data).max() < 2e-5
    assert np.array_equal(demosaic(frame, strength=1.0, method="lmmse").data, demosaic(frame, method="lmmse").data)
    flat = sampled(np.full((3, 90, 90), 0.3, np.float32), pattern, noise=Noise(1 / 300, 1e-4))
    flat = flat.replace(data=flat.noise.sample(flat.data, np.random.default_rng(2)).astype(np.float32))
    left = [np.std(demosaic(flat, strength=k, method="lmmse").data) for k in (0.0, 0.5, 1.0, 2.0)]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.6 * left[0]


@pytest.mark.parametrize(
    ("pattern", "phase", "shape", "method"),
    [(XTRANS, (4, 1), (70, 88), "markesteijn"), (XTRANS, (0, 2), (61, 530), "markesteijn1"), (BAYER, (1, 0), (37, 52), "ahd")],
)
def test_methods_of_libraw(pattern, phase, shape, method):
    """Flat colours come out flat, negatives too, in any phase and size; the history names what ran."""
    truth = np.ones((3, *shape), np.float32) * np.array([0.7, 0.4, -0.01], np.float32)[:, None, None]
    out = demosaic(sampled(truth, pattern, phase), method=method)
    assert np.abs(out.data - truth).max() < 3e-5  # 16 bits
    assert out.history[-1].params["ran"].startswith("LibRaw 0.")
    assert ("Markesteijn" in out.history[-1].params["ran"]) == (pattern is XTRANS)
    smooth = scene(shape)
    smooth = np.cumsum(np.cumsum(smooth - smooth.mean(), 1), 2)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    found = demosaic(sampled(smooth, pattern, phase), method=method).data
    assert np.sqrt(np.mean((found - smooth)[:, 8:-8, 8:-8] ** 2)) < 0.02


def test_libraw_runs_what_it_is_asked_for():
    frame = sampled(scene(), XTRANS)
    three, one, vng = (demosaic(frame, method=m).data for m in ("markesteijn", "markesteijn1", "vng"))
    assert np.abs(three - one).max() > 1e-3
    assert np.abs(three - vng).max() > 1e-3
    error = {m: np.sqrt(np.mean((d - scene()) ** 2)) for m, d in (("3", three), ("2", demosaic(frame, method="bilinear").data))}
    assert error["3"] < error["2"]
    mean = demosaic(frame, method="markesteijn", ensemble=True, keep_samples=True).data
    color = frame.geometry.at(frame.shape)
    assert np.array_equal(np.take_along_axis(mean, color[None], 0)[0], frame.data)


@pytest.mark.parametrize(("pattern", "method"), [(BAYER, "markesteijn"), (XTRANS, "dht"), (QUAD, "vng"), (BAYER, "amaze")])
def test_a_method_that_does_not_apply_is_refused(pattern, method):
    with pytest.raises(FrameError, match=r"does not apply|expected auto"):
        demosaic(sampled(scene(), pattern), method=method)


def test_lost_pixels_do_not_show():
    truth = np.full((3, 36, 36), 0.5, np.float32)
    frame = sampled(truth, XTRANS)
    data, flags = frame.data.copy(), np.zeros((36, 36), np.uint8)
    data[7, 8], data[20, 21] = 9.0, np.nan
    flags[7, 8] = Flag.HOT
    out = demosaic(frame.replace(data=data, flags=flags), keep_samples=True, method="lmmse")
    assert np.abs(out.data - 0.5).max() < 2e-6
    assert np.isnan(data[20, 21])  # the argument is untouched


def test_the_frame_after_it():
    frame = sampled(scene(), BAYER, noise=DETECTOR)
    out = demosaic(frame, method="lmmse")
    assert (out.axes, out.unit, out.geometry, out.data.dtype) == ("CYX", frame.unit, None, np.float32)
    assert isinstance(out.noise, Unmodelled)
    assert out.history[-1].step == "restore.demosaic"
    assert out.history[-1].params["method"] == "lmmse"


def test_encoding_is_the_inverse_of_decoding_on_average():
    noise = Encoding(np.array([[2e-3, 4e-6], [1e-3, 1e-6], [1.5e-3, 2e-6]]), 1.0)
    rng = np.random.default_rng(8)
    for k in range(3):
        a, b = noise.own[k]
        for light in (0.005, 0.05, 0.5):
            y = Noise(a, b).sample(np.full(400_000, light), rng)
            mean = noise.encode(y, np.full(y.shape, k)).mean(keepdims=True)
            assert noise.decode(mean.astype(np.float32))[0] == pytest.approx(light, abs=0.03 * np.sqrt(a * light + b))


@pytest.mark.parametrize(
    ("changes", "params", "message"),
    [
        ({"geometry": None}, {}, "no mosaic"),
        ({"geometry": Mosaic(BAYER, colors="CMY")}, {}, "expected R, G and B"),
        ({"noise": Unmodelled("a picture")}, {}, "a picture"),
        ({"noise": Noise(1.0, 1.0, 64.0)}, {}, "black level"),
        ({}, {"method": "bilinear", "std": True}, "no standard error"),
        ({}, {"strength": 0.5, "std": True}, "no standard error"),
        ({}, {"strength": -1.0}, "strength -1"),
    ],
)
def test_refusals(changes, params, message):
    with pytest.raises(FrameError, match=message):
        demosaic(sampled(scene(), BAYER, **changes), **params)


def test_a_model_of_another_pattern_is_refused(nets):
    with pytest.raises(ModelError, match="in no phase"):
        demosaic(sampled(scene(), BAYER), method="net", model=nets[XTRANS])
    with pytest.raises(ModelError, match="trained on mosaics"):
        demosaic(sampled(scene(), BAYER), method="net", model=model_file.new("lean", {"inputs": 2}))


def test_the_noise_of_a_cell_is_to_the_last_bit_that_of_any_frame():
    """Else each size of frame would have filters solved for it: variances of a cell of 2 x 2, whole and broken periods."""
    cell = np.array([[0.1, 0.2], [0.3, 0.7]]) / 3000
    made = {
        shape: encoding(sampled(scene(shape), XTRANS, noise=Noise(1 / 5000, cell)), Mosaic(XTRANS, colors="RGB"))
        for shape in ((48, 50), (60, 60), (61, 67))
    }
    color = Mosaic(XTRANS).at((6, 6))
    wanted = [np.mean(np.tile(cell, (3, 3))[color == k]) for k in range(3)]
    for code in made.values():
        assert code.sigma == made[60, 60].sigma
        np.testing.assert_allclose(code.own[:, 1], wanted, rtol=1e-12)
