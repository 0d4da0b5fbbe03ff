import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.box import Box
from firstlight.errors import FrameError

boxes = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=2).map(
    lambda ab: Box(tuple(min(p) for p in ab), tuple(max(p) for p in ab))
)


def pixels(box: Box) -> set[tuple[int, int]]:
    return {(y, x) for y in range(box.start[0], box.stop[0]) for x in range(box.start[1], box.stop[1])}


@given(boxes, boxes)
def test_intersection_is_the_common_pixels(a: Box, b: Box) -> None:
    assert pixels(a.intersect(b)) == pixels(a) & pixels(b)
    assert a.intersect(b).size == len(pixels(a) & pixels(b))


@given(boxes, st.integers(0, 5))
def test_grow_then_shrink_and_shift_back(box: Box, n: int) -> None:
    assert box.grow(n).grow(-n) == box
    assert box.shift((n, -n)).shift((-n, n)) == box
    assert box.grow(n).contains(box)


@given(boxes, boxes)
def test_within_keeps_shape_and_contains_agrees_with_pixels(a: Box, b: Box) -> None:
    assert a.within(b).shape == a.shape
    if b.size:
        assert a.contains(b) == (pixels(b) <= pixels(a))


def test_refuses_reversed_unequal_and_negative() -> None:
    with pytest.raises(FrameError, match="before start"):
        Box((3,), (2,))
    with pytest.raises(FrameError, match="one of each"):
        Box((3, 1), (4,))
    with pytest.raises(FrameError, match="outside"):
        _ = Box((-1,), (2,)).slices
