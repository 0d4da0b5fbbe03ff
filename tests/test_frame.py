import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight import Box, Flag, Frame, Mosaic, Noise, Observation, Scan, Unit, Unmodelled
from firstlight.errors import FrameError
from firstlight.geometry import XTRANS, Sky


def frame(shape=(6, 8), axes="YX", **kw) -> Frame:
    kw = {"unit": "adu", "noise": Noise(0.5, 4.0, 100.0)} | kw
    return Frame(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), axes, **kw)


@given(st.integers(0, 5), st.integers(0, 5), st.integers(1, 6), st.integers(1, 6))
def test_crop_takes_everything_along(y: int, x: int, h: int, w: int) -> None:
    shape = (12, 12)
    rng = np.random.default_rng(0)
    f = frame(
        shape,
        noise=Noise(rng.random(shape), rng.random((2, 2)), rng.random((1, 12))),
        std=rng.random(shape),
        flags=rng.integers(0, 255, shape),
        geometry=Mosaic(XTRANS, (1, 2)),
        observation=Observation(saturation=rng.random((2, 2))),
    )
    box = Box((y, x), (y + h, x + w))
    g = f.crop(box)
    assert np.array_equal(g.data, f.data[box.slices])
    assert np.array_equal(g.noise.variance(g.data), f.noise.variance(f.data)[box.slices])
    assert np.array_equal(g.std, f.std[box.slices])
    assert np.array_equal(g.flags, f.flags[box.slices])
    assert np.array_equal(g.geometry.at(box.shape), f.geometry.at(shape)[box.slices])


def test_plane_maps_are_never_expanded() -> None:
    f = frame((5, 6, 8), "TYX", flags=np.zeros((6, 8), np.uint8), std=np.ones((1, 6, 8)))
    g = f.crop(Box((1, 2, 3), (4, 5, 7)))
    assert g.shape == (3, 3, 4)
    assert g.flags.shape == (3, 4)
    assert g.std.shape == (1, 3, 4)
    assert f.crop(Box((2, 3), (5, 7))).shape == (5, 3, 4)


def test_crop_moves_world_coordinates() -> None:
    cards = (
        ("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CRVAL1", 150.0), ("CRVAL2", 2.0), ("CRPIX1", 4.0), ("CRPIX2", 3.0),
        ("CD1_1", -1e-4), ("CD1_2", 0.0), ("CD2_1", 0.0), ("CD2_2", 1e-4),
    )  # fmt: skip
    f = frame(geometry=Sky(cards))
    g = f.crop(Box((2, 3), (6, 8)))
    assert np.allclose(g.geometry.wcs().wcs_pix2world([[1, 1]], 0), f.geometry.wcs().wcs_pix2world([[4, 3]], 0))


def test_crop_of_a_scan() -> None:
    f = frame((4, 3, 9), "AYX", geometry=Scan(np.linspace(0, 3, 4), center=4.25))
    g = f.crop(Box((1, 0, 2), (3, 3, 9)))
    assert np.allclose(g.geometry.angles, [1, 2])
    assert g.geometry.center == 2.25


def test_xtrans_facts() -> None:
    cell = np.array(XTRANS)
    assert [int((cell == i).sum()) for i in range(3)] == [8, 20, 8]
    assert np.array_equal(np.roll(cell, (3, 3), (0, 1)), cell)
    phases = {Mosaic(XTRANS, (i, j)).cell().tobytes() for i in range(6) for j in range(6)}
    assert len(phases) == 18


def test_a_step_shares_and_does_not_mutate() -> None:
    f = frame()
    before = f.data.copy()
    g = f.then("x.add", {"k": 1}, data=f.data + 1)
    assert np.array_equal(f.data, before)
    assert f.history == ()
    assert g.history[0].step == "x.add"
    assert g.noise is f.noise
    with pytest.raises(AttributeError):
        f.data = before


@pytest.mark.parametrize(
    ("kw", "message"),
    [
        ({"axes": "XY"}, "expected any of"),
        ({"axes": "CYX"}, "name 3 axes"),
        ({"unit": "photons"}, "expected one of"),
        ({"flags": np.zeros((3, 3), np.uint8)}, "does not broadcast"),
        ({"flags": np.zeros((6, 8))}, "integer"),
        ({"std": np.zeros((9, 8))}, "does not broadcast"),
    ],
)
def test_contradictions_are_refused(kw, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        frame(**kw)


def test_refusals_carry_the_reason() -> None:
    f = frame(noise=Unmodelled("drizzled: neighbours correlate"))
    with pytest.raises(FrameError, match=r"denoising needs .* drizzled"):
        f.known_noise("denoising")
    with pytest.raises(FrameError, match="got a frame in adu, expected electron"):
        f.need("x", Unit.ELECTRON)
    with pytest.raises(FrameError, match="leaves data"):
        f.crop(Box((0, 0), (7, 8)))
    with pytest.raises(FrameError, match="4 projections but 3 angles"):
        frame((4, 3, 9), "AYX", geometry=Scan(np.zeros(3)))


def test_lazy_data_are_not_read_by_building_or_describing() -> None:
    class Lazy:
        shape, dtype = (10**6, 10**6), np.dtype(np.float32)

        def __getitem__(self, key: object) -> None:
            raise AssertionError("read")

    f = Frame(Lazy(), "YX", "adu", Unmodelled("x"))
    assert "1000000 x 1000000" in repr(f)


def test_flags_are_bits() -> None:
    assert len(Flag) == 8
    assert int(Flag.SATURATED | Flag.HOT) == 5


def test_crop_takes_plain_numbers_of_any_type_along() -> None:
    f = frame(observation=Observation(saturation=4095, offset=np.float32(64)))
    cut = f.crop(Box((1, 1), (3, 4))).observation
    assert (cut.saturation, cut.offset) == (4095, 64)
