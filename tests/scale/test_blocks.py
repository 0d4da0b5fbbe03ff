import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight import Box, Frame, Mosaic, Noise, restore, scale
from firstlight.errors import FrameError
from firstlight.geometry import XTRANS


class Memory:
    """A writer into an array, which records how often each pixel was written."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.data, self.count = np.zeros(shape), np.zeros(shape, int)
        self.largest = 0

    def put(self, box: Box, block, std=None) -> None:
        self.data[box.slices] = block
        self.count[box.slices] += 1
        self.largest = max(self.largest, box.size)


def blur(frame: Frame) -> Frame:
    """A 5 x 5 mean with the border repeated: looks two pixels around itself."""
    from scipy.ndimage import uniform_filter

    return frame.replace(data=uniform_filter(np.asarray(frame.data, float), (1,) * (len(frame.shape) - 2) + (5, 5)))


def noisy(shape, axes, **kw) -> Frame:
    return Frame(np.random.default_rng(4).random(shape), axes, "adu", Noise(1.0, 1.0), **kw)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 90), st.integers(1, 60), st.sampled_from(["YX", "CYX", "TCYX"]), st.integers(1, 3), st.integers(20, 400))
def test_blocks_equal_the_whole(height: int, width: int, axes: str, workers: int, rows: int) -> None:
    frame = noisy((2,) * (len(axes) - 2) + (height, width), axes)
    out = Memory(frame.shape)
    memory = rows * width * (workers + 2) * scale.BYTES_PER_PIXEL
    scale.map_blocks(blur, frame, out, halo=2, memory=memory, workers=workers)
    assert (out.count == 1).all()
    # the border rule of a local step sees the block's border only where it is the frame's
    assert np.allclose(out.data, blur(frame).data, atol=1e-12)


def test_memory_bounds_the_blocks_and_ticks_count_them() -> None:
    frame = noisy((400, 300), "YX")
    out, seen = Memory(frame.shape), []
    scale.map_blocks(blur, frame, out, halo=2, memory=12 << 20, workers=2, tick=lambda i, n: seen.append((i, n)))
    assert out.largest * (2 + 1) * scale.BYTES_PER_PIXEL <= 12 << 20
    assert seen == [(i + 1, len(seen)) for i in range(len(seen))]
    assert len(seen) > 1


def traced(action: Callable[[], object]) -> int:
    """Peak of the memory that `action` allocates [bytes]."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", ["uint16", "float64"])
@pytest.mark.parametrize("std", [False, True])
@pytest.mark.parametrize("maps", [False, True])
def test_the_memory_stated_is_kept(maps: bool, std: bool, dtype: str) -> None:
    rng = np.random.default_rng(7)
    shape, memory = (2, 400, 900), 40 << 20
    noise = Noise(1.0 + 0.1 * rng.random(shape[1:]), 4.0 + rng.random(shape[1:]), 0.0, 1e-6) if maps else Noise(1.0, 4.0)
    frame = Frame(rng.poisson(90.0, shape).astype(dtype), "CYX", "adu", noise)

    def step(block: Frame) -> Frame:
        return restore.nonlocal_means(block, std=std)

    step(frame.crop(Box((0, 0, 0), (1, 40, 40))))
    block = frame.crop(Box((0, 0, 0), (1, 200, 900)))
    assert traced(lambda: step(block)) <= scale.BYTES_PER_PIXEL * 200 * 900
    out = Memory(shape)
    halo = restore.halo(frame)
    peak = traced(lambda: scale.map_blocks(step, frame, out, halo=halo, memory=memory, workers=2))
    assert (out.count == 1).all()
    assert 0.2 * memory < peak < memory


def test_blocks_of_a_mosaic_start_at_its_period() -> None:
    frame = noisy((500, 60), "YX", geometry=Mosaic(XTRANS, (2, 1)))
    tiles = [t for _, t in scale.bands(frame, 3, memory=4 << 20, workers=2)]
    assert len(tiles) > 2
    assert all(t.read.start[0] % 6 == 0 for t in tiles)


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(FrameError, match="give more memory"):
        scale.bands(noisy((4000, 3000), "YX"), 20, memory=1 << 20, workers=2)


def test_a_failing_step_stops_the_run() -> None:
    def fails(frame: Frame) -> Frame:
        raise FrameError("no")

    with pytest.raises(FrameError, match="no"):
        scale.map_blocks(fails, noisy((50, 50), "YX"), Memory((50, 50)), halo=1)


def test_lazy_data_are_read_once_per_block_plus_halo() -> None:
    class Counting:
        shape, dtype = (300, 100), np.dtype(float)
        read = 0

        def __getitem__(self, key):
            block = np.zeros([s.stop - s.start for s in key])
            Counting.read += block.size
            return block

    frame = Frame(Counting(), "YX", "adu", Noise(1.0, 1.0))
    scale.map_blocks(blur, frame, Memory((300, 100)), halo=2, memory=scale.BYTES_PER_PIXEL * 3 * 100 * 40, workers=2)
    assert 30000 <= Counting.read <= 30000 * 1.2
