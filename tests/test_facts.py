"""What `info` says of a camera's frame, colour by colour, and of a developed picture."""

import json

import numpy as np
import pytest

from firstlight import Frame, Mosaic, Observation, Unit, Unmodelled, facts, io
from firstlight.cli import main
from firstlight.develop import render
from firstlight.geometry import BAYER, XTRANS
from firstlight.io.rendered import write_rendered

MATRIX = ((0.6640, -0.1847, -0.0503), (-0.5238, 1.3010, 0.2474), (-0.0993, 0.1673, 0.6527))
OBSERVED = Observation(
    instrument="X9", setting="ISO 800", exposure=0.01, offset=512.0, saturation=15360.0, white_balance=(2.5, 1.0, 1.5),
    color_matrix=MATRIX, orientation=6,
)  # fmt: skip


def photo(tmp_path, pattern=XTRANS, phase=(0, 0), data=None, colors="RGB", **observed):
    """A CFA DNG of dark data, as another program reads it: its tags alone."""
    data = np.full((60, 66), 600, np.uint16) if data is None else data
    seen = Observation(**(vars(OBSERVED) | observed))
    frame = Frame(data, "YX", Unit.ADU, Unmodelled("x"), geometry=Mosaic(pattern, phase, colors), observation=seen)
    path = io.write(frame, tmp_path / "a.dng")
    path.write_bytes(path.read_bytes().replace(b"firstlight\0{", b"somebodyXX\0{"))
    return path


@pytest.mark.parametrize("phase", [(y, x) for y in range(6) for x in range(3)])
def test_an_xtrans_files_pattern_and_phase(phase, tmp_path):
    raw = facts.info(photo(tmp_path, phase=phase))["raw"]
    rows = np.array([list(row) for row in raw["cell"]])
    assert np.array_equal(rows, np.array(list("RGB"))[Mosaic(XTRANS, phase).at((6, 6))])
    again = Mosaic(XTRANS, tuple(raw["phase"]))
    assert np.array_equal(again.at((6, 6)), Mosaic(XTRANS, phase).at((6, 6)))
    assert raw["cfa"] == "X-Trans"


@pytest.mark.parametrize("pattern", [BAYER, XTRANS])
def test_saturated_pixels_are_counted_colour_by_colour(pattern, tmp_path, monkeypatch, capsys):
    """At white and above it count, one below does not; in blocks of rows as in one."""
    data = np.full((60, 66), 600, np.uint16)
    color = Mosaic(pattern, (1, 1)).at(data.shape)
    wanted = {"R": 3, "G": 11, "B": 5}
    for k, n in enumerate(wanted.values()):
        data[tuple(np.argwhere(color == k)[7 + 97 * np.arange(n)].T)] = 15360 + k  # far enough apart for every block
        data[tuple(np.argwhere(color == k)[60 + k])] = 15359
    path = photo(tmp_path, pattern, (1, 1), data)
    assert main(["info", str(path), "--json"]) == 0
    raw = json.loads(capsys.readouterr().out)["raw"]
    assert raw["saturated"] == wanted
    assert raw["white"] == dict.fromkeys("RGB", 15360)
    assert raw["white_balance"] == pytest.approx({"R": 2.5, "G": 1, "B": 1.5}, rel=1e-4)
    assert np.allclose(raw["color_matrix"], MATRIX, atol=1e-4)
    whole = list(io.blocks((60, 66), 2, 7 * 66 * 2))
    monkeypatch.setattr(io, "blocks", lambda shape, itemsize: iter(whole))
    assert facts.info(path)["raw"]["saturated"] == wanted


def test_levels_of_each_pixel_of_the_cell(tmp_path):
    cell = 500 + np.arange(36.0).reshape(6, 6)
    assert np.array_equal(facts.info(photo(tmp_path, offset=cell))["raw"]["black"], cell)
    frame = io.read(photo(tmp_path, BAYER)).replace(
        observation=Observation(**(vars(OBSERVED) | {"saturation": np.array([[15000.0, 14000.0], [14100.0, 13000.0]])}))
    )
    data = np.array(frame.data)
    data[0, 0] = data[0, 1] = data[1, 0] = data[1, 1] = 14050  # red and the second green end later
    raw = facts.info(io.write(frame.replace(data=data), tmp_path / "b.fits"))["raw"]
    assert raw["white"] == {"R": 15000, "G": [14000, 14100], "B": 13000}
    assert raw["saturated"] == {"R": 0, "G": 1, "B": 1}


def test_text_for_people(tmp_path):
    lines = facts.info_text(facts.info(photo(tmp_path, BAYER, (0, 1)))).splitlines()
    found = {line[:14].strip(): line[15:] for line in lines}
    assert (found["cfa"], found["cell"], found["phase"]) == ("Bayer", "[GR BG]", "[0 1]")
    assert (found["black"], found["white"], found["saturated"]) == ("512", "R 15360, G 15360, B 15360", "R 0, G 0, B 0")
    assert found["white balance"] == "R 2.5, G 1, B 1.5"
    assert (found["instrument"], found["setting"], found["exposure"], found["orientation"]) == ("X9", "ISO 800", "0.01", "6")
    assert len(lines) == len(found) or "doubt" in found


def test_a_pattern_of_no_family_and_planes(tmp_path):
    raw = facts.info(photo(tmp_path, ((0, 0), (1, 2))))["raw"]
    assert (raw["cfa"], raw["cell"], raw["phase"]) == ("other", ["RR", "GB"], None)
    linear = Frame(np.full((3, 30, 32), 700, np.uint16), "CYX", Unit.ADU, Unmodelled("x"), observation=OBSERVED)
    data = linear.data.copy()
    data[2, 3, 4] = 15360
    raw = facts.info(io.write(linear.replace(data=data), tmp_path / "l.dng"))["raw"]
    assert "cfa" not in raw
    assert raw["saturated"] == {"R": 0, "G": 0, "B": 1}


@pytest.mark.parametrize(
    ("to", "transfer"), [("avif", "hlg"), ("ultrahdr", "hlg"), ("jpeg", "srgb"), ("tiff", "srgb"), ("jxl", "linear")]
)
def test_a_developed_picture_says_what_its_codes_are(to, transfer, tmp_path):
    frame = Frame(np.full((3, 40, 44), 0.3, np.float32), "CYX", Unit.REC2020, Unmodelled("x"))
    bits = {"jpeg": 8, "tiff": 16, "jxl": 32}.get(to, 10)
    suffix = {"ultrahdr": "jpg", "jpeg": "jpg", "tiff": "tif"}.get(to, to)
    path = write_rendered(render(frame, transfer=transfer, bits=bits), tmp_path / f"a.{suffix}", to=to)
    found = facts.info(path)
    assert found["picture"]["transfer"] == transfer
    assert found["picture"]["bits"] == bits
    assert found["picture"]["primaries"] == ("srgb" if transfer == "srgb" else "rec2020")
    assert ("cicp" in found) == (to == "avif")
    assert f"transfer {transfer}" in facts.info_text(found)
    assert "raw" not in found


def test_the_real_arw(data):
    path = data / "raw" / "sony_ilce-7rm3_iso3200.ARW"
    if not path.exists():
        pytest.skip("the ARW is absent")
    raw = facts.info(path)["raw"]
    assert (raw["cfa"], raw["cell"], raw["phase"], raw["black"]) == ("Bayer", ["RG", "GB"], [0, 0], 512)
    frame = io.read(path)
    hit = np.asarray(frame.data) >= 15360
    assert raw["saturated"] == {
        "R": hit[::2, ::2].sum(),
        "G": hit[::2, 1::2].sum() + hit[1::2, ::2].sum(),
        "B": hit[1::2, 1::2].sum(),
    }
