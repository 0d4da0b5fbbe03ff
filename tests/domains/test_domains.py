"""The tables: no camera with two gains, every row with a source, the published constants as published."""

import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import firstlight as fl
from firstlight import domains, tiles
from firstlight.errors import FrameError


def rows():
    return [row for table in domains._TABLES.values() for row in table.DETECTORS]


def test_no_camera_has_two_gains():
    seen = {}
    for row in rows():
        for alias in {re.sub(r"[^a-z0-9]", "", a.lower()) for a in row.cameras}:
            key = (alias, re.sub(r"[^a-z0-9]", "", (row.setting or "").lower()))
            assert key not in seen, f"{alias} at {row.setting}: {seen[key].gain} and {row.gain}"
            seen[key] = row
    laws = {row.cameras[0] for row in rows() if row.gain_times_iso is not None}
    for name in laws:  # a law and a row of one camera would be two gains as well
        assert sum(row.cameras[0] == name for row in rows()) == 1


def test_every_row_says_where_it_comes_from_and_gives_one_gain():
    for row in rows():
        assert len(row.source) > 20
        assert (row.gain is None) != (row.gain_times_iso is None)
        assert (row.gain_times_iso is None) == (row.iso_range is None)
    assert all(len(p.source) > 10 for p in domains.presets())
    assert len({p.name for p in domains.presets()}) == len(domains.presets())


@pytest.mark.parametrize("name", ["ILCE-7SM2", "Sony ILCE-7SM2", "Sony A7S II", "sony a7sii"])
def test_sony_gain_goes_as_one_over_iso(name):
    at = {iso: fl.detector(name, iso, read_noise=3.0).gain for iso in (200, 2000, 4000)}
    assert at[200] == pytest.approx(5.05)
    assert at[2000] == pytest.approx(0.505)
    assert at[4000] == pytest.approx(0.2525)


@given(st.floats(100, 102400))
def test_gain_times_iso_is_constant(iso):
    row = domains.detector("ILCE-7SM2", iso, read_noise=1.0)
    assert row.gain * float(str(iso)) == pytest.approx(1010)
    assert (row.offset, row.saturation) == (512, 16383)


@pytest.mark.parametrize("setting", ["3200", "ISO 3200", "iso3200", 3200, 3200.0])
def test_iso_is_read_as_files_write_it(setting):
    assert domains.detector("ILCE-7SM2", setting, read_noise=1.0).gain == pytest.approx(1010 / 3200)


def test_file_figures():
    sprat = domains.detector("SPRAT")
    assert (sprat.gain, sprat.read_noise, sprat.offset) == (2.45, 5.95, 915.8)
    emva = domains.detector("EMVA 1288 reference CCD")
    assert emva.gain == pytest.approx(1 / 0.280, rel=1e-3)
    assert (emva.read_noise, emva.saturation) == (10.9, 3890)
    acs = domains.detector("ACS/WFC", "gain 1 amp A")
    assert (acs.gain, acs.read_noise) == (0.99989998, 4.9699998)
    assert domains.detector("STE3 CCD", offset=600.0).offset == 600


def test_headers_agree_with_the_table(data):
    from astropy.io import fits

    header = fits.getheader(data / "astronomy/hst_acs/acs_cosmos_147246_f814w.fits")
    for amp in "ABCD":
        row = domains.detector("ACS/WFC", f"gain 1 amp {amp}")
        assert (row.gain, row.read_noise, row.offset) == (
            header[f"ATODGN{amp}"],
            header[f"READNSE{amp}"],
            header[f"BIASLEV{amp}"],
        )
    header = fits.getheader(next((data / "astronomy/decam").glob("*ooi*")), 1)
    for amp in "AB":
        row = domains.detector(f"DECam {header['DETECTOR']}", f"amp {amp}", offset=0.0)
        assert (row.gain, row.read_noise, row.saturation) == (
            header[f"GAIN{amp}"],
            header[f"RDNOISE{amp}"],
            header[f"SATURAT{amp}"],
        )


@pytest.mark.parametrize(
    ("path", "setting", "gain"),
    [
        ("astronomy/lt_sprat/v_e_20180810_12_1_0_0.fits.gz", None, 2.45),
        ("astronomy/single/saao_ste3_raw.fits", None, 1.9),
        ("astronomy/hst_acs/acs_cosmos_147246_f814w.fits", "gain 1 amp B", 0.97210002),
        ("astronomy/decam/c4d_170316_062107_ooi_z_ls9.N2.fits", "amp A", 3.87047534931607),
    ],
)
def test_files_find_their_own_row(data, path, setting, gain):
    camera = fl.read(data / path).observation.instrument
    assert domains.detector(camera, setting, offset=0.0).gain == gain


REFUSED = [
    (("ILCE-7SM3", 200), {}, "unknown camera 'ILCE-7SM3'; did you mean 'Sony A7S II'? known: Sony A7S II, "),
    (("Nikon D850", 200), {}, "unknown camera 'Nikon D850'; known: Sony A7S II, "),
    (("ILCE-7SM2", 50), {"read_noise": 1.0}, "expected its ISO from 100 to 102400"),
    (("ILCE-7SM2",), {"read_noise": 1.0}, "setting None of ILCE-7SM2, expected its ISO"),
    (("ILCE-7SM2", 200), {}, "the read noise of Sony A7S II is not in the table; pass read_noise= [e-], or measure the camera"),
    (("STE3 CCD",), {}, "the offset of SAAO STE3 CCD is not in the table; pass offset= [ADU]"),
    (("SPRAT", "fast"), {}, "setting 'fast' of SPRAT is not in the table; expected None"),
    (("ACS/WFC", "gain 2"), {}, "expected 'gain 1 amp A', 'gain 1 amp B'"),
    (("sony",), {"profile": "documente"}, "unknown profile 'documente'; did you mean 'documented'?"),
    (("sony",), {"profile": "document0"}, "preset 'sony' belongs to profile 'documented'"),
    (("fuji-range",), {"profile": "document0"}, "gives a range, not a calibration"),
    (("sny",), {"profile": "documented"}, "unknown preset 'sny'; did you mean 'sony'? known: sony, fuji, "),
]


@pytest.mark.parametrize(("args", "keywords", "line"), REFUSED)
def test_refusals(args, keywords, line):
    with pytest.raises(FrameError, match=re.escape(line)):
        domains.detector(*args, **keywords)


def test_given_figures_are_noted_and_never_replace_the_gain():
    row = domains.detector("SPRAT", read_noise=6.1)
    assert row.read_noise == 6.1
    assert row.source.endswith("read noise as given")
    with pytest.raises(TypeError):
        domains.detector("SPRAT", gain=1.0)


PUBLISHED = [
    ("sony", "documented", 5.0, 3.56),
    ("fuji", "documented", 1.8, 3.75),
    ("microscopy", "documented", 1.0, 1.5),
    ("hst", "documented", 1.0, 3.5),
    ("sony-iso2000", "document0", 2.1, 6.0),
    ("sony-iso4000", "document0", 0.79, 2.5),
    ("biosr-scmos", "document0", 1.0, 1.5),
    ("acs-wfc", "document0", 1.0, 3.5),
    ("wfc3-uvis", "document0", 1.5, 3.09),
    ("wfc3-ir", "document0", 2.5, 15.0),
    ("wfpc2", "document0", 7.0, 6.5),
]


@pytest.mark.parametrize(("name", "profile", "gain", "read_noise"), PUBLISHED)
def test_presets_are_as_published_and_warn(name, profile, gain, read_noise):
    with pytest.warns(UserWarning, match=re.escape(domains.preset(name).source)):
        row = domains.detector(name, profile=profile)
    assert (row.gain, row.read_noise, row.offset) == (gain, read_noise, 0)


def test_every_preset_is_checked_here():
    assert {p.name for p in domains.presets()} == {row[0] for row in PUBLISHED} | {"fuji-range"}
    fuji = domains.preset("fuji-range")
    assert (fuji.gain_range, fuji.read_noise_range) == ((0.75, 1.8), (2.5, 3.75))


CALIBRATED = [  # document, ADU, "electrons", scaled
    ("sony", 100, 496.44, 0.0062055),
    ("sony", 15871, 79351.44, 0.991893),
    ("fuji", 15359, 27642.45, 0.345531),
    ("hst", 0, -3.5, 0.0088235),
    ("microscopy", 65535, 65533.5, 0.992932),
]


@pytest.mark.parametrize(("name", "adu", "electrons", "scaled"), CALIBRATED)
def test_scalings_give_the_published_numbers(name, adu, electrons, scaled):
    row = domains.preset(name)
    assert adu * row.gain - row.read_noise == pytest.approx(electrons, abs=1e-9)
    # the figures are printed to 7 decimals or to 6
    assert row.scaling.apply(electrons) == pytest.approx(scaled, abs=5e-8 if scaled < 0.01 else 5e-7)


@given(st.sampled_from(["photography", "microscopy", "astronomy"]), st.floats(-100, 80000, width=32))
def test_scalings_invert_within_two_ulp(domain, electrons):
    assume(electrons == 0 or abs(electrons) > 1e-30)  # float32 underflows below
    row = domains.scaling(domain)
    back = row.invert(row.apply(np.float32(electrons)))
    ulp = np.spacing(np.float32(max(abs(electrons), row.offset, np.finfo(np.float32).tiny)))
    assert abs(float(back) - electrons) <= 2 * ulp


def test_scalings():
    assert domains.scaling("photography").scale == 80000
    assert domains.scaling("microscopy").scale == 66000
    assert (domains.scaling("astronomy").scale, domains.scaling("astronomy").offset) == (170, 5)
    with pytest.raises(FrameError, match="tomography has none in profile 'documented'; expected one of: none"):
        domains.scaling("tomography")
    with pytest.raises(FrameError, match="unknown domain 'astro'; did you mean 'astronomy'"):
        domains.scaling("astro")


STARTS = {
    (1424, 2128): ([0, 233, 466, 699, 932, 1168], [0, 234, 468, 702, 936, 1170, 1404, 1638, 1872]),
    (1008, 1508): ([0, 250, 500, 752], [0, 250, 500, 750, 1000, 1252]),
    (1004, 1004): ([0, 249, 498, 748], [0, 249, 498, 748]),
    (502, 502): ([0, 82, 164, 246], [0, 82, 164, 246]),
    (2116, 2110): ([*range(0, 8 * 232, 232), 1860], [*range(0, 8 * 231, 231), 1854]),
}


def grids():
    return [g for name in domains.names() for g in domains.grids(name)]


@pytest.mark.parametrize("grid", [g for g in grids() if not g.gaps], ids=lambda g: g.name)
def test_grids_have_the_published_starts(grid):
    cut = tiles.grid(grid.shape, grid.rows, grid.cols, grid.tile)
    y, x = ([*dict.fromkeys(t.read.start[axis] for t in cut)] for axis in (0, 1))
    assert (y, x) == STARTS[grid.shape]


def test_the_grid_with_gaps_is_refused_unless_asked_for():
    [grid] = [g for g in grids() if g.gaps]
    with pytest.raises(FrameError, match="gaps of up to 241 px"):
        tiles.grid(grid.shape, grid.rows, grid.cols, grid.tile)
    covered = sum(t.core.size for t in tiles.grid(grid.shape, grid.rows, grid.cols, grid.tile, gaps=True))
    assert covered / np.prod(grid.shape) == pytest.approx(0.30, abs=0.005)


def test_counts_of_tiles():
    counts = [g.pairs * g.rows * g.cols for g in grids() if g.pairs is not None]
    assert counts == [231 * 54, 193 * 24, 619 * 16, 153 * 81]
    assert 2 * sum(counts) == 78806


def test_names_and_defaults():
    assert domains.names() == ("photography", "microscopy", "astronomy", "tomography")
    assert "SPRAT" in domains.cameras()
    assert domains.defaults("photography") == {}
    assert domains.defaults("astronomy", "hst")["scaling.scale"] == {"scale": 170.0, "offset": 5.0}
    with pytest.raises(FrameError, match="preset 'sony' is not of astronomy; expected hst, acs-wfc"):
        domains.defaults("astronomy", "sony")
    with pytest.raises(FrameError, match="gives a range"):
        domains.defaults("photography", "fuji-range")
