"""Sections: the same as the whole, in the memory planned, whatever the workers; what stops is gone on with."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from scipy.ndimage import uniform_filter1d

from firstlight import scale
from firstlight.errors import FrameError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.needs import needs
from firstlight.noise import Noise, Unmodelled
from firstlight.restore import reconstruct
from firstlight.scale import Call

A, ROWS, N = 12, 23, 16


def scan(rows=ROWS):
    rng = np.random.default_rng(0)
    data = rng.random((A, rows, N)).astype(np.float32)
    geometry = Scan(np.arange(A) * np.pi / A, center=7.5)
    return Frame(data, "AYX", Unit.OPTICAL_DEPTH, Unmodelled("none"), geometry=geometry)


@needs(halo=2)
def smooth(frame: Frame, *, offset: Frame | None = None, width: int = 5) -> Frame:
    data = frame.data if offset is None else frame.data - offset.data
    return frame.then("t.smooth", data=uniform_filter1d(data, width, axis=1, mode="nearest").astype(np.float32))


@needs(halo=lambda frame, times: times)
def shifted(frame: Frame, *, times: int = 1) -> Frame:
    data = frame.data
    for _ in range(times):
        data = 0.5 * (data + np.concatenate([data[:, 1:], data[:, -1:]], 1))
    return frame.then("t.shifted", data=data.astype(np.float32))


@needs(sample=8)
def place(frame: Frame) -> Frame:
    from dataclasses import replace

    return frame.then("t.place", {"rows": frame.shape[1]}, geometry=replace(frame.geometry, center=6.25))


def undeclared(frame: Frame) -> Frame:
    return frame


class Collected:
    def __init__(self, shape):
        self.data, self.puts, self.threads = np.full(shape, np.nan, np.float32), [], set()

    def put(self, box, block, std=None):
        self.puts.append(box.start)
        self.threads.add(threading.get_ident())
        self.data[box.slices] = block


def both(calls, frame, shape, rows=5, workers=2, **more):
    whole = frame
    for call in calls:
        whole = call.step(whole, **call.params)
    out = Collected(shape)
    plan = scale.plan(frame, calls, memory=1 << 30, workers=workers, rows=rows)
    seconds = scale.run(frame, calls, out, plan, **more)
    return np.asarray(whole.data), out, plan, seconds


@pytest.mark.parametrize("rows", [1, 4, 5, 23, 100])
@pytest.mark.parametrize("workers", [1, 3])
def test_sections_are_the_whole(rows, workers):
    offset = Frame(np.linspace(0, 1, ROWS * N).reshape(ROWS, N), "YX", Unit.OPTICAL_DEPTH, Noise(0.0, 1.0, 0.0))
    calls = [Call(smooth, {"offset": offset}), Call(shifted, {"times": 3}), Call(smooth, {"width": 3})]
    whole, out, plan, _ = both(calls, scan(), (A, ROWS, N), rows, workers)
    np.testing.assert_allclose(out.data, whole, rtol=1e-6)
    assert plan.halo == 7
    assert [p[1] for p in out.puts] == [s.first for s in plan.sections]
    assert out.threads == {threading.get_ident()}  # one writer


def test_a_volume_comes_out_slice_by_slice():
    calls = [Call(smooth, {}), Call(reconstruct, {})]
    whole, out, _, seconds = both(calls, scan(), (ROWS, N, N))
    np.testing.assert_allclose(out.data, whole, atol=1e-6)
    assert {"read", "write", "restore.reconstruct"} < set(seconds)


def test_what_is_done_is_not_done_again():
    calls = [Call(smooth, {})]
    ticks = []
    out = Collected((A, ROWS, N))
    plan = scale.plan(scan(), calls, memory=1 << 30, workers=1, rows=5)
    scale.run(scan(), calls, out, plan, done={0, 10}, tick=lambda n, m: ticks.append((n, m)))
    assert [p[1] for p in out.puts] == [5, 15, 20]
    assert ticks == [(2, 5), (3, 5), (4, 5), (5, 5)]


def test_a_step_that_fails_stops_all():
    @needs()
    def bad(frame: Frame) -> Frame:
        raise FrameError("no")

    out = Collected((A, ROWS, N))
    plan = scale.plan(scan(), [Call(bad, {})], memory=1 << 30, workers=2, rows=2)
    with pytest.raises(FrameError, match="no"):
        scale.run(scan(), [Call(bad, {})], out, plan)
    assert not out.puts


def test_an_input_that_cannot_be_read_stops_all():
    class Broken:
        shape, dtype = (A, ROWS, N), np.dtype(np.float32)

        def __getitem__(self, key):
            raise FrameError("disk")

    frame = scan().replace(data=Broken())
    with pytest.raises(FrameError, match="disk"):
        scale.run(
            frame,
            [Call(smooth, {})],
            Collected((A, ROWS, N)),
            scale.plan(scan(), [Call(smooth, {})], memory=1 << 30, workers=1),
        )


def test_the_geometry_is_found_once_from_a_sample():
    calls = [Call(smooth, {}), Call(place, {}), Call(reconstruct, {})]
    settled, found = scale.settle(scan(60), calls)
    assert found.geometry.center == 6.25
    assert found.history[-1].params == {"rows": 8}
    out = Collected((60, N, N))
    scale.run(scan(60), settled, out, scale.plan(scan(60), settled, memory=1 << 30, workers=2, rows=7))
    expected = reconstruct(smooth(scan(60)), center=6.25).data
    np.testing.assert_allclose(out.data, expected, atol=1e-6)


def test_memory_decides_the_sections():
    calls = [Call(smooth, {})]
    row = 4 * A * N
    little = scale.plan(scan(), calls, memory=row * 80, workers=1)
    assert little.memory <= row * 80
    assert len(scale.plan(scan(), calls, memory=row * 40, workers=1).sections) > len(little.sections)
    with pytest.raises(FrameError, match="give more memory"):
        scale.plan(scan(), calls, memory=row * 5, workers=1)


def test_a_step_without_needs_is_refused():
    with pytest.raises(FrameError, match="does not say what it needs"):
        scale.plan(scan(), [Call(undeclared, {})], memory=1 << 30, workers=1)


def test_each_worker_has_its_device():
    seen = set()

    @needs()
    def on(frame: Frame, *, device: str = "cpu") -> Frame:
        seen.add(device)
        return frame

    plan = scale.plan(scan(), [Call(on, {})], memory=1 << 30, workers=2, rows=1)
    scale.run(scan(), [Call(on, {})], Collected((A, ROWS, N)), plan, devices=["cpu:0", "cpu:1"])
    assert seen
    assert seen <= {"cpu:0", "cpu:1"}


@pytest.mark.parametrize("rows", [4, 23])
def test_a_frame_among_the_parameters_goes_through_calls_of_its_own(rows):
    @needs(halo=1)
    def minus(frame: Frame, *, offset: Frame) -> Frame:
        return frame.then("t.minus", data=frame.data - offset.data)

    rng = np.random.default_rng(3)
    offset = Frame(rng.random((2, ROWS, N)).astype(np.float32), "TYX", Unit.OPTICAL_DEPTH, Unmodelled("none"))
    before = (Call(smooth, {"width": 3}), Call(averaged, {}))
    calls = [Call(smooth, {}), Call(minus, {"offset": offset}, {"offset": before}), Call(shifted, {"times": 2})]
    whole = shifted(minus(smooth(scan()), offset=averaged(smooth(offset, width=3))), times=2)
    out = Collected((A, ROWS, N))
    plan = scale.plan(scan(), calls, memory=1 << 30, workers=2, rows=rows)
    scale.run(scan(), calls, out, plan)
    np.testing.assert_allclose(out.data, whole.data, atol=1e-6)


@needs()
def averaged(frame: Frame) -> Frame:
    return frame.replace(data=np.asarray(frame.data).mean(axis=0), axes="YX")


def test_white_frames_count_in_the_memory():
    offset = Frame(np.zeros((400, ROWS, N), np.float32), "TYX", Unit.OPTICAL_DEPTH, Unmodelled("none"))
    few, many = ([Call(smooth, p)] for p in ({}, {"offset": offset}))
    sizes = [scale.plan(scan(), calls, memory=1 << 30, workers=1, rows=4).memory for calls in (few, many)]
    assert sizes[1] - sizes[0] >= 400 * 8 * N * 4


def test_a_sample_fits_the_memory_and_can_be_named():
    row = 4 * A * N
    assert scale.sample(scan(64), [Call(smooth, {})], 32).shape[1] == 32
    assert scale.sample(scan(64), [Call(smooth, {})], 32, memory=row * 70, copies=4).shape[1] < 32
    named = scale.sample(scan(64), [Call(smooth, {})], [3, 60])
    np.testing.assert_allclose(named.data, smooth(scan(64)).data[:, [3, 60]], rtol=1e-6)
    with pytest.raises(FrameError, match="expected rows of 0"):
        scale.sample(scan(64), [], [64])


def test_one_row_tells_what_comes_out():
    first = scale.probe(scan(), [Call(smooth, {}), Call(reconstruct, {})])
    assert (first.axes, first.shape) == ("ZYX", (1, N, N))
    np.testing.assert_allclose(first.data[0], reconstruct(smooth(scan())).data[ROWS // 2], atol=1e-6)


def test_steps_are_timed():
    _, _, _, seconds = both([Call(smooth, {})], scan(), (A, ROWS, N))
    assert all(s.cpu >= 0 and s.wall >= 0 for s in seconds.values())
