"""Index rectangles: half-open boxes of pixels in any number of dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from firstlight.errors import FrameError

__all__ = ["Box"]


@dataclass(frozen=True)
class Box:
    """A half-open index rectangle, start <= index < stop, one entry per axis [px].

    Raises FrameError where start and stop differ in rank or a stop lies before its start.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", tuple(int(i) for i in self.start))
        object.__setattr__(self, "stop", tuple(int(i) for i in self.stop))
        if len(self.start) != len(self.stop):
            raise FrameError(f"box: start has {len(self.start)} axes, stop has {len(self.stop)}; give one of each per axis")
        if any(b < a for a, b in zip(self.start, self.stop, strict=True)):
            raise FrameError(f"box: stop {self.stop} lies before start {self.start}; swap them")

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Box:
        """The box of a whole array of this shape."""
        return cls((0,) * len(shape), tuple(shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths along each axis [px]."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.start)

    @property
    def size(self) -> int:
        """Number of pixels."""
        n = 1
        for k in self.shape:
            n *= k
        return n

    @property
    def slices(self) -> tuple[slice, ...]:
        """Slices for indexing an array; the box must not start before 0."""
        if any(a < 0 for a in self.start):
            raise FrameError(f"box {self.start}..{self.stop} starts outside the array; intersect it with the array's box first")
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def grow(self, by: int | Sequence[int]) -> Box:
        """Grown by `by` pixels on every side (an int, or one per axis); may leave the array."""
        k = (by,) * self.ndim if isinstance(by, int) else tuple(by)
        return Box(
            tuple(a - n for a, n in zip(self.start, k, strict=True)), tuple(b + n for b, n in zip(self.stop, k, strict=True))
        )

    def shift(self, by: Sequence[int]) -> Box:
        """Moved by `by` pixels, one per axis."""
        return Box(
            tuple(a + n for a, n in zip(self.start, by, strict=True)), tuple(b + n for b, n in zip(self.stop, by, strict=True))
        )

    def intersect(self, other: Box) -> Box:
        """The common part; of zero length along axes where the two do not meet."""
        start = tuple(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        stop = tuple(min(a, b) for a, b in zip(self.stop, other.stop, strict=True))
        return Box(start, tuple(max(a, b) for a, b in zip(start, stop, strict=True)))

    def within(self, other: Box) -> Box:
        """The same box in the coordinates of `other`, whose start becomes the origin."""
        return self.shift(tuple(-a for a in other.start))

    def contains(self, other: Box) -> bool:
        """True where `other` lies wholly inside."""
        return all(a <= b for a, b in zip(self.start, other.start, strict=True)) and all(
            a >= b for a, b in zip(self.stop, other.stop, strict=True)
        )
