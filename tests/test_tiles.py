import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from firstlight.box import Box
from firstlight.errors import FrameError
from firstlight.tiles import blend, covering, cut, grid, plan, strides

plans = st.tuples(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),  # shape
    st.integers(1, 6),  # tile in multiples
    st.integers(0, 8),  # halo
    st.sampled_from([1, 2, 4, 6]),  # multiple
    st.sampled_from([1, 2, 3, 6]),  # phase
)


def make(case):
    shape, k, halo, multiple, phase = case
    tile = k * multiple
    assume(tile - 2 * halo >= phase or tile >= max(shape))
    return shape, plan(shape, tile, halo, multiple, phase), halo, multiple, phase


@given(plans)
def test_cores_partition_and_halos_are_honest(case) -> None:
    shape, tiles, halo, multiple, phase = make(case)
    count = np.zeros(shape, int)
    whole = Box.whole(shape)
    for t in tiles:
        count[t.core.slices] += 1
        assert t.read.contains(t.core)
        assert t.read.contains(t.core.grow(halo).intersect(whole))
        assert all(n % multiple == 0 for n in t.read.shape)
        assert all(s % phase == 0 for s in t.read.start)
    assert (count == 1).all()


@settings(max_examples=150)
@given(plans, st.booleans(), st.sampled_from([np.float32, np.float64]), st.integers(0, 2))
def test_blending_an_identity_is_exact(case, taper: bool, dtype: type, channels: int) -> None:
    shape, tiles, *_ = make(case)
    rng = np.random.default_rng(1)
    image = (rng.standard_normal((*[3] * channels, *shape)) * 10 ** rng.uniform(-8, 8, shape)).astype(dtype)
    out = np.full_like(image, np.nan)
    out[...] = 7
    blend(((t, cut(image, t)) for t in tiles), out, taper=taper)
    assert np.array_equal(out, image)


def test_tapered_blend_of_constants_stays_between_and_has_no_seam_at_the_border() -> None:
    tiles = plan((40, 50), 16, 4)
    blocks = [(t, np.full(t.read.shape, float(t.number % 2))) for t in tiles]
    out = blend(blocks, np.zeros((40, 50)), taper=True)
    assert out.min() >= 0
    assert out.max() <= 1
    assert 0.2 < out.mean() < 0.8


def test_tapered_blend_of_tiles_that_differ_is_the_rounded_mean_in_any_dtype() -> None:
    tiles = plan((40,), 16, 4)
    blocks = [np.full(t.read.shape, 200.0 if t.number % 2 else 3.0) for t in tiles]
    exact = blend(zip(tiles, blocks, strict=True), np.zeros(40), taper=True)
    for dtype in (np.uint8, np.int16, np.uint32, np.float16):
        out = blend([(t, b.astype(dtype)) for t, b in zip(tiles, blocks, strict=True)], np.zeros(40, dtype), taper=True)
        assert out.dtype == dtype
        assert np.abs(out - exact).max() <= (0.5 + 1e-4 if np.dtype(dtype).kind in "iu" else 0.1)


def test_tapered_blend_keeps_what_is_not_finite() -> None:
    image = np.ones((20, 20), np.float32)
    image[5:9], image[3, 3], image[:, 12] = np.inf, np.nan, -np.inf
    for halo in (0, 2):
        out = np.full_like(image, np.nan)
        blend(((t, cut(image, t)) for t in plan((20, 20), 8, halo)), out, taper=True)
        assert np.array_equal(out, image, equal_nan=True)


def test_tapered_blend_weights_do_not_depend_on_order() -> None:
    rng = np.random.default_rng(3)
    tiles = plan((40, 50), 16, 4)
    blocks = [(t, rng.standard_normal(t.read.shape)) for t in tiles]
    one = blend(blocks, np.zeros((40, 50)), taper=True)
    two = blend(blocks[::-1], np.zeros((40, 50)), taper=True)
    assert np.allclose(one, two, atol=1e-5)


@pytest.mark.parametrize(
    ("length", "n", "starts"),
    [
        (1424, 6, [0, 233, 466, 699, 932, 1168]),
        (2128, 9, [0, 234, 468, 702, 936, 1170, 1404, 1638, 1872]),
        (1008, 4, [0, 250, 500, 752]),
        (1508, 6, [0, 250, 500, 750, 1000, 1252]),
        (1004, 4, [0, 249, 498, 748]),
        (502, 4, [0, 82, 164, 246]),
    ],
)
def test_documented_grids(length: int, n: int, starts: list[int]) -> None:
    assert [t.read.start[0] for t in grid((length, 256), n, 1, 256)] == starts


def test_documented_astronomy_grids() -> None:
    tiles = grid((2116, 2110), 9, 9, 256)
    ys, xs = sorted({t.read.start[0] for t in tiles}), sorted({t.read.start[1] for t in tiles})
    assert (ys[1], ys[-1], xs[1], xs[-1], len(tiles)) == (232, 1860, 231, 1854, 81)
    with pytest.raises(FrameError, match="241 px"):
        grid((4232, 4220), 9, 9, 256)
    sparse = grid((4232, 4220), 9, 9, 256, gaps=True)
    assert len(sparse) == 81
    assert round(100 * 81 * 256**2 / (4232 * 4220)) == 30


@pytest.mark.parametrize(
    ("shape", "starts"),
    [
        ((1024, 1280), ([0, 256, 512], [0, 256, 512, 768])),
        ((1000, 1500), ([0, 256, 488], [0, 256, 512, 768, 988])),
        ((600, 800), ([0, 88], [0, 256, 288])),
        ((2048, 2048), ([0, 256, 512, 768, 1024, 1280, 1536],) * 2),
    ],
)
def test_strides_of_512_by_256(shape, starts) -> None:
    assert tuple(strides(n, 512, 256) for n in shape) == tuple(starts)


def test_cfa_plan_of_a_fuji_frame() -> None:
    tiles = plan((4032, 6032), 288, 24, multiple=48, phase=6)
    assert len(tiles) == 17 * 25
    assert max(t.read.stop[1] for t in tiles) == 6036
    assert all(s % 6 == 0 for t in tiles for s in t.read.start)


def test_three_dimensional_patches() -> None:
    assert len(plan((2048,) * 3, 128, 16)) == 9261


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plan((100, 100), 10, 5), "no room"),
        (lambda: plan((100, 100), 10, 0, multiple=4), "try 12"),
        (lambda: plan((100, 100), (10, 10, 10)), "expected 2 numbers"),
        (lambda: strides(100, 200, 10), "larger"),
        (lambda: grid((600, 600), 1, 1, 256), "gaps"),
    ],
)
def test_refusals_say_what_to_do(call, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        call()


def test_cut_pads_beyond_the_far_border_only() -> None:
    image = np.arange(35.0).reshape(5, 7)
    (tile,) = plan((5, 7), 8, multiple=8)
    block = cut(image, tile)
    assert block.shape == (8, 8)
    assert np.array_equal(block[:5, :7], image)
    assert (block[5:, 0] == image[-1, 0]).all()


@given(st.integers(1, 40), st.integers(0, 400))
@settings(max_examples=200, deadline=None)
def test_the_number_that_a_refused_grid_names_covers_and_is_the_least(tile: int, more: int) -> None:
    length = tile + more
    n = covering(length, tile)
    seen = np.zeros((length, tile), dtype=bool)
    for one in grid((length, tile), n, 1, tile):
        seen[one.read.slices] = True
    assert seen.all()
    for fewer in range(1, n):
        with pytest.raises(FrameError, match=f"; use {n} tiles"):
            grid((length, tile), fewer, 1, tile)


def test_a_rounded_stride_can_need_more_than_the_quotient() -> None:
    with pytest.raises(FrameError, match=r"; use 6 tiles"):  # 5 x 4 px would span 20 px, but in strides of 3 px
        grid((19, 4), 5, 1, 4)
