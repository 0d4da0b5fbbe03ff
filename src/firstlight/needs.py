"""What a step needs to run on part of a tomography scan: rows beyond its own, memory, and whether angles must be whole.

    @needs(halo=1, copies=3)
    def remove_zingers(frame: Frame, *, ...) -> Frame: ...

A scan (A, Y, X) is processed in sections of detector rows Y, each with all its angles. A step that works on each sinogram by
itself has halo 0; one that works on each projection says how many rows beyond its own it looks at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Needs", "needs", "needs_of"]

Halo = int | Callable[..., int]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Needs:
    """halo: rows [px] beyond a section's own on each side, or a function (frame, **params) of them; copies: peak memory
    in units of the section as float32, the section itself and the result included.
    """

    halo: Halo = 0
    copies: float = 3.0

    def rows(self, frame: Any, params: dict[str, Any]) -> int:
        """Rows of halo for this frame and these parameters."""
        return self.halo if isinstance(self.halo, int) else int(self.halo(frame, **params))


def needs(*, halo: Halo = 0, copies: float = 3.0) -> Callable[[F], F]:
    """Declare what a step needs; see Needs."""

    def mark(step: F) -> F:
        step.needs = Needs(halo, copies)  # type: ignore[attr-defined]
        return step

    return mark


def needs_of(step: Callable[..., Any]) -> Needs | None:
    """What a step declares, None where it declares nothing: then it sees the whole frame or nothing."""
    return getattr(step, "needs", None)
