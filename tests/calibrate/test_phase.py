"""Phase retrieval: a propagated object gives back its thickness, flat fields stay, sections equal the whole."""

import numpy as np
import pytest

from firstlight.box import Box
from firstlight.calibrate import ctf, farago, gpaganin, paganin
from firstlight.calibrate.phase import halo_rows
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Unit
from firstlight.geometry import Scan
from firstlight.needs import needs_of
from firstlight.noise import Noise, Unmodelled

SEED = 20261121
FILTERS = {"paganin": paganin, "gpaganin": gpaganin, "farago": farago, "ctf": ctf}
OPTICS = {"delta_beta": 400.0, "energy": 20.0, "distance": 40.0, "pixel": 1.0}
WAVELENGTH = 6.1992e-5  # micrometre at 20 keV


def frame(data: np.ndarray, **more) -> Frame:
    data = np.asarray(data, np.float32)
    axes = "AYX" if data.ndim == 3 else "YX"
    geometry = Scan(np.arange(data.shape[0]) * 0.1) if data.ndim == 3 else None
    more = {"noise": Noise(0.0, 1e-4, 0.0), "geometry": geometry} | more
    return Frame(data, axes, Unit.TRANSMISSION, **more)


def object_in_beam(depth: float, size: int = 256, blur: float = 24.0) -> np.ndarray:
    """mu T of a homogeneous object, `depth` at most: a disc with Gaussian edges, far from the border."""
    y, x = np.mgrid[:size, :size] - size / 2
    f = np.fft.fftfreq(size)
    disc = np.fft.fft2((np.hypot(y, x) < size / 6).astype(float)) * np.exp(
        -2 * (np.pi * blur / 4) ** 2 * (f[:, None] ** 2 + f**2)
    )
    return depth * np.real(np.fft.ifft2(disc))


def propagated(depth: np.ndarray, delta_beta: float, distance: float, pixel: float = 1.0) -> np.ndarray:
    """Intensity at `distance` [mm] of a plane wave through mu T: the Fresnel propagator on the exit wave."""
    f = np.fft.fftfreq(len(depth), pixel)
    free = np.exp(-1j * np.pi * WAVELENGTH * distance * 1e3 * (f[:, None] ** 2 + f**2))
    wave = np.exp(-depth / 2 * (1 + 1j * delta_beta))
    return np.abs(np.fft.ifft2(np.fft.fft2(wave) * free)) ** 2


@pytest.mark.parametrize("name", ["paganin", "gpaganin", "farago"])
def test_thickness_in_the_near_field(name: str) -> None:
    """Absorption of 60 %, phase 18 rad, refracted by under a pixel: thickness within .5 %; the raw log is off by over 5 %."""
    depth = object_in_beam(0.9)
    seen = propagated(depth, 40.0, OPTICS["distance"])
    found = -np.log(FILTERS[name](frame(seen), **OPTICS | {"delta_beta": 40.0}).data)
    assert np.abs(found - depth).max() < 0.005 * depth.max()
    assert np.abs(-np.log(seen) - depth).max() > 0.05 * depth.max()


def test_far_out_the_whole_transfer_function_is_needed() -> None:
    """Weak object, chi = 1.95 at details of 10 px: farago and ctf find it, paganin is four times worse."""
    rng, n, delta_beta, distance = np.random.default_rng(SEED), 256, 100.0, 1000.0
    f = np.fft.fftfreq(n)
    band = np.exp(-((f[:, None] ** 2 + f**2) / 0.07**2))
    depth = np.real(np.fft.ifft2(np.fft.fft2(rng.normal(size=(n, n))) * band))
    depth = 1e-3 * (depth - depth.min()) / np.ptp(depth)
    seen = frame(propagated(depth, delta_beta, distance))
    optics = {"delta_beta": delta_beta, "energy": 20.0, "distance": distance, "pixel": 1.0, "pad": 0}
    error = {k: np.std(-np.log(v(seen, **optics).data) - depth) / depth.std() for k, v in FILTERS.items()}
    assert error["farago"] < 0.05
    assert error["ctf"] < 0.05
    assert error["paganin"] > 4 * error["farago"]


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("shape", [(3, 40, 61), (1, 7, 50), (32, 48)])
def test_a_flat_field_is_kept(name: str, shape: tuple[int, ...]) -> None:
    level = 1.0 if name == "ctf" else 0.37
    done = FILTERS[name](frame(np.full(shape, level)), **OPTICS)
    assert done.shape == shape
    assert np.allclose(done.data, level, atol=2e-6)


@pytest.mark.parametrize("step", [paganin, gpaganin])
def test_no_phase_is_the_identity(step) -> None:
    data = np.random.default_rng(SEED).uniform(0.2, 1, (3, 20, 31)).astype(np.float32)
    assert np.array_equal(step(frame(data), **OPTICS | {"delta_beta": 0.0}).data, data)


def test_the_equation_of_paganin_on_one_frequency() -> None:
    """A cosine of period 16 px along X, whole periods, no padding: it falls by 1/(1 + pi lambda z delta/beta f^2)."""
    wave = 1 + 0.1 * np.cos(2 * np.pi * np.arange(96) / 16)
    done = paganin(frame(np.broadcast_to(wave, (2, 30, 96))), **OPTICS, pad=0)
    fall = 1 / (1 + np.pi * WAVELENGTH * 40e3 * 400 / 16**2)
    assert np.allclose(done.data, 1 + (wave - 1) * fall, atol=1e-5)
    general = gpaganin(frame(np.broadcast_to(wave, (2, 30, 96))), **OPTICS, pad=0)
    tau = 400 * WAVELENGTH * 40e3 / (4 * np.pi)
    assert np.allclose(general.data, 1 + (wave - 1) / (1 + 2 * tau * (1 - np.cos(2 * np.pi / 16))), atol=1e-5)


def test_against_a_plain_filter_of_each_projection() -> None:
    """SciPy's real transform of each edge-padded projection by itself; an odd number of projections; both pixel axes."""
    import scipy.fft

    data = np.random.default_rng(SEED).uniform(0.3, 1, (5, 44, 75)).astype(np.float32)
    done, pad = paganin(frame(data), **OPTICS, pad=20), 20
    shape = [scipy.fft.next_fast_len(n + 2 * pad) for n in data.shape[1:]]
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    h = 1 / (1 + np.pi * WAVELENGTH * 40e3 * 400 * (fy**2 + fx**2))
    for one, two in zip(data, done.data, strict=True):
        wide = np.pad(one, [(pad, n - m - pad) for n, m in zip(shape, one.shape, strict=True)], mode="edge")
        plain = scipy.fft.irfft2(scipy.fft.rfft2(wide) * h, shape)[pad : pad + 44, pad : pad + 75]
        assert np.allclose(two, plain, atol=2e-5)


@pytest.mark.parametrize("name", FILTERS)
def test_a_section_with_its_halo_equals_the_whole(name: str) -> None:
    data = np.random.default_rng(SEED).uniform(0.3, 1, (3, 400, 64)).astype(np.float32)
    optics = OPTICS | {"delta_beta": 100.0}
    whole, step = frame(data), FILTERS[name]
    rows = needs_of(step).rows(whole, optics)
    assert rows == halo_rows(whole, **optics)
    done = step(whole, **optics).data
    part = step(whole.crop(Box((0, 150 - rows, 0), (3, 250 + rows, 64))), **optics).data[:, rows:-rows]
    assert np.abs(part - done[:, 150:250]).max() < 1e-3 * np.ptp(data)
    short = step(whole.crop(Box((0, 149, 0), (3, 251, 64))), **optics).data[:, 1:-1]
    assert np.abs(short - done[:, 150:250]).max() > 1e-2 * np.ptp(data)


@pytest.mark.parametrize("name", FILTERS)
def test_what_the_frame_says_after(name: str) -> None:
    data = np.random.default_rng(SEED).uniform(0.3, 1, (3, 20, 40)).astype(np.float32)
    scan = Scan(np.arange(3.0), center=20.0, energy=20.0, distance=40.0, pixel=1.0)
    before = frame(data, geometry=scan, std=np.full((20, 40), 0.1, np.float32), flags=np.ones((20, 40), np.uint8))
    kept = data.copy()
    after = FILTERS[name](before, delta_beta=400.0)
    assert np.array_equal(data, kept)
    assert after.unit is Unit.TRANSMISSION
    assert after.data.dtype == np.float32
    assert isinstance(after.noise, Unmodelled)
    assert "correlate" in after.noise.reason
    assert after.std is None
    assert after.flags is before.flags
    assert after.geometry is scan
    assert after.history[-1].step == f"calibrate.{name}"
    assert after.history[-1].params["delta_beta"] == 400.0
    assert np.array_equal(after.data, FILTERS[name](before, **OPTICS).data)


def test_non_finite_pixels_are_filled_and_flagged() -> None:
    data = np.full((2, 20, 40), 0.5, np.float32)
    data[0, 3, 4], data[1, 7, 8] = np.nan, np.inf
    done = paganin(frame(data), **OPTICS)
    assert np.allclose(done.data, 0.5, atol=1e-6)
    assert sorted(map(tuple, np.argwhere(done.flags & int(Flag.NO_DATA)))) == [(0, 3, 4), (1, 7, 8)]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"energy": 20000.0}, "keV"),
        ({"pixel": 1e-4}, "micrometre"),
        ({"distance": 4e7}, "mm"),
        ({"distance": -1.0}, "mm"),
        ({"distance": 4e-5}, "distance in mm"),
        ({"delta_beta": -1.0}, "alpha"),
        ({"delta_beta": 1e6, "distance": 1e5}, "half the width"),
        ({"pixel": None}, "pixel="),
        ({"energy": None, "distance": None}, "energy=, distance="),
        ({"pad": -1}, "pad"),
    ],
)
def test_wrong_units_are_refused(params, words) -> None:
    with pytest.raises(FrameError, match=words):
        paganin(frame(np.ones((2, 20, 40))), **OPTICS | params)


def test_other_refusals() -> None:
    with pytest.raises(FrameError, match="before the logarithm"):
        paganin(frame(np.ones((2, 20, 40))).replace(unit=Unit.OPTICAL_DEPTH), **OPTICS)
    with pytest.raises(FrameError, match="AYX"):
        paganin(Frame(np.ones((2, 20, 40)), "CYX", Unit.TRANSMISSION, Unmodelled("none")), **OPTICS)
    with pytest.raises(FrameError, match="through zero"):
        farago(frame(np.ones((2, 20, 400))), **OPTICS | {"distance": 2e4, "delta_beta": 10.0}, regularize=0.0)
    with pytest.raises(FrameError, match="regularize"):
        ctf(frame(np.ones((2, 20, 40))), **OPTICS, regularize=2.0)
