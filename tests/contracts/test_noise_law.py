"""The one property of every affine calibration step: an unbiased mean and the variance that the frame's noise law says.

A known scene is exposed many times by the simulated detector (with fresh bias, dark and flat exposures each time), and
calibrated. z = (data - truth) / sqrt(law at the truth) must have mean 0 and mean square 1, in three classes of signal so that
shot noise, floor and flat noise are all tried. Tolerance: 4.5 standard errors and the share of .004 that the steps neglect
(quantisation of the raw counts, 0.05 % of the variance; the noise of a flat's median; second orders of 1/flat).
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from firstlight import calibrate, scaling, simulate
from firstlight.errors import FrameError
from firstlight.frame import Frame, Observation, Unit
from firstlight.geometry import BAYER, Mosaic, Scan
from firstlight.noise import Detector, Noise, Unmodelled

SEED = 20261121
GAIN, READ_NOISE, OFFSET = 0.25, 3.0, 200.0
EXPOSURE, DARK_EXPOSURE = 10.0, 20.0
CELL = np.array([[0, 3], [5, 2]])  # black level per CFA place


class Scene(NamedTuple):
    """Expected electrons of one exposure, the camera that sees them, and what its frames say of themselves."""

    electrons: np.ndarray
    sensor: simulate.Sensor
    axes: str
    geometry: Mosaic | Scan | None
    cell: np.ndarray

    @property
    def detector(self) -> Detector:
        offset = OFFSET + self.cell if self.cell.any() else OFFSET
        return Detector(GAIN, READ_NOISE, offset, self.sensor.saturation, source="simulation")

    def raw(self, electrons, exposure: float, rng, axes: str | None = None) -> Frame:
        data = self.sensor.expose(electrons, rng, exposure)
        data = data + np.tile(self.cell, (data.shape[-2] // 2, data.shape[-1] // 2)).astype(data.dtype)
        frame = Frame(
            data,
            axes or self.axes,
            Unit.ADU,
            Unmodelled("no gain: pass a detector"),
            geometry=self.geometry if isinstance(self.geometry, Mosaic) or axes is None else None,
            observation=Observation(exposure=exposure),
        )
        return calibrate.assign(frame, detector=self.detector)

    def light(self, rng) -> Frame:
        return self.raw(self.electrons, EXPOSURE, rng)

    def many(self, rng, draws: int) -> Frame:
        """`draws` exposures along a T axis: for steps that need no masters."""
        return self.raw(np.broadcast_to(self.electrons, (draws, *self.electrons.shape)), EXPOSURE, rng, "T" + self.axes)

    def masters(self, rng, n: int, level: float, exposure: float, method: str = "mean") -> Frame:
        shape = self.electrons.shape[-2:]
        return calibrate.master([self.raw(np.full(shape, level), exposure, rng, "YX") for _ in range(n)], method=method)

    @property
    def signal(self) -> np.ndarray:
        """Expected electrons above the offset, with the dark current."""
        return self.electrons * self.sensor.response + self.sensor.dark * EXPOSURE

    @property
    def flattened(self) -> np.ndarray:
        """The truth after dark and flat: the response of the median pixel (of each colour) is 1."""
        response, norm = self.sensor.response, np.ones(self.sensor.response.shape)
        colour = self.geometry.at(response.shape) if isinstance(self.geometry, Mosaic) else np.zeros(response.shape, int)
        for i in np.unique(colour):
            norm[colour == i] = np.median(response[colour == i])
        return self.electrons * norm


def make_scene(name: str) -> Scene:
    rng = np.random.default_rng([SEED, len(name)])
    shape = (24, 32)
    sensor = simulate.make_sensor(
        shape, rng, gain=GAIN, read_noise=READ_NOISE, offset=OFFSET, dark=2.0, hot=0.0, prnu=0.02, vignetting=0.3
    )
    none = np.zeros((2, 2), dtype=int)
    if name == "photography":
        mosaic = Mosaic(BAYER, phase=(1, 0))
        rgb = simulate.chart(shape, rng)
        electrons = 900 * np.take_along_axis(rgb, mosaic.at(shape)[..., None], axis=-1)[..., 0]
        return Scene(electrons, sensor, "YX", mosaic, CELL)
    if name == "microscopy":
        return Scene(simulate.filaments(shape, rng, n=4), sensor, "YX", None, none)
    if name == "astronomy":
        return Scene(simulate.star_field(shape, rng, n=8, brightest=5000.0)[0], sensor, "YX", None, none)
    angles = np.array([0.0, 1.0])
    line, _ = simulate.phantom_projections(angles, shape[0], shape[1])
    return Scene(4000 * np.exp(-line), sensor, "AYX", Scan(angles), none)


SCENES = {name: make_scene(name) for name in ("photography", "microscopy", "astronomy", "tomography")}


class Sums:
    """Sums of z and z^2 by class of signal."""

    def __init__(self, truth: np.ndarray):
        cuts = np.quantile(truth, [1 / 3, 2 / 3])
        self.classes = np.digitize(truth, cuts)
        self.n, self.z, self.z2 = (np.zeros(3) for _ in range(3))

    def add(self, data, truth, variance) -> None:
        z = (np.asarray(data, dtype=float) - truth) / np.sqrt(variance)
        classes = np.broadcast_to(self.classes, z.shape)
        for k in range(3):
            part = z[classes == k]
            self.n[k] += part.size
            self.z[k] += part.sum()
            self.z2[k] += (part**2).sum()

    def check(self, common: float = 0.0, draws: int = 1) -> None:
        """`common`: an error [sigma] that all pixels of one draw share, the noise of a small flat's median."""
        mean, square = self.z / self.n, self.z2 / self.n
        limit = 4.5 * np.sqrt(1 / self.n + common**2 / draws) + 0.004
        assert np.all(np.abs(mean) < limit), f"biased by {mean} sigma, allowed {limit}"
        limit = 4.5 * np.sqrt(2 / self.n + 2 * common**4 / draws) + 0.004 + common**2
        assert np.all(np.abs(square - 1) < limit), f"variance over law: {square}, expected 1 +- {limit}"


def demand(frame: Frame, truth: np.ndarray, sums: Sums) -> None:
    assert isinstance(frame.noise, Noise), frame.noise
    sums.add(frame.data, truth, frame.noise.variance(np.broadcast_to(truth, frame.shape)))


def documented(frame: Frame) -> Frame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return calibrate.documented(frame, gain=0.3, read_noise=2.0)


def as_rate(frame: Frame) -> Frame:
    done = calibrate.to_electrons(frame)
    return done.replace(data=done.data / EXPOSURE, unit=Unit.ELECTRON_RATE, noise=done.noise.scaled(1 / EXPOSURE))


def scaled(frame: Frame) -> Frame:
    return scaling.scale(calibrate.to_electrons(frame), scale=170.0, offset=5.0)


def offset_map(scene: Scene) -> np.ndarray:
    return np.tile(OFFSET + scene.cell, (12, 16))


SINGLE: dict[str, tuple[Callable[[Scene, Frame], Frame], Callable[[Scene], np.ndarray]]] = {
    "assign": (lambda s, f: f, lambda s: offset_map(s) + s.signal / GAIN),
    "subtract_offset": (lambda s, f: calibrate.subtract_offset(f), lambda s: s.signal / GAIN),
    "subtract_offset given": (lambda s, f: calibrate.subtract_offset(f, offset=offset_map(s)), lambda s: s.signal / GAIN),
    "to_electrons": (lambda s, f: calibrate.to_electrons(f), lambda s: s.signal),
    "offset, to_electrons": (lambda s, f: calibrate.to_electrons(calibrate.subtract_offset(f)), lambda s: s.signal),
    "to_electrons given": (lambda s, f: calibrate.to_electrons(f, gain=0.5), lambda s: 2 * s.signal),
    "to_counts": (lambda s, f: calibrate.to_counts(as_rate(f)), lambda s: s.signal),
    "documented": (lambda s, f: documented(f), lambda s: 0.3 * (offset_map(s) + s.signal / GAIN) - 2.0),
    "scaling": (lambda s, f: scaled(f), lambda s: (s.signal + 5) / 170),
}


@pytest.mark.parametrize("step", SINGLE)
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_one_frame_steps(scene, step):
    # 150 draws of 768 or 1536 pixels: a standard error of .007 of the variance in each class
    run, truth = SINGLE[step]
    expected = truth(scene)
    sums = Sums(scene.signal)
    demand(run(scene, scene.many(np.random.default_rng([SEED, 1]), 150)), expected, sums)
    sums.check()


def bias_only(s: Scene, rng) -> Frame:
    return calibrate.subtract_bias(s.light(rng), bias=s.masters(rng, 4, 0.0, 0.0))


def dark_scaled(s: Scene, rng) -> Frame:
    bias = s.masters(rng, 3, 0.0, 0.0)
    dark = calibrate.subtract_bias(s.masters(rng, 4, 0.0, DARK_EXPOSURE), bias=bias)
    return calibrate.subtract_dark(calibrate.subtract_bias(s.light(rng), bias=bias), dark=dark)


def dark_same_bias(s: Scene, rng) -> Frame:
    bias = s.masters(rng, 2, 0.0, 0.0)
    dark = calibrate.subtract_bias(s.masters(rng, 4, 0.0, EXPOSURE), bias=bias)
    return calibrate.subtract_dark(calibrate.subtract_bias(s.light(rng), bias=bias), dark=dark)


def dark_other_bias(s: Scene, rng) -> Frame:
    dark = calibrate.subtract_bias(s.masters(rng, 4, 0.0, EXPOSURE), bias=s.masters(rng, 2, 0.0, 0.0))
    return calibrate.subtract_dark(calibrate.subtract_bias(s.light(rng), bias=s.masters(rng, 2, 0.0, 0.0)), dark=dark)


def dark_raw(s: Scene, rng) -> Frame:
    return calibrate.subtract_dark(s.light(rng), dark=s.masters(rng, 4, 0.0, EXPOSURE))


def median_bias(s: Scene, rng) -> Frame:
    return calibrate.subtract_bias(s.light(rng), bias=s.masters(rng, 4, 0.0, 0.0, "median"))


def whole_chain(s: Scene, rng) -> Frame:
    return calibrate.calibrate(s.light(rng), **chain_masters(s, rng))


def chain_masters(s: Scene, rng) -> dict[str, Frame]:
    return {
        "bias": s.masters(rng, 3, 0.0, 0.0),
        "dark": s.masters(rng, 4, 0.0, DARK_EXPOSURE),
        "flat": s.masters(rng, 4, 3000.0, 0.0),
    }


MASTERS: dict[str, tuple[Callable[[Scene, np.random.Generator], Frame], Callable[[Scene], np.ndarray]]] = {
    "subtract_bias": (bias_only, lambda s: s.signal / GAIN),
    "subtract_bias median": (median_bias, lambda s: s.signal / GAIN),
    "subtract_dark scaled": (dark_scaled, lambda s: s.electrons * s.sensor.response / GAIN),
    "subtract_dark of the same bias": (dark_same_bias, lambda s: s.electrons * s.sensor.response / GAIN),
    "subtract_dark of another bias": (dark_other_bias, lambda s: s.electrons * s.sensor.response / GAIN),
    "subtract_dark with its bias": (dark_raw, lambda s: s.electrons * s.sensor.response / GAIN),
    "calibrate": (whole_chain, lambda s: s.flattened),
}


@pytest.mark.parametrize("step", MASTERS)
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_steps_with_masters(scene, step):
    # masters exposed afresh for every draw, so that their noise shows; 50 draws: a standard error of .013 of the variance
    run, truth = MASTERS[step]
    rng, expected, sums = np.random.default_rng([SEED, 2]), truth(scene), Sums(scene.signal)
    for _ in range(50):
        demand(run(scene, rng), expected, sums)
    sums.check(common=0.05 if step == "calibrate" else 0.0, draws=50)


@pytest.mark.parametrize("method", ["mean", "median", "clip"])
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_a_stack_does_not_average_its_masters_down(scene, method):
    rng, sums, fooled = np.random.default_rng([SEED, 3]), Sums(scene.signal), Sums(scene.signal)
    for _ in range(36):
        masters = chain_masters(scene, rng)
        lights = [calibrate.calibrate(scene.light(rng), **masters) for _ in range(6)]
        stack = calibrate.combine(lights, method=method, sigma=5.0)
        demand(stack, scene.flattened - (1 / 6 if method == "median" else 0), sums)
        wrong = replace(stack.noise, c=stack.noise.c / 6, d=stack.noise.d / 6)
        demand(stack.replace(noise=wrong), scene.flattened, fooled)
    if method == "median":  # discrete counts: the normal median's variance holds to 3 %
        assert np.all(np.abs(sums.z2 / sums.n - 1) < 0.03 + 4.5 * np.sqrt(2 / sums.n))
    else:
        sums.check(common=0.1, draws=36)
    assert np.all(fooled.z2 / fooled.n > 1.05), "the masters' noise is too small here to show"


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_read_noise_is_no_offset(scene):
    """Regression: electrons = ADU * gain - read_noise, published for these very detectors, is biased by offset and noise."""
    frame = scene.many(np.random.default_rng([SEED, 4]), 20)
    right = calibrate.to_electrons(frame).data.mean(axis=0) - scene.signal
    wrong = np.asarray(frame.data * GAIN - READ_NOISE).mean(axis=0) - scene.signal
    se = np.sqrt((scene.signal + READ_NOISE**2) / 20)
    assert abs((right / se).mean()) < 4.5 / np.sqrt(se.size)
    assert wrong.mean() > OFFSET * GAIN - READ_NOISE - 1
    with pytest.warns(UserWarning, match="read noise"):
        done = calibrate.documented(frame, gain=GAIN, read_noise=READ_NOISE)
    np.testing.assert_allclose(done.data.mean(axis=0) - scene.signal, wrong, atol=1e-3)
    # but its law is the true one: zero signal is where the offset went
    assert np.allclose(done.noise.offset, (OFFSET + scene.cell if scene.cell.any() else OFFSET) * GAIN - READ_NOISE)
    assert np.allclose(done.noise.b, READ_NOISE**2)


ONCE = {
    "subtract_offset": lambda f, b: calibrate.subtract_offset(f),
    "subtract_offset given": lambda f, b: calibrate.subtract_offset(f, offset=200.0),
    "subtract_bias": lambda f, b: calibrate.subtract_bias(f, bias=b),
    "to_electrons": lambda f, b: calibrate.to_electrons(f),
    "documented": lambda f, b: documented(f),
    "subtract_dark raw": lambda f, b: calibrate.subtract_dark(f, dark=b, scale=1.0),
}


@pytest.mark.parametrize("second", ONCE)
@pytest.mark.parametrize("first", ONCE)
@pytest.mark.parametrize("known", [True, False])
def test_the_black_level_is_subtracted_once(first, second, known):
    """Regression: black level subtracted twice. Every second removal refuses, or (to_electrons) takes nothing away."""
    scene = SCENES["microscopy"]
    rng = np.random.default_rng([SEED, 5])
    frame, bias = scene.light(rng), scene.raw(np.zeros((24, 32)), EXPOSURE, rng)
    if not known:
        frame, bias = (f.replace(noise=Unmodelled("no gain")) for f in (frame, bias))
        if first in {"subtract_offset", "to_electrons"}:
            with pytest.raises(FrameError, match="no gain"):
                ONCE[first](frame, bias)
            return
    once = ONCE[first](frame, bias)
    if second == "to_electrons" and once.unit is Unit.ADU and known:
        np.testing.assert_allclose(calibrate.to_electrons(once).data, once.data * GAIN, rtol=1e-6)
        return
    with pytest.raises(FrameError):
        ONCE[second](once, bias)
