import warnings
from dataclasses import replace

import numpy as np
import pytest

from firstlight import io, tiles
from firstlight.dataset.prepare import each, grid_of, prepare
from firstlight.dataset.rows import Source
from firstlight.errors import FrameError, ReadError
from firstlight.frame import Flag, Frame, Observation, Unit
from firstlight.geometry import BAYER, XTRANS, Mosaic
from firstlight.noise import Noise, Unmodelled
from firstlight.scaling import Scaling


def source(path, domain="photography"):
    return Source(str(path), domain, "test", "scene", "view", "noisy", sha256="0")


def raw(path, pattern=BAYER, data=None, size=(600, 1100), **seen):
    """A CFA DNG of a camera; black 512, white 16383."""
    if data is None:
        data = np.random.default_rng(8).integers(512, 2000, size).astype(np.uint16)
    seen = {"instrument": "ILCE-7SM2", "setting": "ISO 200", "offset": 512.0, "saturation": 16383.0} | seen
    frame = Frame(data, "YX", Unit.ADU, Unmodelled("no gain"), geometry=Mosaic(pattern), observation=Observation(**seen))
    io.write(frame, path.with_suffix(".dng"))
    path.with_suffix(".dng").rename(path)
    return path


def mrc(path, data, axes):
    io.write(Frame(data, axes, Unit.ARBITRARY, Unmodelled("no gain")), path)
    path.with_name(f"{path.name}.json").unlink(missing_ok=True)
    return path


def documented(path, domain="photography", profile="documented"):
    with warnings.catch_warnings(action="ignore"):
        one = prepare(path, source(path, domain), profile=profile)
        return one, one.frame


# the documented calibration, to the last digit of the oracles: ADU, electrons, scaled
ORACLES = [
    ("a.ARW", "photography", 100, 496.44, 0.0062055),
    ("a.ARW", "photography", 15871, 79351.44, 0.991893),
    ("a.RAF", "photography", 15359, 27642.45, 0.345531),
    ("a.fits", "astronomy", 0, -3.5, 0.0088235),
    ("a.mrc", "microscopy", 65535, 65533.5, 0.992932),
]


@pytest.mark.parametrize(("name", "domain", "adu", "electrons", "scaled"), ORACLES)
def test_documented_values(tmp_path, name, domain, adu, electrons, scaled):
    path = tmp_path / name
    data = np.full((1100, 1100), adu, dtype=np.uint16)
    if domain == "photography":
        raw(path, XTRANS if name.endswith("RAF") else BAYER, data)
    else:
        mrc(path.with_suffix(".mrc"), data, "YX")
        path = path.with_suffix(".mrc")
    one, frame = documented(path, domain)
    assert frame.data.dtype == np.float32
    np.testing.assert_allclose(frame.data, electrons, rtol=1e-7)
    np.testing.assert_allclose(one.scaling.apply(frame.data), scaled, atol=6e-7 if scaled > 0.1 else 6e-8)
    assert one.original == (adu, adu)


# image (Y, X), domain, grid by name, starts of rows and columns: FACTS of the published grids
GRIDS = [
    ((1424, 2128), "photography", "sony", (0, 233, 466, 699, 932, 1168), (0, 234, 468, 702, 936, 1170, 1404, 1638, 1872)),
    ((1008, 1508), "photography", "fuji", (0, 250, 500, 752), (0, 250, 500, 750, 1000, 1252)),
    ((1004, 1004), "microscopy", None, (0, 249, 498, 748), (0, 249, 498, 748)),
    ((502, 502), "microscopy", None, (0, 82, 164, 246), (0, 82, 164, 246)),
    ((2116, 2110), "astronomy", None, (*range(0, 1625, 232), 1860), (*range(0, 1618, 231), 1854)),
]


@pytest.mark.parametrize(("shape", "domain", "name", "rows", "cols"), GRIDS)
@pytest.mark.parametrize("profile", ["physical", "documented"])
def test_published_grids(shape, domain, name, rows, cols, profile):
    cells = grid_of(shape, domain, profile, name)
    assert [t.read.start for t in cells] == [(y, x) for y in rows for x in cols]
    assert {t.read.shape for t in cells} == {(256, 256)}


def test_a_grid_with_gaps_is_kept_as_documented_with_a_warning_and_never_taken_by_physical():
    shape = (4232, 4220)
    with pytest.warns(UserWarning, match="gaps of up to 241 px"):
        cells = grid_of(shape, "astronomy", "documented")
    assert len(cells) == 81
    seen = np.zeros(shape, dtype=bool)
    for tile in cells:
        seen[tile.read.slices] = True
    assert 0.295 < seen.mean() < 0.305
    seen[:] = False
    for tile in grid_of(shape, "astronomy", "physical"):
        seen[tile.read.slices] = True
    assert seen.all()


@pytest.mark.parametrize("length", [256, 257, 511, 512, 513, 2049, 4220, 4232, 5000])
def test_other_images_get_the_least_grid_that_covers_them(length):
    rows = {t.read.start[0] for t in grid_of((length, 256), "tomography", "physical")}
    cols = [t.read.start[1] for t in grid_of((256, length), "tomography", "physical")]
    assert sorted(rows) == cols
    seen = np.zeros(length, dtype=bool)
    for start in cols:
        seen[start : start + 256] = True
    assert seen.all()
    if len(cols) > 1:
        with pytest.raises(FrameError):
            tiles.grid((256, length), 1, len(cols) - 1, 256)


def test_too_small_and_unknown():
    with pytest.raises(FrameError, match="larger than the image"):
        grid_of((200, 900), "microscopy", "physical")
    with pytest.raises(FrameError, match="would cut a place twice"):
        grid_of((260, 900), "photography", "documented", "sony")
    with pytest.raises(FrameError, match="no tile grid for tomography"):
        grid_of((900, 900), "tomography", "documented")
    with pytest.raises(FrameError, match="unknown profile 'ideal'"):
        prepare("x.dng", source("x.dng"), profile="ideal")


def test_sizes_of_the_sid_cameras(tmp_path):
    sony = raw(tmp_path / "a.ARW", size=(2848, 4256))
    fuji = raw(tmp_path / "b.RAF", XTRANS, size=(4032, 6032), instrument="X-T2")
    for path, shape, count, gain in ((sony, (3, 1424, 2128), 54, 5.0), (fuji, (3, 1008, 1508), 24, 1.8)):
        with warnings.catch_warnings(action="ignore"):
            one = prepare(path, source(path), profile="documented")
        assert (one.shape, len(one.grid), one.gain) == (shape, count, gain)
    given = "gain=1.8,read_noise=3.75,offset=1024"
    for path, shape, count in ((sony, (3, 1424, 2128), 54), (fuji, (3, 1008, 1508), 24)):
        one = prepare(path, source(path), detector=given)
        assert (one.shape, len(one.grid)) == (shape, count)


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
def test_physical_photo_is_electrons_with_the_noise_that_simulation_shows(tmp_path, pattern):
    rng, gain, read = np.random.default_rng(5), 2.5, 4.0
    shape = (1200, 1200)
    light = np.array([80.0, 200.0, 120.0])[Mosaic(pattern).at(shape)]
    adu = np.rint(512 + (rng.poisson(light) + rng.normal(0, read, shape)) / gain).astype(np.uint16)
    path = raw(tmp_path / "a.dng", pattern, adu)
    one = prepare(path, source(path), detector=f"gain={gain},read_noise={read},offset=512")
    frame = one.frame
    assert frame.unit is Unit.ELECTRON
    assert (one.gain, one.read_noise) == (gain, pytest.approx(read))
    z = (frame.data - np.array([80.0, 200.0, 120.0])[:, None, None]) / np.sqrt(
        frame.noise.variance(np.broadcast_to(np.array([80.0, 200.0, 120.0])[:, None, None], frame.shape))
    )
    n = z[0].size
    for plane in z:
        assert abs(plane.mean()) < 4.5 / np.sqrt(n)
        assert abs(plane.var() - 1 - gain**2 / 12 / 100) < 4.5 * np.sqrt(2 / n) + 0.01  # rounding adds step^2/12


def test_electrons_of_a_part_are_those_of_the_whole_to_the_bit(tmp_path):
    path = raw(tmp_path / "a.dng", XTRANS, size=(1201, 1403))
    one = prepare(path, source(path), detector="gain=1.7,read_noise=3,offset=511.3")
    whole = one.frame
    for tile in one.grid:
        part = one.electrons(tile.read)
        np.testing.assert_array_equal(part.data, whole.data[(slice(None), *tile.read.slices)])
        np.testing.assert_array_equal(part.noise.b, whole.noise.crop(whole.shape, replace_lead(tile.read, 3)).b)
    assert one.noise().a.shape == whole.shape


def replace_lead(box, channels):
    return replace(box, start=(0, *box.start), stop=(channels, *box.stop))


def test_saturated_pixels_are_flagged_in_what_they_touch(tmp_path):
    data = np.full((600, 600), 900, dtype=np.uint16)
    data[100, 200] = 16383  # red
    path = raw(tmp_path / "a.dng", BAYER, data)
    one = prepare(path, source(path), detector="gain=1,read_noise=3")
    assert np.argwhere(one.frame.flags == Flag.SATURATED).tolist() == [[0, 50, 100]]


def test_gain_of_the_table_serves_without_its_read_noise_and_the_noise_stays_unmodelled(tmp_path):
    path = raw(tmp_path / "a.dng", data=np.full((600, 600), 1512, dtype=np.uint16))
    one = prepare(path, source(path))
    np.testing.assert_allclose(one.frame.data, 1000 * 5.05, rtol=1e-6)
    assert (one.gain, one.read_noise) == (5.05, None)
    assert isinstance(one.frame.noise, Unmodelled)
    assert one.method.startswith("table: gain 1010/ISO")


def test_physical_refuses_what_has_no_gain_with_the_reason(tmp_path):
    unknown = raw(tmp_path / "a.dng", instrument="Somebody's camera")
    with pytest.raises(FrameError, match="unknown camera"):
        prepare(unknown, source(unknown))
    counts = mrc(tmp_path / "a.mrc", np.zeros((300, 300), np.float32), "YX")
    with pytest.raises(FrameError, match="unit arbitrary and nothing says"):
        prepare(counts, source(counts, "microscopy"))
    with pytest.raises(ReadError, match="no such file"):
        prepare(tmp_path / "b.mrc", source("b.mrc", "microscopy"))


def fits(path, value, **cards):
    from astropy.io import fits as astropy_fits

    data = np.full((300, 300), value, dtype=np.float32)
    data[0, 0] = np.nan
    hdu = astropy_fits.PrimaryHDU(data)
    hdu.header.update({"TELESCOP": "HST", "INSTRUME": "ACS", "DETECTOR": "WFC", "BUNIT": "ELECTRONS/S"} | cards)
    hdu.writeto(path)
    return path


def test_rates_become_electrons_by_the_exposure_and_stay_unmodelled(tmp_path):
    path = fits(tmp_path / "a.fits", 0.5, EXPTIME=400.0)
    one = prepare(path, source(path, "astronomy"))
    assert one.gain == 400.0
    assert one.original == (0.5, 0.5)
    assert np.nanmax(one.frame.data) == np.nanmin(one.frame.data) == 200.0
    assert np.isnan(one.frame.data[0, 0])
    assert one.frame.flags[0, 0] == Flag.NO_DATA
    bare = fits(tmp_path / "b.fits", 0.5)
    with pytest.raises(FrameError, match="without an exposure"):
        prepare(bare, source(bare, "astronomy"))


def test_several_images_in_a_file(tmp_path):
    data = np.arange(9, dtype=np.uint16)[:, None, None] * np.ones((9, 300, 400), np.uint16)
    path = mrc(tmp_path / "RawSIMData_gt.mrc", data, "TYX")
    given = {"detector": "gain=2,read_noise=1.5,offset=0"}
    planes = list(each(path, source(path, "microscopy"), **given))
    assert [p.plane for p in planes] == list(range(9))
    assert [float(p.frame.data.max()) for p in planes] == [2.0 * k for k in range(9)]
    assert [p.original for p in planes] == [(k, k) for k in range(9)]
    with pytest.raises(FrameError, match="holds 9 images along T; name one"):
        prepare(path, source(path, "microscopy"), **given)
    assert prepare(path, source(path, "microscopy"), plane=4, **given).frame.data[0, 0] == 8.0
    one, frame = documented(path, "microscopy")
    assert (one.plane, float(frame.data[0, 0]), len(one.grid)) == (None, -1.5, 16)


def test_noise_maps_of_stacks_follow_the_plane(tmp_path):
    noise = Noise(0.5, np.arange(2 * 300 * 300, dtype=np.float64).reshape(2, 300, 300))
    frame = Frame(np.ones((2, 300, 300), np.uint16), "TYX", Unit.ADU, noise)
    path = tmp_path / "a.tif"
    io.write(frame, path)
    one = prepare(path, source(path, "microscopy"), plane=1)
    np.testing.assert_allclose(one.frame.noise.b, noise.b[1] * 4)
    assert one.gain == 2.0


def test_document0_has_its_own_constants(tmp_path):
    for setting, gain in (("ISO 200", 2.1), ("ISO 4000", 0.79), ("ISO 25600", 0.79)):
        path = raw(tmp_path / f"{setting[4:]}.ARW", setting=setting)
        assert documented(path, profile="document0")[0].gain == gain
    with pytest.raises(FrameError, match="a range, not a calibration"):
        documented(raw(tmp_path / "a.RAF", XTRANS, size=(1200, 1200)), profile="document0")
    assert documented(fits(tmp_path / "a.fits", 1.0), "astronomy", "document0")[0].read_noise == 3.5
    uvis = fits(tmp_path / "b.fits", 1.0, INSTRUME="WFC3", DETECTOR="UVIS")
    one, frame = documented(uvis, "astronomy", "document0")
    assert (one.gain, one.read_noise, one.scaling) == (1.5, 3.09, Scaling(170.0, 5.0))
    np.testing.assert_allclose(frame.data[1, 1], 1.5 - 3.09, rtol=1e-6)


def test_documented_warns_of_what_is_wrong(tmp_path):
    path = raw(tmp_path / "a.RAF", XTRANS, size=(1200, 1200))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        _ = prepare(path, source(path), profile="documented").frame
    text = " ".join(str(w.message) for w in said)
    assert "mixtures of colours" in text
    assert "as if it were an offset" in text
    assert "leaves the detector's offset in" in text
