"""Colour filter arrays: what happens to the array of colours happens to the mosaic, over every phase."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight import cfa
from firstlight.box import Box
from firstlight.errors import FrameError
from firstlight.geometry import BAYER, XTRANS, Mosaic

QUAD = ((0, 0, 1, 1), (0, 0, 1, 1), (1, 1, 2, 2), (1, 1, 2, 2))
ODD = ((0, 1, 2), (1, 1, 0), (2, 0, 1), (0, 0, 2))  # of no symmetry
PHASES = [(XTRANS, (y, x)) for y in range(6) for x in range(3)] + [(BAYER, (y, x)) for y in range(2) for x in range(2)]
patterns = st.sampled_from([XTRANS, BAYER, QUAD, ODD])
mosaics = st.builds(Mosaic, patterns, st.tuples(st.integers(0, 11), st.integers(0, 11)))
shapes = st.tuples(st.integers(6, 20), st.integers(6, 20))


def test_xtrans_has_eighteen_phases_and_bayer_four():
    for pattern, count in ((XTRANS, 18), (BAYER, 4)):
        n = len(pattern)
        cells = {Mosaic(pattern, (y, x)).at((n, n)).tobytes() for y in range(n) for x in range(n)}
        assert len(cells) == count
        assert len({Mosaic(pattern, p).at((n, n)).tobytes() for q, p in PHASES if q is pattern}) == count


@given(mosaics, shapes, st.integers(0, 1))
def test_flip_commutes(mosaic, shape, axis):
    assert np.array_equal(cfa.flip(mosaic, shape, axis).at(shape), np.flip(mosaic.at(shape), axis))


@given(mosaics, shapes, st.integers(-5, 5))
def test_turn_commutes(mosaic, shape, quarters):
    turned = np.rot90(mosaic.at(shape), quarters)
    assert np.array_equal(cfa.turn(mosaic, shape, quarters).at(turned.shape), turned)


@given(mosaics, shapes, st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_crop_and_pad_commute_and_are_inverses(mosaic, shape, start):
    part = mosaic.crop("YX", Box(start, shape))
    assert np.array_equal(part.at((shape[0] - start[0], shape[1] - start[1])), mosaic.at(shape)[start[0] :, start[1] :])
    assert cfa.pad(part, start) == mosaic


@given(mosaics, shapes, st.tuples(*[st.integers(0, 14)] * 4))
def test_extension_keeps_colours_and_the_image(mosaic, shape, edge):
    top, bottom, left, right = edge
    wide, grown = cfa.extend(mosaic.at(shape), mosaic, ((top, bottom), (left, right)))
    assert wide.shape == (shape[0] + top + bottom, shape[1] + left + right)
    assert np.array_equal(wide, grown.at(wide.shape))
    y, x = np.mgrid[: shape[0], : shape[1]]
    place, _ = cfa.extend(np.stack([y, x]), mosaic, ((top, bottom), (left, right)))
    assert np.array_equal(place[:, top : top + shape[0], left : left + shape[1]], np.stack([y, x]))


@pytest.mark.parametrize(("pattern", "phase"), PHASES)
def test_extension_stays_near_the_edge(pattern, phase):
    """For X-Trans at most 4 px from the mirror image: two of its six lines have no other of their kind; for Bayer 0 px."""
    y = np.broadcast_to(np.arange(30)[:, None], (30, 30))
    wide, _ = cfa.extend(y, Mosaic(pattern, phase), ((6, 6), (0, 0)))
    off = np.abs(wide[:6, 0] - np.arange(6, 0, -1))
    assert off.max() <= (4 if pattern is XTRANS else 0)


@pytest.mark.parametrize(("pattern", "phase"), PHASES)
def test_every_phase_flip_and_turn_is_found_by_a_shift(pattern, phase):
    """All eight symmetries of X-Trans and Bayer mosaics are translations, so that one trained phase serves all."""
    shape = (25, 31)
    mosaic = Mosaic(pattern, phase)
    for quarters in range(4):
        turned = cfa.turn(mosaic, shape, quarters)
        for changed in (turned, cfa.flip(turned, shape[:: 1 - 2 * (quarters % 2)], 1)):
            start = cfa.shift_to(changed, np.array(pattern))
            assert start is not None
            assert cfa.same(cfa.pad(changed, start), Mosaic(pattern))
    assert cfa.shift_to(mosaic, np.array(ODD)) is None


def test_a_pattern_written_twice_over_is_the_same():
    assert cfa.same(Mosaic(BAYER), Mosaic(tuple(2 * row for row in BAYER) * 3))
    assert not cfa.same(Mosaic(BAYER), Mosaic(BAYER, (0, 1)))
    assert cfa.same(Mosaic(BAYER), Mosaic(((2, 1), (1, 0)), colors="BGR"))


def test_an_image_smaller_than_the_pattern_is_refused():
    with pytest.raises(FrameError, match="smaller than its mosaic"):
        cfa.extend(np.zeros((5, 12)), Mosaic(XTRANS), ((1, 1), (1, 1)))
