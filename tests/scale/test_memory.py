"""What steps declare to need of memory against what they take at their peak, as allocated through Python."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from functools import lru_cache

import numpy as np
import pytest

from firstlight import calibrate, restore, scale
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.needs import needs, needs_of
from firstlight.noise import Noise
from firstlight.operators import Gridding
from firstlight.restore.reconstruct import _geometry, _waves
from firstlight.scale import Call

ADU, T, DEPTH = Unit.ADU, Unit.TRANSMISSION, Unit.OPTICAL_DEPTH
ENERGY = {"delta_beta": 100.0, "energy": 20.0, "distance": 100.0, "pixel": 1.0}
CASES = [
    ("calibrate.remove_zingers", ADU, {}),
    ("calibrate.remove_zingers", T, {"size": 5}),
    ("calibrate.transmission", ADU, {}),
    ("calibrate.transmission", ADU, {"flats": "median"}),
    ("calibrate.transmission", ADU, {"flats": "interpolated"}),
    ("calibrate.transmission", ADU, {"flats": "pca"}),
    ("calibrate.normalize_air", T, {}),
    ("calibrate.attenuation", T, {}),
    ("calibrate.attenuation", T, {"variance": False}),
    ("calibrate.remove_stripes", T, {}),
    ("calibrate.remove_stripes_sorting", DEPTH, {}),
    ("calibrate.remove_stripes_large", T, {}),
    ("calibrate.remove_stripes_dead", T, {}),
    ("calibrate.remove_stripes_titarenko", T, {}),
    ("calibrate.remove_stripes_fourier_wavelet", T, {}),
    ("calibrate.paganin", T, ENERGY),
    ("calibrate.farago", T, ENERGY),
    ("calibrate.ctf", T, ENERGY | {"pad": 40}),
    ("calibrate.stitch_360", DEPTH, {"center": 170.0}),
    ("calibrate.leave_out", DEPTH, {"projections": [1]}),
    ("calibrate.merge_repeated", DEPTH, {"tolerance": 0.01}),
    ("calibrate.find_center", DEPTH, {}),
    ("restore.reconstruct", DEPTH, {}),
    ("restore.reconstruct", DEPTH, {"std": True}),
    ("restore.reconstruct", DEPTH, {"size": 300}),
    ("restore.reconstruct", DEPTH, {"algorithm": "linerec"}),
]


def scan(unit: Unit, shape: tuple[int, int, int], gaps: bool, turn: float) -> Frame:
    """A blob that goes round, with noise; `gaps`: some NaN, and flags of every pixel."""
    rng, (a, _, x) = np.random.default_rng(0), shape
    angles = np.arange(a) * turn / a
    place = np.arange(x) - (x - 1) / 2 - 0.2 * x * np.cos(angles)[:, None]
    data = np.exp(-0.8 * np.exp(-(place**2) / (2 * (x / 12) ** 2)))[:, None] + 0.01 * rng.standard_normal(shape)
    data = {ADU: 1e4 * data + 100, T: data, DEPTH: -np.log(np.maximum(data, 0.01))}[unit].astype(np.float32)
    law = {ADU: Noise(1.0, 4.0, 100.0), T: Noise(1e-4, 0.0)}.get(unit) or Noise(0.0, np.full(shape, 1e-4, np.float32))
    if gaps:
        data[::7, :, x // 3] = np.nan
    flags = np.zeros(shape, np.uint8) if gaps else None
    geometry = Scan(angles, center=(x - 1) / 2, energy=20.0, distance=100.0, pixel=1.0)
    return Frame(data, "AYX", unit, law, flags=flags, geometry=geometry)


def measured(step, frame: Frame, params) -> float:
    """Bytes at the peak, the frame's own data and flags included."""
    gc.collect()
    tracemalloc.start()
    try:
        step(frame, **params)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return peak + frame.data.nbytes + (0 if frame.flags is None else frame.flags.nbytes)


@lru_cache(maxsize=1)
def _whites(rows: int, columns: int) -> tuple[Frame, Frame]:
    white = scan(ADU, (24, rows, columns), False, 1.0).replace(axes="TYX", geometry=None)
    return white, white.replace(data=np.full((5, rows, columns), 100, np.float32))


@pytest.mark.parametrize("shape", [(45, 1, 256), (180, 20, 200)])
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(("name", "unit", "params"), CASES)
def test_the_memory_declared_is_enough_and_not_idle(name, unit, params, gaps, shape):
    room, function = name.split(".")
    step = getattr({"calibrate": calibrate, "restore": restore}[room], function)
    if name == "restore.reconstruct":
        gaps = False  # refused
    turn = 2 * np.pi if function == "stitch_360" else np.pi
    frame = scan(unit, shape, gaps, turn)
    given = dict(params)
    if function == "transmission":
        given["white"], given["dark"] = _whites(*shape[1:])
    if function == "find_center":
        given["rows"] = shape[1]
    extra = {"workers": 1} if room == "restore" else {}
    step(frame, **given, **extra)  # compiled loops and tables that all frames share
    if room == "restore":
        _geometry.cache_clear()
        _waves.cache_clear()
    declared = needs_of(step).memory(frame, given, 4 * np.prod(shape))
    taken = measured(step, frame, given | extra)
    assert taken <= declared, (taken / frame.data.nbytes, declared / frame.data.nbytes)
    if shape[1] > 1:
        assert declared < 2.5 * taken + (8 << 20), (taken / frame.data.nbytes, declared / frame.data.nbytes)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_in_sections_keeps_to_its_plan(workers):
    """Noise maps that go along, raw sections, results that wait: all of it."""
    frame = scan(T, (90, 40, 128), False, np.pi)
    calls = [
        Call(calibrate.remove_zingers, {}),
        Call(calibrate.attenuation, {}),
        Call(calibrate.remove_stripes_sorting, {}),
        Call(restore.reconstruct, {"std": True}),
    ]

    class Nowhere:
        def put(self, box, block, std=None):
            pass

    plan = scale.plan(frame, calls, memory=1 << 30, workers=workers, rows=8, pixels=128 * 128)
    scale.run(frame, calls, Nowhere(), plan)
    _geometry.cache_clear()
    _waves.cache_clear()
    gc.collect()
    tracemalloc.start()
    try:
        scale.run(frame, calls, Nowhere(), plan)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= plan.memory
    if workers == 1:  # whether two meet at their peaks is the scheduler's affair
        assert plan.memory < 3 * peak


def test_noise_that_goes_along_counts():
    frame = scan(T, (90, 40, 128), False, np.pi)
    steps = [[Call(calibrate.attenuation, {"variance": v}), Call(restore.reconstruct, {})] for v in (False, True)]
    plans = [scale.plan(frame, calls, memory=1 << 30, workers=1, rows=8).memory for calls in steps]
    assert plans[1] - plans[0] >= 4 * 90 * 8 * 128


def test_a_section_is_let_go_once_a_step_has_its_own():
    """Whoever hands a section to a thread must not keep it while the steps run."""
    alive = []

    @needs()
    def first(frame: Frame) -> Frame:
        held = weakref.ref(frame.data)
        later.append(held)
        return frame.then("t.first", data=frame.data + 1)

    @needs()
    def second(frame: Frame) -> Frame:
        gc.collect()
        alive.append(later.pop()() is not None)
        return frame

    class Nowhere:
        def put(self, box, block, std=None):
            pass

    later: list = []
    frame = scan(T, (20, 6, 32), False, np.pi)
    calls = [Call(first, {}), Call(second, {})]
    raw = frame.replace(data=Copied(frame.data))
    scale.run(raw, calls, Nowhere(), scale.plan(frame, calls, memory=1 << 30, workers=1, rows=2))
    assert alive == [False] * 3


class Copied:
    """As a file: what is read from it is the reader's own."""

    def __init__(self, data):
        self.data, self.shape, self.dtype = data, data.shape, data.dtype

    def __getitem__(self, key):
        return self.data[key].copy()


def test_so_many_rows_as_asked_are_sampled():
    frame = scan(DEPTH, (180, 64, 200), False, np.pi)
    for rows in (4, 48):
        _, found = scale.settle(frame, [Call(calibrate.find_center, {"rows": rows})])
        assert found.shape[1] == rows


def test_one_workspace_a_thread_whatever_the_batch():
    grid = Gridding(np.arange(20) * 0.1, 32, workers=1)
    waves = grid.phases(15.5)
    rng = np.random.default_rng(0)
    data = rng.random((20, 16, 32)).astype(np.float32)
    whole = grid.adjoint(data, waves)
    for count in (1, 3, 16, 7):
        np.testing.assert_allclose(grid.adjoint(data[:, :count], waves), whole[:count], atol=1e-5 * np.abs(whole).max())
        assert grid._spare.qsize() == 1
