"""The rotation axis: phantoms of known axis, every grid of angles, real scans, a refusal rather than a wrong answer."""

import numpy as np
import pytest

from firstlight.calibrate import center_of, find_center
from firstlight.calibrate.wedge import cross_spectra, curves, roughness, top
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Unit
from firstlight.geometry import Scan
from firstlight.noise import Unmodelled

SEED = 20261121


def ellipses(rng: np.random.Generator, reach: float) -> np.ndarray:
    """Rows x0, y0, a, b [px about the axis], tilt [rad], value; inside a circle of `reach`."""
    n = rng.integers(4, 25)
    a = reach * rng.uniform(0.02, 0.3, n)
    r, t = (reach - a) * np.sqrt(rng.random(n)), rng.uniform(0, 2 * np.pi, n)
    small = [r * np.cos(t), r * np.sin(t), a, a * rng.uniform(0.3, 1, n), rng.uniform(0, np.pi, n), rng.uniform(-0.5, 1, n)]
    big = [0.02 * reach, -0.01 * reach, 0.9 * reach, 0.9 * reach * rng.uniform(0.6, 1), rng.uniform(0, np.pi), 1.0]
    return np.concatenate([[big], np.transpose(small)])


def sinogram(shapes: np.ndarray, angles: np.ndarray, columns: int, center: float) -> np.ndarray:
    """Exact line integrals of the ellipses (A, X), largest 1."""
    total, x = np.zeros((angles.size, columns)), np.arange(columns) - center
    for x0, y0, a, b, tilt, value in shapes:
        square = (a * np.cos(angles - tilt)) ** 2 + (b * np.sin(angles - tilt)) ** 2
        u = x - (x0 * np.cos(angles) + y0 * np.sin(angles))[:, None]
        total += value * 2 * a * b / square[:, None] * np.sqrt(np.maximum(square[:, None] - u * u, 0))
    return total / np.abs(total).max()


def frame(data: np.ndarray, angles: np.ndarray, **more) -> Frame:
    data = np.asarray(data, np.float32)
    data = data[:, None] if data.ndim == 2 else data
    more = {"unit": Unit.OPTICAL_DEPTH, "noise": Unmodelled("phantom"), "geometry": Scan(angles)} | more
    return Frame(data, "AYX", **more)


def half(n: int) -> np.ndarray:
    return np.arange(n) * np.pi / n


GRIDS = {
    "180 not included": half(180),
    "180 included": np.linspace(0, np.pi, 181),
    "any start": half(180) + 5.1,
    "descending": -half(180) + 2.0,
    "shuffled": np.random.default_rng(SEED).permutation(half(180)),
    "repeated": np.append(half(180), half(180)[:7]),
    "jitter": half(180) + np.random.default_rng(SEED).uniform(-0.3, 0.3, 180) * np.pi / 180,
    "beyond 180": np.arange(220) * np.pi / 180,
    "360": half(180) * 2,
    "360 included": np.linspace(0, 2 * np.pi, 361),
    "golden": np.arange(233) * np.pi * (np.sqrt(5) - 1) % (2 * np.pi),
    "179 degrees": np.linspace(0, np.radians(179), 180, endpoint=False),
}


@pytest.mark.parametrize("grid", GRIDS)
def test_any_grid_of_angles(grid: str) -> None:
    rng, columns, center = np.random.default_rng(SEED), 240, 108.4
    data = sinogram(ellipses(rng, 95), GRIDS[grid], columns, center)
    found = center_of(frame(data, GRIDS[grid]))
    assert found.center == pytest.approx(center, abs=0.5 if grid == "179 degrees" else 0.25)
    assert found.confidence > 0.9


@pytest.mark.parametrize("seed", range(6))
def test_bars(seed: int) -> None:
    """Within 0.25 px clean from one row; within 0.5 px at noise 0.1 from 16 rows; the axis up to 30 % off the middle."""
    rng, columns = np.random.default_rng([SEED, seed]), 512
    center = columns * rng.uniform(0.2, 0.8)
    data = sinogram(ellipses(rng, 0.95 * min(center, columns - center)), half(360), columns, center)
    clean = center_of(frame(data, half(360)))
    assert clean.center == pytest.approx(center, abs=0.25)
    assert clean.confidence > 0.99
    assert not clean.doubts
    noisy = center_of(frame(data[:, None] + 0.1 * rng.normal(size=(360, 16, columns)), half(360)))
    assert noisy.center == pytest.approx(center, abs=0.5)
    assert noisy.confidence > 0.8


def cases(rng: np.random.Generator, columns: int = 192, views: int = 192):
    """Scans that are easy, noisy, ringed, truncated and off the middle, with their axes."""
    center = columns * rng.uniform(0.2, 0.8)
    inside = sinogram(ellipses(rng, 0.97 * min(center, columns - 1 - center)), half(views), columns, center)
    for noise in (0.02, 0.1, 0.3):
        yield inside + noise * rng.normal(size=inside.shape), center
    yield inside + 0.05 * rng.normal(size=columns) + 0.02 * rng.normal(size=inside.shape), center
    for off, reach in ((0.05, 0.6), (0.05, 1.0), (0.15, 0.6), (0.3, 0.5)):
        center = columns * (0.5 + rng.uniform(-off, off))
        cut = sinogram(ellipses(rng, reach * columns), half(views), columns, center)
        yield cut + 0.02 * rng.normal(size=cut.shape), center


def test_no_answer_is_wrong_and_confident() -> None:
    """Confidence 0.9 or more: never off by more than 1 px; the share within 1 px is at least the mean confidence."""
    sure, right, given = [], [], 0
    for seed in range(30):
        for data, center in cases(np.random.default_rng([SEED, 7, seed])):
            given += 1
            try:
                found = center_of(frame(data, half(len(data))))
            except FrameError:
                continue
            off = abs(found.center - center)
            right.append((found.confidence, off < 1))
            if found.confidence >= 0.9:
                sure.append(off)
    assert max(sure) < 1
    assert len(sure) > 0.2 * given
    assert len(right) > 0.8 * given
    confidence, hit = np.transpose(right)
    assert hit.mean() > confidence.mean() - 0.03


def test_pure_noise_is_refused() -> None:
    """At least 10 of 12; where two methods agree by chance the confidence is below a half."""
    refused = 0
    for seed in range(12):
        data = np.random.default_rng([SEED, seed]).normal(size=(200, 4, 256))
        try:
            assert center_of(frame(data, half(200))).confidence < 0.5
        except FrameError as error:
            assert "guess=" in str(error)  # noqa: PT017
            refused += 1
    assert refused >= 10


@pytest.mark.parametrize("seed", range(5))
def test_rings_do_not_draw_the_axis(seed: int) -> None:
    """Columns off by 5 % of the object each: within 0.6 px, and said."""
    rng, columns = np.random.default_rng([SEED, 3, seed]), 512
    center = columns / 2 + rng.uniform(-60, 60)
    data = sinogram(ellipses(rng, 180), half(360), columns, center) + 0.05 * rng.normal(size=columns)
    found = center_of(frame(data, half(360)))
    assert found.center == pytest.approx(center, abs=0.6)
    assert any("rings" in d for d in found.doubts)
    assert found.confidence < 0.9


@pytest.mark.parametrize(
    ("data", "angles", "more", "words"),
    [
        (np.zeros((90, 64)), half(90), {}, "no object"),
        (np.full((90, 64), np.nan), half(90), {}, "no object"),
        (np.ones((90, 64)), half(90) * 0.6, {}, "108.0 degrees"),
        (np.ones((90, 64)), half(90) * np.pi / 180, {}, "radians"),
        (np.ones((5, 64)), half(5), {}, "fewer than 8"),
        (np.ones((90, 64)), np.zeros(90), {}, "fewer than 8"),
        (np.ones((90, 64)), half(90), {"unit": Unit.TRANSMISSION}, "minus log"),
        (np.ones((90, 64)), half(90), {"unit": Unit.ADU}, "minus log"),
        (np.ones((90, 64)), half(90), {"geometry": None}, "with its angles"),
        (np.ones((90, 8)), half(90), {}, "at least 16"),
        (np.ones((80, 64)), np.delete(half(90), range(30, 40)), {}, "gap"),
    ],
)
def test_refusals(data, angles, more, words) -> None:
    with pytest.raises(FrameError, match=words):
        center_of(frame(data, angles, **more))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"method": "magic"}, "auto, wedge"),
        ({"rows": 0}, "at least 1"),
        ({"rows": [3]}, "rows of 0..0"),
        ({"guess": 900.0}, "0..239"),
        ({"guess": 60.0, "width": 5.0}, "cannot be told|edge"),
    ],
)
def test_parameters_that_cannot_be(params, words) -> None:
    data = sinogram(ellipses(np.random.default_rng(SEED), 95), half(180), 240, 108.4)
    with pytest.raises(FrameError, match=words):
        center_of(frame(data, half(180)), **params)


@pytest.mark.parametrize("method", ["wedge", "phase", "vo"])
def test_each_method_alone(method: str) -> None:
    data = sinogram(ellipses(np.random.default_rng(SEED), 95), half(180), 240, 108.4)
    found = center_of(frame(data, half(180)), method=method, guess=110.0, width=12.0)
    assert found.center == pytest.approx(108.4, abs=0.6)
    assert found.methods[method] == found.center


def test_bad_pixels_are_filled_and_said() -> None:
    rng = np.random.default_rng(SEED)
    data = sinogram(ellipses(rng, 95), half(180), 240, 108.4)
    data[rng.random(data.shape) < 0.01] = np.nan
    data[:, 50] = 1e6
    data[17] = np.inf
    flags = np.zeros((1, 240), np.uint8)
    flags[:, 50] = Flag.DEAD
    found = center_of(frame(data, half(180), flags=flags))
    assert found.center == pytest.approx(108.4, abs=0.5)
    assert any("bad pixels" in d for d in found.doubts)


def test_the_step_sets_the_axis_and_says_how() -> None:
    data = sinogram(ellipses(np.random.default_rng(SEED), 95), half(180), 240, 108.4)
    before = frame(data, half(180))
    after = find_center(before, rows=4)
    assert before.geometry.center is None
    assert after.data is before.data
    assert after.geometry.center == pytest.approx(108.4, abs=0.25)
    assert after.history[-1].step == "calibrate.find_center"
    assert set(after.history[-1].params["found"]) == {"center", "confidence", "methods", "doubts"}


def test_the_curve_is_the_energy_outside_the_wedge() -> None:
    """Brute force: the half turn joined to its mirror at one axis, transformed whole; Vo's amplitude likewise."""
    rng, columns, views = np.random.default_rng(SEED), 48, 60
    row = np.float32(rng.normal(size=(views, columns)))
    part = cross_spectra([row], columns)
    padded, used = part.padded, part.power.shape[1]
    n, f = np.arange(views + 1)[:, None], np.arange(used)[None]
    mask = n > np.pi * columns * f / padded + 3
    values = []
    for center in range(columns):
        mirror = np.zeros((views, padded))
        for x in range(columns):
            mirror[:, (2 * center - x) % padded] = row[:, x]
        whole = np.zeros((2 * views, padded))
        whole[:views, :columns], whole[views:] = row, mirror
        spectrum = np.fft.fft(np.fft.rfft(whole, axis=1), axis=0)[: views + 1, :used]
        values.append((np.abs(spectrum) * mask).sum() / mask.sum())
    mine = roughness(row, columns, np.arange(columns, dtype=float))
    assert np.allclose(mine, values, rtol=1e-4)


def test_a_curve_has_its_top_between_pixels() -> None:
    x = np.arange(400) / 8
    assert top(-((x - 20.31) ** 2)) == pytest.approx(20.31, abs=1e-6)
    assert top(-((x - 20.31) ** 2), near=30, reach=2) == pytest.approx(28, abs=0.2)


def test_curves_of_a_sinogram_that_is_symmetric_peak_at_its_axis() -> None:
    data = np.float32(sinogram(ellipses(np.random.default_rng(SEED), 95), half(180), 240, 108.4))
    for white in (False, True):
        (curve,) = curves([cross_spectra([data], 240)], white=white, columns=240)
        assert top(curve.values.sum(axis=0)) == pytest.approx(108.4, abs=0.2)
        assert 0.6 < curve.values.sum(axis=0).max() / curve.energy.sum() <= 1


def test_tooth(data) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(data / "tomography" / "tooth_aps.h5") as file:
        group = file["exchange"]
        dark = group["data_dark"][:].mean(axis=0)
        depth = -np.log((group["data"][:180] - dark) / (group["data_white"][:].mean(axis=0) - dark))
        angles = np.radians(group["theta"][:180])
    found = center_of(frame(depth, angles))
    assert found.center == pytest.approx(295.5, abs=1)
    assert found.confidence > 0.85
    assert "rings" in found.doubts[0]


def test_dendrite(data) -> None:
    """One noisy row, rings, and the object leaves the field: found, and doubted."""
    from scipy.io import loadmat

    file = loadmat(data / "tomography" / "dendrite_sino.mat")
    found = center_of(frame(file["sinoRD"].T, file["anglesRad"].ravel()))
    assert found.center == pytest.approx(626.3, abs=1)
    assert "the object leaves the field of view" in found.doubts


def test_lost_projections_are_taken_from_those_around_them():
    """Several in a row: a projection of zeros among them would pull the centroid."""
    rng = np.random.default_rng(SEED)
    data = sinogram(ellipses(rng, 50.0), half(180), 128, 60.3)
    whole = center_of(frame(data, half(180)))
    data[50:54] = np.nan
    found = center_of(frame(data, half(180)))
    assert found.center == pytest.approx(whole.center, abs=0.1)
    assert found.methods["centroid"] == pytest.approx(whole.methods["centroid"], abs=0.1)


@pytest.mark.parametrize(("center", "turn", "told"), [(200.0, 2, True), (127.5, 2, False), (200.0, 1, False)])
def test_a_whole_turn_off_the_middle_can_be_stitched(center: float, turn: int, told: bool) -> None:
    """Said where the object leaves the field alone: of half a turn, or about the middle, there is nothing to gain."""
    rng, columns = np.random.default_rng(SEED), 256
    theta = half(360) * turn
    data = sinogram(ellipses(rng, 180), theta, columns, center)
    found = center_of(frame(data, theta), guess=center, width=20)
    assert "the object leaves the field of view" in found.doubts
    assert [d for d in found.doubts if "stitch_360" in d] == (
        ["the axis is 72 px off the middle: calibrate.stitch_360 after this step makes the field 145 px wider"] if told else []
    )


def test_what_the_field_holds_needs_no_stitching() -> None:
    rng, theta = np.random.default_rng(SEED), half(180) * 2
    found = center_of(frame(sinogram(ellipses(rng, 60), theta, 256, 170.0), theta))
    assert not [d for d in found.doubts if "stitch_360" in d]
