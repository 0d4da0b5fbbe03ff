"""Colours: published matrices, grey that stays grey, a gamut compression with no edge."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from firstlight import Frame, Observation, Unit, Unmodelled
from firstlight.develop.colour import LUMA, camera_matrix, compress_gamut, convert, rgb_to_xyz, to_rec2020
from firstlight.errors import FrameError

SONY = ((0.6640, -0.1847, -0.0503), (-0.5238, 1.3010, 0.2474), (-0.0993, 0.1673, 0.6527))  # ILCE-7RM3, XYZ to camera
channels = arrays(np.float64, (3, 5), elements=st.floats(-2, 20, width=32))


def test_the_standards_matrices():
    """IEC 61966-2-1 to XYZ; ITU-R BT.2087: 709 to 2020, of four digits."""
    srgb = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    assert np.abs(rgb_to_xyz("srgb") - srgb).max() < 1e-4
    wide = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    assert np.abs(convert(np.eye(3), "srgb", "rec2020") - wide).max() < 1e-4
    assert np.abs(LUMA - [0.2627, 0.6780, 0.0593]).max() < 1e-4


@pytest.mark.parametrize("space", ["rec2020", "srgb"])
def test_grey_stays_grey(space):
    matrix = camera_matrix(SONY, space)
    assert np.abs(matrix @ np.ones(3) - 1).max() < 1e-12
    assert np.abs(camera_matrix(7 * np.array(SONY), space) - matrix).max() < 1e-12


def test_the_camera_matrix_inverts_what_a_camera_sees():
    """A camera of that matrix looks at Rec.2020 colours under D65 and is balanced on white: the colours come back."""
    rgb = np.random.default_rng(1).random((3, 50))
    seen = np.array(SONY) @ rgb_to_xyz("rec2020") @ rgb
    white = np.array(SONY) @ rgb_to_xyz("rec2020") @ np.ones(3)
    assert np.abs(camera_matrix(SONY) @ (seen / white[:, None]) - rgb).max() < 1e-12


def test_conversions_are_inverse():
    rgb = np.random.default_rng(2).normal(size=(3, 4, 5)).astype(np.float32)
    back = convert(convert(rgb, "rec2020", "srgb"), "srgb", "rec2020")
    assert back.dtype == np.float32
    assert np.abs(back - rgb).max() < 5e-6


@given(channels)
def test_compressed_colours_lie_inside_and_keep_their_hue(rgb):
    out = compress_gamut(rgb)
    assert out.min() >= 0
    inside = rgb.min(axis=0) >= 0
    assert np.array_equal(out[:, inside], rgb[:, inside])
    assert np.allclose(out.max(axis=0), np.maximum(rgb.max(axis=0), 0), rtol=1e-12)
    # distances from the achromatic axis keep their proportions
    far, near = rgb.max(axis=0) - rgb, out.max(axis=0) - out
    assert np.allclose(np.cross(far, near, axis=0), 0, atol=1e-9 * (1 + np.abs(far).max() * np.abs(near).max()))


def test_compression_takes_any_layout():
    spread = np.broadcast_to(np.array([-0.1, 0.5]), (3, 4, 2))
    assert np.array_equal(compress_gamut(spread), np.maximum(spread, 0))


def test_compression_is_continuous():
    rng = np.random.default_rng(3)
    for start, way in zip(rng.normal(size=(40, 3)), rng.normal(size=(40, 3)), strict=True):
        line = start[:, None] + way[:, None] * np.linspace(-2, 2, 4001)
        assert np.abs(np.diff(compress_gamut(line), axis=1)).max() < 0.02
    assert np.array_equal(compress_gamut(np.full((3, 1), -0.5)), np.zeros((3, 1)))


def colours(**changes):
    seen = Observation(color_matrix=SONY, saturation=np.full((3, 1, 1), 2.0))
    data = np.full((3, 4, 5), 0.7, np.float32)
    return Frame(data, "CYX", Unit.ADU, Unmodelled("x"), observation=seen).replace(**changes)


def test_a_frame_in_rec2020():
    out = to_rec2020(colours())
    assert np.abs(out.data - 0.7).max() < 1e-6
    assert (out.unit, out.observation.saturation) == (Unit.REC2020, 2.0)
    again = to_rec2020(out.replace(data=np.random.default_rng(4).normal(size=(3, 4, 5))))  # its matrix is Rec.2020's own now
    assert np.abs(again.data - np.random.default_rng(4).normal(size=(3, 4, 5))).max() < 1e-9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observation": Observation(instrument="X9")}, "no colour matrix of X9"),
        ({"data": np.zeros((2, 4, 5))}, "expected R, G and B"),
        ({"observation": Observation(color_matrix=((1.0, 0, 0),) * 3)}, "alike"),
        ({"observation": Observation(color_matrix=((1.0, 0, 0),) * 4)}, "3 x 3"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(FrameError, match=message):
        to_rec2020(colours(**changes))
    with pytest.raises(FrameError, match="space 'p3'"):
        rgb_to_xyz("p3")
