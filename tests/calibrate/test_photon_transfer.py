"""Photon transfer from flats and darks: known answers, properties, refusals, and the EMVA 1288 reference camera."""

import numpy as np
import pytest

from firstlight import FirstlightError, Flag, Frame, Observation, Unit, Unmodelled, simulate
from firstlight.calibrate.emva import emva_descriptor
from firstlight.calibrate.levels import lattice
from firstlight.calibrate.photon_transfer import plot, transfer
from firstlight.errors import FrameError, WriteError

GAIN, READ_NOISE, OFFSET = 2.083, 2.5, 200.0
LEVELS = (300.0, 3000.0, 9000.0, 24000.0)  # e- in the middle of the field; full scale is 33700 e-


def frame(data, exposure=None, saturation=None, **fields):
    about = Observation(exposure=exposure, saturation=saturation)
    return Frame(data, "YX", Unit.ADU, Unmodelled("raw"), observation=about, **fields)


def series(seed, levels=LEVELS, frames=2, shape=(96, 96), timed=False, **camera):
    """(flats, darks) of a simulated 14-bit camera; `timed`: exposure in seconds is the level / 1000."""
    rng = np.random.default_rng(seed)
    known = {"gain": GAIN, "read_noise": READ_NOISE, "offset": OFFSET, "bits": 14, "vignetting": 0.3, "hot": 0.0}
    sensor = simulate.make_sensor(shape, rng, **known | camera)
    times = [e / 1000 if timed else 0.0 for e in levels]
    flats, darks = [], []
    for e, t in zip(levels, times, strict=True):
        flats += [frame(sensor.expose(np.full(shape, e), rng, t), t if timed else None) for _ in range(frames)]
    for t in times if timed else [0.0]:
        darks += [frame(sensor.expose(np.zeros(shape), rng, t), t if timed else None) for _ in range(frames)]
    return flats, darks


def run(seed, **options):
    flats, darks = series(seed, **options)
    return transfer(flats, darks=darks)


def changed(frames, change):
    return [f.replace(data=change(np.asarray(f.data, dtype=np.float64))) for f in frames]


@pytest.fixture(scope="module")
def many():
    return [run(seed).detector for seed in range(100, 130)]


@pytest.mark.parametrize(("name", "truth", "spread"), [("gain", GAIN, 0.012), ("read_noise", READ_NOISE, 0.015)])
def test_gain_and_read_noise_are_unbiased_and_their_errors_honest(many, name, truth, spread):
    value = np.array([getattr(d, name) for d in many])
    std = np.array([getattr(d, name + "_std") for d in many])
    assert value.std() < spread * truth
    assert abs(value.mean() - truth) < 3.5 * value.std() / np.sqrt(len(value))
    assert 0.7 < ((value - truth) / std).std() < 1.35  # 30 runs: 1 +- 0.13


def test_offset_is_the_mean_of_the_darks_and_saturation_stays_open(many):
    pull = np.array([(d.offset - OFFSET) / d.offset_std for d in many])
    assert abs(pull.mean()) < 0.8
    assert max(abs(d.offset - OFFSET) for d in many) < 0.1
    assert all(d.saturation is None for d in many)


def test_fixed_patterns_cancel():
    assert run(1, prnu=0.05).detector.gain == pytest.approx(GAIN, rel=0.04)


@pytest.mark.parametrize("frames", [3, 6])
def test_any_number_of_frames_a_level_and_more_are_better(frames):
    two, more = run(2).detector, run(2, frames=frames).detector
    assert abs(more.gain - GAIN) < 4 * more.gain_std
    # n frames hold n - 1 differences
    assert more.gain_std == pytest.approx(two.gain_std / np.sqrt(frames - 1), rel=0.1)


def test_dark_current_lies_on_the_same_line():
    d = run(3, timed=True, dark=30.0).detector
    assert abs(d.gain - GAIN) < 4 * d.gain_std
    # stated for the shortest exposure, 0.3 s: 9 e- of dark current add their shot noise
    assert abs(d.read_noise - np.hypot(READ_NOISE, 3)) < 4 * d.read_noise_std


def test_matched_darks_are_subtracted_level_by_level():
    # an offset that moves with exposure, as amplifiers do; by levels alone the low ones would be wrong
    flats, darks = series(4, timed=True, levels=(100.0, 300.0, 1000.0, 3000.0), dark=0.0)

    def moved(frames):
        return [f.replace(data=f.data + 40.0 * np.sqrt(f.observation.exposure)) for f in frames]

    still, drift = transfer(flats, darks=darks), transfer(moved(flats), darks=moved(darks))
    assert drift.detector.gain == pytest.approx(still.detector.gain, rel=2e-3)


@pytest.mark.parametrize("k", [0.25, 4.0, 16.0])
def test_scaling_the_counts_scales_the_gain_inversely(k):
    flats, darks = series(5)
    one = transfer(flats, darks=darks).detector
    scaled = transfer(changed(flats, lambda x: k * x), darks=changed(darks, lambda x: k * x)).detector
    assert scaled.gain == pytest.approx(one.gain / k, rel=1e-6)
    assert scaled.read_noise == pytest.approx(one.read_noise, rel=1e-6)  # quantisation too: the step is found, not assumed
    assert scaled.offset == pytest.approx(k * one.offset)


def test_an_offset_changes_the_offset_alone():
    flats, darks = series(6)
    one = transfer(flats, darks=darks).detector
    moved = transfer(changed(flats, lambda x: x + 1000), darks=changed(darks, lambda x: x + 1000)).detector
    assert moved.offset == pytest.approx(one.offset + 1000)
    assert (moved.gain, moved.read_noise) == pytest.approx((one.gain, one.read_noise), rel=1e-9)


def test_the_order_of_frames_changes_nothing():
    flats, darks = series(7)
    order = np.random.default_rng(7).permutation(len(flats))
    one, other = transfer(flats, darks=darks), transfer([flats[i] for i in order], darks=darks[::-1])
    assert other.detector.gain == pytest.approx(one.detector.gain, rel=1e-12)
    assert other.detector.read_noise == pytest.approx(one.detector.read_noise, rel=1e-12)
    assert [v.frames for v in other.levels] == [2] * 5


def test_saturated_levels_do_not_move_the_gain():
    flats, darks = series(8, levels=(*LEVELS, 33000.0, 45000.0, 90000.0))
    short = transfer(flats[:8], darks=darks)
    full = transfer(flats, darks=darks)
    assert full.detector.gain == pytest.approx(short.detector.gain, rel=1e-9)
    assert [v.used for v in full.levels] == [True] * 5 + [False] * (len(full.levels) - 5)
    assert full.clipped_at == 16383
    assert abs(full.detector.saturation - 16383) < 4 * full.detector.saturation_std


def test_a_soft_full_well_is_found_by_the_fall_of_the_variance():
    rng, wells = np.random.default_rng(9), 20000.0
    flats = []
    for e in (1000, 4000, 8000, 12000, 16000, 17500, 18500, 23000, 26000):
        for _ in range(2):
            electrons = np.minimum(rng.poisson(e, (64, 64)), wells + rng.normal(0, 20, (64, 64)))
            flats.append(frame(np.rint(100 + electrons / 2).astype(np.uint16)))
    darks = [frame(np.rint(100 + rng.normal(0, 2, (64, 64))).astype(np.uint16)) for _ in range(2)]
    result = transfer(flats, darks=darks)
    d = result.detector
    assert [v.used for v in result.levels] == [True] * 6 + [False] * 3
    assert "above 0.9" in result.levels[6].reason
    assert abs(d.saturation - (100 + 18500 / 2)) < 3
    assert abs(d.saturation - (100 + wells / 2)) < 2.5 * d.saturation_std  # the well itself is the far end of the bracket
    assert abs(d.gain - 2) < 4 * d.gain_std


def test_a_saturation_that_the_file_states_ends_the_range():
    flats, darks = series(10)
    top = float(np.mean(flats[-1].data))
    told = [f.replace(observation=Observation(saturation=top)) for f in flats]
    result = transfer(told, darks=darks)
    assert [v.used for v in result.levels] == [True] * 4 + [False]
    assert "clipped" in result.levels[-1].reason


def test_outlying_pixels_do_not_count_and_their_cut_is_made_good():
    flats, darks = series(11, shape=(128, 128))
    clean = transfer(flats, darks=darks).detector
    rng = np.random.default_rng(11)
    dirty = []
    for f in [*flats, *darks]:
        data = np.array(f.data)
        data[rng.integers(0, 128, 40), rng.integers(0, 128, 40)] = rng.integers(3000, 16383, 40)
        dirty.append(f.replace(data=data))
    hit = transfer(dirty[:8], darks=dirty[8:]).detector
    assert hit.gain == pytest.approx(clean.gain, rel=0.01)
    assert hit.read_noise == pytest.approx(clean.read_noise, rel=0.01)
    hard = transfer(flats, darks=darks, clip=2.5).detector  # 1.2 % of pixels and 8 % of the variance lie beyond
    assert hard.gain == pytest.approx(clean.gain, rel=0.015)


def test_pixels_stuck_at_the_end_of_the_range_do_not_count():
    flats, darks = series(23)
    clean = transfer(flats, darks=darks).detector
    stuck = np.random.default_rng(23).random((96, 96)) < 0.003
    spoiled = [f.replace(data=np.where(stuck, np.uint16(16383), f.data)) for f in [*flats, *darks]]
    result = transfer(spoiled[:8], darks=spoiled[8:])
    assert result.detector.gain == pytest.approx(clean.gain, rel=0.01)
    assert all(v.used for v in result.levels)


def test_flagged_pixels_do_not_count():
    flats, darks = series(12)
    clean = transfer(flats, darks=darks).detector
    flags = np.zeros((96, 96), dtype=np.uint8)
    flags[:, 90:] = Flag.DEFECT
    rng = np.random.default_rng(12)

    def spoiled(f):
        data = np.array(f.data)
        data[:, 90:] = rng.integers(0, 5000, (96, 6))
        return f.replace(data=data, flags=flags)

    masked = transfer([spoiled(f) for f in flats], darks=[spoiled(f) for f in darks]).detector
    assert masked.gain == pytest.approx(clean.gain, rel=0.01)
    assert masked.offset == pytest.approx(clean.offset, abs=0.1)


def test_a_drifting_lamp_does_not_look_like_noise():
    flats, darks = series(13)
    steady = transfer(flats, darks=darks).detector
    lamp = [f.replace(data=OFFSET + (f.data - OFFSET) * (1.04 if i % 2 else 1.0)) for i, f in enumerate(flats)]
    drifted = transfer(lamp, darks=darks, levels=[i // 2 for i in range(8)]).detector
    assert drifted.gain == pytest.approx(steady.gain, rel=0.04)  # left in, 4 % of 24000 e- with 30 % vignetting add 10 %


def test_labels_say_what_belongs_together():
    flats, darks = series(14)
    named = transfer(flats, darks=darks, levels=[i // 2 for i in range(8)])
    assert named.detector.gain == pytest.approx(transfer(flats, darks=darks).detector.gain, rel=1e-12)
    with pytest.raises(FrameError, match="3 levels for 8 flats"):
        transfer(flats, darks=darks, levels=[1, 2, 3])


def test_an_offset_stands_in_for_darks():
    flats, _ = series(15, levels=(30.0, 100.0, 300.0, 3000.0))
    d = transfer(flats, offset=OFFSET).detector
    assert abs(d.gain - GAIN) < 4 * d.gain_std
    assert abs(d.read_noise - READ_NOISE) < 4 * d.read_noise_std
    assert d.offset_std is None


def test_one_dark_gives_the_offset_alone_and_unmeasured_read_noise_is_said():
    flats, darks = series(16, levels=(9000.0, 16000.0, 24000.0))
    result = transfer(flats, darks=darks[:1])
    assert result.detector.offset == pytest.approx(OFFSET, abs=0.2)
    assert not result.levels[0].used
    assert result.detector.read_noise_std > 3  # bright flats say nothing about 2.5 e-


def test_photons_give_the_quantum_efficiency():
    flats, darks = series(17, vignetting=0.0)
    photons = [e / 0.6 for e in LEVELS for _ in range(2)]
    result = transfer(flats, darks=darks, photons=photons)
    assert result.efficiency == pytest.approx(0.6, rel=0.02)
    assert abs(result.efficiency - 0.6) < 4 * result.efficiency_std


def test_correlated_noise_is_said():
    from scipy.ndimage import uniform_filter

    flats, darks = series(18)
    smooth = transfer(changed(flats, lambda x: uniform_filter(x, 2)), darks=changed(darks, lambda x: uniform_filter(x, 2)))
    assert any("correlate" in doubt for doubt in smooth.doubts)
    assert not transfer(flats, darks=darks).doubts


def test_darks_that_are_cut_off_at_zero_are_left_out():
    flats, darks = series(19)
    cut = [f.replace(data=np.maximum(f.data.astype(np.int32) - 200, 0).astype(np.uint16)) for f in [*flats, *darks]]
    result = transfer(cut[:8], darks=cut[8:])
    assert any("pile up at 0" in doubt for doubt in result.doubts)
    assert not result.levels[0].used


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f, d: ([], d), "0 flats, expected two or more"),
        (lambda f, d: (f[:1], d), "transfer_single"),
        (lambda f, d: (f[:3], d), "alone at its level"),
        (lambda f, d: (f, []), "give darks or offset="),
        (lambda f, d: (f, [frame(np.zeros((8, 8)))]), "shapes"),
        (lambda f, d: ([f[0].replace(unit=Unit.ELECTRON), *f[1:]], d), "expected adu"),
        (
            lambda f, d: ([frame(np.full((32, 32), v)) for v in (5.0, 5.0, 9.0, 9.0)], [frame(np.full((32, 32), 1.0))] * 2),
            "noise",
        ),
        (lambda f, d: ([f[0], f[0], *f[2:]], d), "same image twice"),
        (lambda f, d: (d + f[:2], f[-2:]), "swapped"),
        (lambda f, d: ([frame(f[i].data + k) for i, k in ((0, 0), (1, 0), (0, 900), (1, 900))], f[:2]), "does not rise"),
        (lambda f, d: ([x.replace(data=np.full((96, 96), np.nan)) for x in f], d), "finite"),
    ],
)
def test_bad_input_is_refused_with_the_remedy(spoil, says):
    flats, darks = spoil(*series(20))
    with pytest.raises(FirstlightError, match=says):
        transfer(flats, darks=darks)


def test_stacks_are_refused():
    flats, darks = series(20)
    stack = Frame(np.stack([f.data for f in flats]), "TYX", Unit.ADU, Unmodelled("raw"))
    with pytest.raises(FrameError, match="each exposure by itself"):
        transfer([stack, stack], darks=darks)


def test_nothing_is_changed_in_place():
    flats, darks = series(21)
    before = [np.array(f.data) for f in [*flats, *darks]]
    transfer(flats, darks=darks)
    assert all(np.array_equal(a, f.data) for a, f in zip(before, [*flats, *darks], strict=True))


@pytest.mark.parametrize(
    ("values", "step"),
    [([3, 1, 2, 7], 1.0), ([16, 48, 0, 64], 16.0), ([0.5, 1.0, 2.5], 0.5), ([0.0, 1.0, np.pi], 0.0), ([5.0, 5.0], 0.0)],
)
def test_lattice_finds_the_step_of_digitised_values(values, step):
    assert lattice(np.array(values)) == step


def test_plot_is_written_or_refused(tmp_path):
    result = run(22, levels=(*LEVELS, 60000.0))
    plot(result, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(WriteError, match="cannot be written"):
        plot(result, tmp_path / "absent" / "curve.png")
    with pytest.raises(WriteError, match="cannot be written"):
        plot(result, tmp_path / "curve.strange")


def test_emva_reference_camera(data):
    folder = data / "detector" / "emva1288_ccd"
    if not folder.exists():
        pytest.skip("the EMVA 1288 set is absent")
    import imagecodecs

    descriptor = emva_descriptor(folder / "EMVA1288_Data_subset.txt")
    flats, darks, photons = descriptor.load(lambda path: imagecodecs.png_decode(path.read_bytes()))
    result = transfer(flats, darks=darks, photons=photons)
    d = result.detector
    assert d.gain == pytest.approx(3.57, rel=0.03)
    assert d.read_noise == pytest.approx(10.9, rel=0.05)
    assert d.saturation - d.offset == pytest.approx(3890, abs=d.saturation_std)
    assert d.saturation_std < 100
    assert result.efficiency == pytest.approx(0.453, rel=0.03)
    assert any("no straight line" in doubt for doubt in result.doubts)  # 0.25 % errors show the camera's nonlinearity
    assert not result.levels[-1].used
