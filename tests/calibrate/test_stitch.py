"""360 to 180: a wide scan cut to a narrow field and stitched is the wide scan again; the overlap is found; repeated angles."""

import numpy as np
import pytest

from firstlight import simulate
from firstlight.box import Box
from firstlight.calibrate import attenuation, center_of, find_center, merge_repeated, stitch_360
from firstlight.calibrate.overlap import overlap_center
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Unit
from firstlight.geometry import Scan
from firstlight.needs import needs_of
from firstlight.noise import Noise, Unmodelled

SEED, WIDE, MIDDLE = 20261121, 241, 120.0
FULL = np.arange(360) * np.pi / 180


def wide(angles: np.ndarray, seed: int = SEED) -> np.ndarray:
    """(A, 1, 241), the axis on column 120."""
    rng = np.random.default_rng(seed)
    shapes = [simulate.Ellipse(0.01, 3, -5, 100, 80, 0.4)]
    for _ in range(20):
        r, t, a = 85 * np.sqrt(rng.random()), rng.uniform(0, 6), rng.uniform(3, 15)
        shapes.append(simulate.Ellipse(rng.uniform(-0.01, 0.02), r * np.cos(t), r * np.sin(t), a, a / 2, t))
    return simulate.projections(shapes, angles, WIDE, MIDDLE)[:, None]


def frame(data: np.ndarray, angles: np.ndarray, center: float | None = None, **more) -> Frame:
    more = {"noise": Unmodelled("phantom")} | more
    return Frame(np.asarray(data, np.float32), "AYX", Unit.OPTICAL_DEPTH, geometry=Scan(angles, center=center), **more)


@pytest.mark.parametrize(("cut", "center"), [(slice(0, 150), 120.0), (slice(91, 241), 29.0)])
def test_a_wide_scan_cut_and_stitched_is_itself(cut: slice, center: float) -> None:
    """An axis on a column: no interpolation, equal to rounding. The axis counts from the result's first column."""
    data = wide(FULL)
    done = stitch_360(frame(data[..., cut], FULL, center))
    assert done.shape == (180, 1, WIDE)
    assert done.geometry.center == MIDDLE
    assert np.allclose(done.geometry.angles, FULL[:180])
    assert np.allclose(done.data, data[:180], atol=1e-5)
    assert done.unit is Unit.OPTICAL_DEPTH
    assert isinstance(done.noise, Unmodelled)


@pytest.mark.parametrize(
    "angles", [FULL, np.linspace(0, 2 * np.pi, 361), FULL + 1.0, -FULL, np.random.default_rng(1).permutation(FULL)]
)
def test_any_order_of_angles_and_an_axis_between_columns(angles: np.ndarray) -> None:
    data = wide(angles)
    shifted = 0.7 * data[..., :-1] + 0.3 * data[..., 1:]  # the axis on 119.7
    done = stitch_360(frame(shifted[..., :150], angles), center=119.7)
    expected = wide(done.geometry.angles)
    expected = 0.7 * expected[..., :-1] + 0.3 * expected[..., 1:]
    n = min(done.shape[2], expected.shape[2])
    assert done.shape[2] == 240
    assert np.std(done.data[..., :n] - expected[..., :n]) < 0.015 * expected.max()


@pytest.mark.parametrize(("center", "falls"), [(120.0, -1), (29.0, 1), (100.3, -1)])
def test_the_overlap_is_blended_without_a_step(center: float, falls: int) -> None:
    """The first half turn all 1, the second all 0: what is left is the weight, 1 to 0 across the overlap."""
    data = np.where(np.arange(360) < 180, 1.0, 0.0)[:, None, None] * np.ones((360, 1, 150))
    weight = stitch_360(frame(data, FULL, center)).data[90, 0]
    assert {float(weight[0]), float(weight[-1])} == {0.0, 1.0}
    assert (falls * np.diff(weight) >= 0).all()
    assert np.abs(np.diff(weight)).max() < 0.06


def test_sections_equal_the_whole() -> None:
    data = np.random.default_rng(SEED).normal(size=(360, 6, 60))
    whole = frame(data, FULL, 41.3)
    part = stitch_360(frame(data[:, 2:4], FULL, 41.3))
    assert np.array_equal(stitch_360(whole).data[:, 2:4], part.data)


def test_flags_of_both_halves_go_on() -> None:
    flags = np.zeros((1, 150), np.uint8)
    flags[0, 10], flags[0, 100] = Flag.DEAD, Flag.HOT  # 10 is seen by one half, 100 lies in the overlap
    done = stitch_360(frame(wide(FULL)[..., :150], FULL, 120.0, flags=flags))
    at = {int(x): int(done.flags[..., x].max()) for x in np.flatnonzero(done.flags.any(axis=(0, 1)))}
    assert at == {10: Flag.DEAD, 230: Flag.DEAD, 100: Flag.HOT, 140: Flag.HOT}
    one = np.zeros((360, 1, 150), np.uint8)
    one[200, 0, 10] = Flag.COSMIC_RAY
    done = stitch_360(frame(wide(FULL)[..., :150], FULL, 120.0, flags=one))
    assert [tuple(map(int, i)) for i in np.argwhere(done.flags)] == [(20, 0, 230)]


def test_non_finite_pixels_do_not_spread() -> None:
    data = wide(FULL)[..., :150].copy()
    data[5, 0, 60] = np.nan
    done = stitch_360(frame(data, FULL, 120.0))
    assert np.isfinite(done.data).all()
    assert [tuple(map(int, i)) for i in np.argwhere(done.flags)] == [(5, 0, 60)]


@pytest.mark.parametrize("overlap", [16, 40, 100])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_overlap_is_found(overlap: int, noise: float) -> None:
    """Half acquisition: the axis near the right edge, the object past the right one. What was found is then stitched."""
    width = int(MIDDLE) + overlap // 2
    data = wide(FULL)[..., :width]
    data = data + noise * data.max() * np.random.default_rng(SEED).normal(size=(360, 4, width))
    found = center_of(frame(data, FULL))
    assert found.center == pytest.approx(MIDDLE, abs=0.25)
    assert found.methods["overlap"] == found.center
    assert stitch_360(find_center(frame(data, FULL))).shape[2] in (240, 241, 242)


def test_no_overlap_is_found_in_noise() -> None:
    rng = np.random.default_rng(SEED)
    _, error = overlap_center([(rng.normal(size=(90, 128)), rng.normal(size=(90, 128)))])
    assert error > 5


def test_the_correlation_against_brute_force() -> None:
    rng, width = np.random.default_rng(SEED), 64
    a = rng.normal(size=(40, width))
    b = np.zeros_like(a)
    for x in range(width):  # axis 25: b(x) = a(50 - x)
        b[:, x] = a[:, 50 - x] if 0 <= 50 - x < width else rng.normal(size=40)
    center, error = overlap_center([(a, b)])
    assert center == pytest.approx(25, abs=0.05)
    assert error < 0.05


@pytest.mark.parametrize(
    ("angles", "center", "words"),
    [
        (FULL / 2, 100.0, "expected 360"),
        (FULL, None, "find_center"),
        (FULL, 148.5, "overlap"),
        (FULL, -3.0, "overlap"),
    ],
)
def test_refusals(angles, center, words) -> None:
    with pytest.raises(FrameError, match=words):
        stitch_360(frame(np.ones((360, 1, 150)), angles, center))


def test_repeated_angles_are_averaged_with_their_noise() -> None:
    """Mean over the repeats; variance of a repeat over its number; what all share stays; the order is that of the file."""
    angles = np.array([0.0, 0.1, 0.1, 0.2, 0.1, 0.0])
    data = np.arange(6.0).reshape(6, 1, 1) * np.ones((6, 2, 3))
    flags = np.zeros((6, 2, 3), np.uint8)
    flags[4, 1, 1] = Flag.HOT
    std = np.full((6, 2, 3), 0.6)
    before = frame(data, angles, 1.0, noise=Noise(2.0, 3.0, 0.0, 0.5, 0.25), flags=flags, std=std)
    done = merge_repeated(before)
    assert np.allclose(done.geometry.angles, [0, 0.1, 0.2])
    assert np.allclose(done.data[:, 0, 0], [2.5, 7 / 3, 3])
    number = np.array([2, 3, 1]).reshape(-1, 1, 1)
    assert np.allclose(done.noise.variance(done.data), (2 * done.data + 3) / number + 0.5 * done.data**2 + 0.25)
    assert np.allclose(done.std, 0.6 / np.sqrt(number))
    assert done.flags[1, 1, 1] == Flag.HOT
    assert done.flags.sum() == Flag.HOT
    assert done.geometry.center == 1.0


def test_noise_maps_of_each_projection_are_averaged_too() -> None:
    b = np.array([1.0, 3.0, 5.0]).reshape(3, 1, 1) * np.ones((3, 1, 2), np.float32)
    done = merge_repeated(frame(np.ones((3, 1, 2)), np.array([0.3, 0.3, 0.5]), noise=Noise(0.0, b, 0.0)))
    assert np.allclose(done.noise.variance(done.data)[:, 0, 0], [(1 + 3) / 4, 5])


def test_nothing_repeated_nothing_changed() -> None:
    before = frame(np.ones((360, 1, 4)), FULL)
    assert merge_repeated(before).data is before.data


def test_merged_projections_go_on_to_optical_depth() -> None:
    angles = np.array([0.0, 0.1, 0.1])
    before = frame(np.full((3, 2, 4), 0.5), angles, noise=Noise(1e-3, 0.0)).replace(unit=Unit.TRANSMISSION)
    done = attenuation(merge_repeated(before))
    assert np.allclose(done.noise.variance(done.data)[:, 0, 0], [2e-3, 1e-3])


def test_what_is_not_finite_is_left_out_of_the_mean() -> None:
    data = np.array([1.0, 3.0, 5.0]).reshape(3, 1, 1) * np.ones((3, 1, 4))
    data[0, 0, 1], data[:2, 0, 2] = np.nan, np.inf
    done = merge_repeated(frame(data, np.array([0.3, 0.3, 0.5])))
    np.testing.assert_array_equal(done.data[0, 0], [2, 3, np.nan, 2])
    np.testing.assert_array_equal(done.flags[0, 0], [0, Flag.NO_DATA, Flag.NO_DATA, 0])
    assert not done.flags[1].any()


def test_a_tolerance_of_nonsense_is_refused() -> None:
    with pytest.raises(FrameError, match="tolerance"):
        merge_repeated(frame(np.ones((3, 1, 4)), np.array([0.3, 0.3, 0.5])), tolerance=np.nan)


def test_repeated_angles_by_sections() -> None:
    data = np.random.default_rng(SEED).random((4, 3, 5))
    before = frame(data, np.array([0.0, 0.1, 0.1, 0.2]))
    assert needs_of(merge_repeated).rows(before, {}) == 0
    part = merge_repeated(before.crop(Box((0, 1, 0), (4, 2, 5))))
    np.testing.assert_array_equal(part.data[:, 0], merge_repeated(before).data[:, 1])
