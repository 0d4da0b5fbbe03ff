"""Highlights: grey where a colour is saturated, smooth at the border, untouched elsewhere."""

import numpy as np
import pytest

from firstlight import Flag, Frame, Mosaic, Unit, Unmodelled
from firstlight.develop.highlights import neutral, reached
from firstlight.errors import FrameError
from firstlight.geometry import BAYER, XTRANS

TOPS = (2.4, 1.0, 1.5)


def colours(rgb, shape=(40, 44)):
    data = np.broadcast_to(np.array(rgb, np.float32)[:, None, None], (3, *shape)).copy()
    return Frame(data, "CYX", Unit.CAMERA, Unmodelled("x"))


def test_grey_on_the_mask_unchanged_away_from_it_and_between_in_between():
    mask = np.zeros((40, 44), bool)
    mask[:, 20:30] = True
    frame = colours((0.9, 0.5, 0.8))
    out = neutral(frame, saturated=mask, ceilings=TOPS).data
    assert np.ptp(out[:, mask], axis=0).max() < 1e-6
    assert np.array_equal(out[:, :, :12], frame.data[:, :, :12])
    chroma = np.ptp(out, axis=0)[20]
    assert np.all(np.diff(chroma[12:21]) < 1e-6)  # falls towards the mask
    assert np.abs(np.diff(chroma)).max() < 0.4 * chroma[0]
    grey = 0.2627 * 0.9 + 0.6780 * 0.5 + 0.0593 * 0.8
    assert out[:, 20, 25] == pytest.approx([grey] * 3, abs=1e-4)


def test_colours_close_to_a_ceiling_fade_to_grey_without_a_mask():
    ramp = np.linspace(0.5, 1.1, 601, dtype=np.float32)
    data = np.stack([ramp * 0.9, ramp, ramp * 0.8])[:, None]
    out = neutral(colours((1, 1, 1)).replace(data=data), saturated=np.zeros((1, 601), bool), ceilings=TOPS).data[:, 0]
    below, above = ramp < 0.95, ramp >= 1.0
    assert np.array_equal(out[:, below], data[:, 0, below])
    assert np.ptp(out[:, above], axis=0).max() < 1e-6
    assert np.abs(np.diff(out, axis=1)).max() < 0.01


def test_rows_are_worked_on_without_a_seam(monkeypatch):
    from firstlight.develop import highlights

    rng = np.random.default_rng(2)
    frame = colours((1, 1, 1)).replace(data=rng.random((3, 40, 44), dtype=np.float32))
    mask = rng.random((40, 44)) < 0.05
    whole = neutral(frame, saturated=mask, ceilings=TOPS).data
    monkeypatch.setattr(highlights, "ROWS", 7)
    assert np.abs(neutral(frame, saturated=mask, ceilings=TOPS).data - whole).max() < 1e-6


@pytest.mark.parametrize(("pattern", "around"), [(BAYER, 1), (XTRANS, 3)])
def test_a_saturated_sample_reaches_its_neighbours_and_a_hot_one_none(pattern, around):
    flags = np.zeros((30, 30), np.uint8)
    flags[10, 10], flags[20, 20] = Flag.SATURATED, Flag.SATURATED | Flag.HOT
    frame = Frame(np.zeros((30, 30)), "YX", Unit.ADU, Unmodelled("x"), flags=flags, geometry=Mosaic(pattern))
    hit = reached(frame, frame.geometry)
    wanted = np.zeros((30, 30), bool)
    wanted[10 - around : 11 + around, 10 - around : 11 + around] = True
    assert np.array_equal(hit, wanted)
    assert not reached(frame.replace(flags=None)).any()


@pytest.mark.parametrize(
    "params",
    [{"ceilings": (1.0, 1.0)}, {"saturated": np.zeros((3, 3))}, {"ceilings": (1.0, 0.0, 1.0)}, {"knee": 1.0}, {"feather": -1}],
)
def test_refusals(params):
    with pytest.raises(FrameError, match=r"develop\.neutral"):
        neutral(colours((1, 1, 1)), **({"saturated": np.zeros((40, 44)), "ceilings": TOPS} | params))
