"""Pairs: what simulated physics makes a pair is proved, with the figures it was made with; everything else is refused."""

import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from firstlight import io
from firstlight.box import Box
from firstlight.dataset.pair import candidates, check, pair
from firstlight.dataset.proof import prove
from firstlight.dataset.scan import scan
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Observation, Unit
from firstlight.geometry import BAYER, XTRANS, Mosaic
from firstlight.noise import Noise, Unmodelled
from firstlight.simulate import filaments, star_field

SHAPE = (192, 216)
OFFSET, READ, GAIN = 100.0, 2.0, 2.0  # ADU, e-, e-/ADU


@pytest.fixture(scope="module")
def light(tree):
    return 50 + 400 * tree.scene(SHAPE, np.random.default_rng(5))


def exposed(light, factor, seed, *, frames=1, noise=True, mosaic=None, exposure=None, **changes):
    """Counts [ADU] of `factor` times the light, the mean of so many frames."""
    rng = np.random.default_rng(seed)
    e = rng.poisson(light * factor * frames) / frames + rng.normal(0, READ / frames**0.5, light.shape)
    model = Noise(1 / GAIN, (READ / GAIN) ** 2, OFFSET).averaged(frames) if noise else Unmodelled("no gain")
    seen = Observation(exposure=exposure, setting="ISO 100")
    data = (OFFSET + e / GAIN).astype(np.float32)
    return Frame(data, "YX", Unit.ADU, model, geometry=mosaic, observation=seen).replace(**changes)


def moved(frame, y, x):
    return frame.replace(data=np.roll(frame.data, (y, x), axis=(0, 1)))


@pytest.mark.parametrize("geometry", [None, Mosaic(BAYER), Mosaic(XTRANS, (1, 2))])
@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_a_true_pair_is_proved_with_its_figures(light, geometry, factor):
    if geometry is not None:
        light = light * np.array([0.6, 1.0, 0.8])[geometry.at(SHAPE)]
    found = prove(exposed(light, factor, 1, mosaic=geometry), exposed(light, 1, 2, frames=50, mosaic=geometry))
    assert found.proved, found.reason
    f = found.figures
    sd = np.sqrt(light.mean() * factor + READ**2) / GAIN
    assert f["scale"] == pytest.approx(factor, rel=0.02)
    assert f["offset"] == pytest.approx(OFFSET * (1 - factor), abs=3)
    assert f["noise_noisy"] == pytest.approx(sd, rel=0.12)  # a median over a scene of many levels
    assert f["noise_ratio"] < 0.5
    assert max(abs(f["shift_y"]), abs(f["shift_x"])) <= 0.3
    assert f["chi2"] == pytest.approx(1, abs=0.06)
    assert max(abs(f["lag1_y"]), abs(f["lag1_x"])) < 0.03
    assert f["correlation"] > 0.98


def test_the_clean_frame_s_noise_is_measured(tree):
    light = 60 + 300 * tree.scene((512, 512), np.random.default_rng(6))
    for frames in (4, 16):
        f = prove(exposed(light, 1, 1), exposed(light, 1, 2, frames=frames)).figures
        assert f["noise_ratio"] == pytest.approx(frames**-0.5, rel=0.12)


def test_a_noisy_clean_frame_does_not_flatten_the_scale(tree):
    light = 50 + 12 * tree.scene((512, 512), np.random.default_rng(6))  # its noise is 5 % of the variance of cell means
    found = prove(exposed(light, 1, 1, noise=False), exposed(light, 1, 2, frames=2))
    assert found.proved, found.reason
    assert found.figures["scale"] == pytest.approx(1, abs=0.015)
    assert found.figures["noise_ratio"] == pytest.approx(0.5**0.5, rel=0.03)
    assert found.figures["bend"] < 0.015


def test_stars_and_filaments_are_pairs_too():
    rng = np.random.default_rng(7)
    stars, _ = star_field((256, 256), rng)
    for light in (np.asarray(stars), filaments((256, 256), rng)):
        found = prove(exposed(light, 1, 1), exposed(light, 1, 2, frames=40))
        assert found.proved, found.reason


@pytest.mark.parametrize(("y", "x"), [(0, 1), (1, 0), (3, -2), (-25, 14)])
def test_a_shifted_pair_is_refused_with_its_shift(light, y, x):
    found = prove(moved(exposed(light, 1, 1), y, x), exposed(light, 1, 2, frames=50))
    assert not found.proved
    assert "shifted by" in found.reason
    assert (found.figures["shift_y"], found.figures["shift_x"]) == pytest.approx((-y, -x), abs=0.15)


def test_a_turned_pair_is_refused():
    from scipy.ndimage import rotate

    light = filaments((384, 384), np.random.default_rng(3)) * 3
    turned = np.maximum(rotate(light, 1.0, reshape=False, mode="nearest"), 0)
    found = prove(exposed(turned, 1, 1), exposed(light, 1, 2, frames=50))
    assert not found.proved
    assert "shifted" in found.reason


def faint(seed, dy=0, dx=0):
    """Filaments of about one electron under a read noise of 2 e-, and the mean of 50 such frames, seen from (dy, dx)."""
    rng = np.random.default_rng([5, seed])
    light = np.asarray(filaments((270, 270), rng), dtype=float)
    light = 0.1 + (light - light.min()) / np.quantile(light, 0.999)
    first, second = light[:256, :256], light[dy : 256 + dy, dx : 256 + dx]
    noisy = rng.poisson(first) + rng.normal(0, 2, first.shape)
    clean = rng.poisson(50 * second) / 50 + rng.normal(0, 2 / 50**0.5, first.shape)
    frames = (Frame(k.astype(np.float32), "YX", Unit.ELECTRON, Unmodelled("test")) for k in (noisy, clean))
    return prove(*frames)


def test_a_faint_pair_is_not_refused_for_a_part_that_registers_by_chance():
    found = [faint(seed) for seed in range(8)]
    assert [f.reason for f in found if "in part" in f.reason] == []
    assert sum(f.proved for f in found) >= 5


@pytest.mark.parametrize(("dy", "dx"), [(0, 1), (3, 0)])
def test_a_faint_pair_that_is_shifted_is_never_proved(dy, dx):
    assert not any(faint(seed, dy, dx).proved for seed in range(6))


def test_another_scene_is_refused(light, tree):
    other = 50 + 400 * tree.scene(SHAPE, np.random.default_rng(8))
    found = prove(exposed(other, 1, 1), exposed(light, 1, 2, frames=50))
    assert not found.proved
    assert "register" in found.reason or "shifted" in found.reason


def test_the_same_edges_in_another_brightness_are_refused(tree):
    scene = tree.scene((256, 256), np.random.default_rng(5))
    stain = np.random.default_rng(0).uniform(0, 1, 64)[(scene * 63).astype(int)]  # another stain on the same structure
    clean = exposed(50 + 400 * scene, 1, 2, frames=50)
    found = prove(exposed(50 + 200 * (scene + stain), 1, 1, noise=False), clean)
    assert found.reason == "brightness is not related: cell means, noise apart, correlate by 0.78, expected 0.9"


def test_frames_without_structure_are_refused():
    flat = np.full(SHAPE, 200.0)
    found = prove(exposed(flat, 1, 1), exposed(flat, 1, 2, frames=50))
    assert not found.proved
    assert "confidence" in found.reason
    empty = exposed(flat, 1, 1).replace(data=np.zeros(SHAPE, np.float32))
    assert not prove(empty, empty.replace(data=np.ones(SHAPE, np.float32))).proved


def test_labels_the_wrong_way_round_are_refused(light):
    noisy, clean = exposed(light, 1, 1), exposed(light, 1, 2, frames=50)
    found = prove(clean, noisy)
    assert not found.proved
    assert "not less noisy" in found.reason
    # two single frames: none is the clean one
    assert "not less noisy" in prove(noisy, exposed(light, 1, 3)).reason


def test_copies_are_refused(light):
    frame = exposed(light, 1, 1)
    assert "copies" in prove(frame, frame).reason
    scaled = frame.replace(data=frame.data * 2 + 7)
    assert not prove(frame, scaled).proved


def test_brightness_must_follow_the_exposures(light):
    clean = exposed(light, 1, 2, frames=50, exposure=10.0)
    assert prove(exposed(light, 0.1, 1, exposure=1.0), clean).proved
    found = prove(exposed(light, 0.1, 1, exposure=0.2), clean)
    assert found.reason == f"brightness scales by {found.figures['scale']:.3g}, exposures and settings by 0.02"
    # at four times the ISO a quarter of the exposure gives the same counts
    fast = exposed(light, 1.0, 1, exposure=2.5)
    fast = fast.replace(observation=replace(fast.observation, setting="ISO 400"))
    assert prove(fast, clean).figures["expected_scale"] == 1.0


def test_brightness_must_follow_a_straight_line(light):
    noisy = exposed(light, 1, 1, noise=False)
    bent = noisy.replace(data=np.sqrt(np.maximum(noisy.data - 90, 0)).astype(np.float32))
    assert "straight line" in prove(bent, exposed(light, 1, 2, frames=50)).reason
    found = prove(noisy.replace(data=-noisy.data), exposed(light, 1, 2, frames=50))
    assert not found.proved


def test_the_residual_must_be_noise(light):
    from scipy.ndimage import gaussian_filter

    clean = exposed(light, 1, 2, frames=400)
    noisy = exposed(light, 1, 1, noise=False)
    smooth = noisy.replace(data=gaussian_filter(noisy.data, 0.8))
    assert "the residual is no noise" in prove(smooth, clean).reason
    blurred = clean.replace(data=gaussian_filter(clean.data, 3.0))
    assert not prove(exposed(light, 4, 1, noise=False), blurred).proved


def test_the_residual_must_follow_the_noise_model(light):
    noisy, clean = exposed(light, 1, 1), exposed(light, 1, 2, frames=50)
    for factor in (2.0, 0.5):
        wrong = noisy.replace(noise=Noise(factor / GAIN, factor * (READ / GAIN) ** 2, OFFSET))
        found = prove(wrong, clean)
        assert not found.proved
        assert found.figures["chi2"] == pytest.approx(1 / factor, rel=0.08)
        assert "times the variance of the noise model" in found.reason


def test_saturated_and_flagged_pixels_do_not_count(light):
    top = OFFSET + 0.7 * float(light.max()) / GAIN
    clean = exposed(light, 1, 2, frames=50, noise=False)
    clipped = clean.replace(data=np.minimum(clean.data, top))
    assert prove(exposed(light, 0.2, 1, noise=False), clipped).proved
    bad = np.random.default_rng(9).random(SHAPE) < 0.01
    hot = exposed(light, 0.2, 1, noise=False)
    hot = hot.replace(data=np.where(bad, 60000, hot.data).astype(np.float32), flags=np.where(bad, Flag.HOT, 0).astype(np.uint8))
    assert prove(hot, clean).proved
    nan = clean.replace(data=np.where(bad, np.nan, clean.data))
    assert prove(exposed(light, 0.2, 1, noise=False), nan).proved


def test_shape_axes_and_phase_must_be_the_same(light):
    noisy, clean = exposed(light, 1, 1), exposed(light, 1, 2, frames=50)
    assert "192 x 216 px (YX) against 96 x 216 px" in prove(noisy, clean.replace(data=clean.data[:96])).reason
    mosaics = (f.replace(geometry=Mosaic(BAYER, (0, i))) for i, f in enumerate((noisy, clean)))
    assert "pattern or phase" in prove(*mosaics).reason
    tiny = [f.replace(data=f.data[:20, :20]) for f in (noisy, clean)]
    assert "too small" in prove(*tiny).reason


def test_every_channel_must_be_proved(light, tree):
    other = 50 + 400 * tree.scene(SHAPE, np.random.default_rng(8))
    stacks = []
    for frames, seed in ((1, 10), (50, 20)):
        parts = [exposed(k, 1, seed + i, frames=frames, noise=False) for i, k in enumerate((light, other))]
        stacks.append(parts[0].replace(data=np.stack([p.data for p in parts]), axes="CYX"))
    noisy, clean = stacks
    assert prove(noisy, clean).proved
    found = prove(noisy, clean.replace(data=np.stack([clean.data[0], np.roll(clean.data[1], 4, 0)])))
    assert found.reason.startswith("channel 1: shifted by")


def test_large_frames_are_looked_at_in_blocks(tree):
    light = 50 + 400 * np.tile(tree.scene((512, 512), np.random.default_rng(5), patches=200), (3, 3))
    noisy, clean = exposed(light, 0.3, 1), exposed(light, 1, 2, frames=50)
    reads = []

    class Watched:
        shape, dtype, ndim = clean.data.shape, clean.data.dtype, 2

        def __getitem__(self, key):
            part = clean.data[key]
            reads.append(part.size)
            return part

    found = prove(noisy, clean.replace(data=Watched()))
    assert found.proved, found.reason
    assert sum(reads) < light.size / 4


def test_candidates_and_order(tmp_path, tree):
    tree.sid(tmp_path, sony=2, fuji=0, shorts=2, shape=(48, 60))
    tree.biosr(tmp_path, standard=1, er=1, levels=1, er_levels=2, side=24)
    found = candidates(scan(tmp_path))
    names = [(c.noisy.path.rpartition("/")[2], c.clean.path.rpartition("/")[2]) for c in found]
    assert names == [
        ("RawGTSIMData_level_01.mrc", "GTSIM_level_01.mrc"),
        ("RawSIMData_level_01.mrc", "GTSIM_level_01.mrc"),
        ("RawSIMData_level_01.mrc", "RawGTSIMData_level_01.mrc"),
        ("RawGTSIMData_level_02.mrc", "GTSIM_level_02.mrc"),
        ("RawSIMData_level_01.mrc", "RawSIMData_gt.mrc"),
        ("RawSIMData_gt.mrc", "SIM_gt_a.mrc"),
        ("RawSIMData_level_01.mrc", "SIM_gt_a.mrc"),
        *[(f"0000{i}_0{k}_{s}s.ARW", f"0000{i}_00_10s.ARW") for i, s in ((1, "0.04"), (2, "0.1")) for k in (0, 1)],
    ]
    assert candidates(list(scan(tmp_path))[::-1]) == found


def test_physical_pairs_of_the_trees(tmp_path, tree):
    tree.sid(tmp_path, sony=1, fuji=1)
    tree.biosr(tmp_path, standard=1, er=1, levels=2, er_levels=2)
    tree.hla(tmp_path, pairs=1)
    tree.w2s(tmp_path, fields=1)
    seen = []
    found = pair(tmp_path, scan(tmp_path), tick=lambda *now: seen.append(now))
    assert len(seen) == len(found) + 1
    proved = [p for p in found if p.proved]
    assert Counter(p.clean.rpartition("/")[2].partition("_")[0] for p in proved) == {
        "00001": 2,
        "RawSIMData": 2,
        "RawGTSIMData": 2,
        "target": 3,
    }
    for p in found:
        if "SIM_" in p.clean.rpartition("/")[2] and "Raw" not in p.clean.rpartition("/")[2]:
            assert p.reason == "9 x 64 x 64 px against 128 x 128 px: not the same pixels"
        elif "g800l" in p.noisy:
            assert "px, expected less than" in p.reason or "register" in p.reason
        else:
            assert p.proved, p
    sid = next(p for p in proved if "Sony" in p.noisy)
    assert sid.figures["scale"] == pytest.approx(0.004, rel=0.02)
    assert sid.figures["expected_scale"] == pytest.approx(0.004)


def test_documented_counts_and_warnings(tmp_path, tree):
    tree.sid(tmp_path, sony=231, fuji=193, shape=(24, 30), fuji_shape=(24, 30))
    tree.biosr(tmp_path, standard=211, er=68, side=4)
    tree.hla(tmp_path, pairs=153, shape=(8, 8))
    with pytest.warns(UserWarning) as caught:  # noqa: PT030
        found = pair(tmp_path, scan(tmp_path), profile="documented")
    texts = " ".join(str(w.message) for w in caught)
    assert len(caught) == 3
    assert all(word in texts for word in ("SID", "no noisy/clean pair", "G800L", "1004 px"))
    kinds = Counter(p.noisy.partition("/")[0] + ("/Sony" if "Sony" in p.noisy else "") for p in found)
    assert kinds == {"SID/Sony": 231, "SID": 193, "microscopy": 619, "astronomy": 153}
    assert sum("/ER/" in p.noisy for p in found) == 408
    assert not any(p.proved for p in found)
    assert all(p.reason.startswith("as documented, not proved") for p in found)
    assert len({p.noisy for p in found}) == len({p.clean for p in found}) == 1196
    assert all(("g800l" in p.noisy, "detection" in p.clean) == (True, True) for p in found if "hla" in p.noisy)


def test_documented_pairs_take_one_short_frame(tmp_path, tree):
    tree.sid(tmp_path, sony=1, fuji=0, shorts=3, shape=(48, 60))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (found,) = pair(tmp_path, scan(tmp_path, profile="documented"), profile="documented")
    assert found.noisy.endswith("00001_00_0.04s.ARW")


def test_what_cannot_be_read_is_a_refusal(tmp_path, tree):
    tree.w2s(tmp_path, fields=1)
    sources = scan(tmp_path)
    (tmp_path / "w2s" / "target_avg400_001_0.tif").write_bytes(b"II*\0")
    found = pair(tmp_path, sources)
    assert [p.proved for p in found] == [False, True, True]
    assert found[0].reason.startswith("cannot be read: ")


def test_byte_identical_files_are_refused_unread(tmp_path, tree):
    tree.w2s(tmp_path, fields=1)
    sources = list(scan(tmp_path))
    same = replace(sources[1], sha256=sources[0].sha256)
    found = check(tmp_path, sources[0], same, read=None)
    assert found.reason == "byte-identical files: copies of one image"


def test_an_unknown_profile(tmp_path):
    with pytest.raises(FrameError, match="physical, documented"):
        pair(tmp_path, [], profile="other")
    assert pair(tmp_path, []) == []


def test_w2s_all_24_pairs_are_proved(data):
    found = pair(data / "microscopy" / "w2s", scan(data / "microscopy" / "w2s"))
    assert [p.proved for p in found] == [True] * 24, [p.reason for p in found if not p.proved]
    for p in found:
        f = p.figures
        assert max(abs(f["shift_y"]), abs(f["shift_x"])) <= 0.2
        assert f["correlation"] > 0.99
        assert f["noise_ratio"] < 0.05
        assert max(abs(f["lag1_y"]), abs(f["lag1_x"])) < 0.08


@pytest.mark.parametrize("field", [1, 3, 6])
def test_w2s_other_channels_fields_and_swapped_labels_are_refused(data, field):
    frames = {
        (kind, c): io.read(data / "microscopy" / "w2s" / f"{kind}_{field:03d}_{c}.tif")
        for kind in ("input_avg1", "target_avg400")
        for c in range(3)
    }
    for c in range(3):
        other = frames["target_avg400", (c + 1) % 3]
        assert not prove(frames["input_avg1", c], other).proved
        assert "not less noisy" in prove(frames["target_avg400", c], frames["input_avg1", c]).reason
    stranger = io.read(data / "microscopy" / "w2s" / "target_avg400_002_0.tif")
    assert not prove(frames["input_avg1", 0], stranger).proved


def test_w2s_quarters_are_proved_as_the_whole_is(data):
    folder = data / "microscopy" / "w2s"
    for name, y, x in (("002_0", 0, 0), ("004_1", 0, 256), ("004_2", 256, 0), ("006_0", 256, 256)):
        box = Box((y, x), (y + 256, x + 256))
        pair_ = (io.read(folder / f"{kind}_{name}.tif").crop(box) for kind in ("input_avg1", "target_avg400"))
        found = prove(*pair_)
        assert found.proved, (name, found.reason)
