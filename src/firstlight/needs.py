"""What a step needs to run on part of a tomography scan: rows beyond its own, memory, a sample of the whole.

    @needs(halo=1, copies=3)
    def remove_zingers(frame: Frame, *, ...) -> Frame: ...

A scan (A, Y, X) is processed in sections of detector rows Y, each with all its angles. A step that works on each sinogram by
itself has halo 0; one that works on each projection says how many rows beyond its own it looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, TypeVar

__all__ = ["Needs", "needs", "needs_of"]

Number = float | Callable[..., float]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Needs:
    """What a step declares; each number may be a function (frame, **params) of it, those of memory also of `section_rows`.

    halo: rows [px] beyond a section's own on each side. copies: peak memory in units of the section as float32, the section
    itself, its flags and the result included. fixed: bytes of tables and workspaces of one thread, whatever the section; they
    may stay. keeps: copies of maps that the result carries on beside its data (the noise of each pixel). sample: the step only
    changes the geometry, and finds it from so many rows of the whole scan: it runs once, before the sections; 0: in each.
    """

    halo: Number = 0
    copies: Number = 3.0
    fixed: Number = 0
    sample: int = 0
    keeps: Number = 0

    def rows(self, frame: Any, params: Mapping[str, Any]) -> int:
        """Rows of halo for this frame and these parameters."""
        return int(_number(self.halo, frame, params))

    def memory(self, frame: Any, params: Mapping[str, Any], section: float) -> float:
        """Bytes for a section of `section` bytes as float32."""
        rows = {"section_rows": _rows_of(frame, section)}
        return _number(self.copies, frame, {**params, **rows}) * section + self.workspace(frame, params, section)

    def workspace(self, frame: Any, params: Mapping[str, Any], section: float) -> float:
        """Bytes that do not grow with the section, but for a batch of slices."""
        return _number(self.fixed, frame, {**params, "section_rows": _rows_of(frame, section)})

    def kept(self, frame: Any, params: Mapping[str, Any]) -> float:
        """Copies that stay beside the result's data."""
        return _number(self.keeps, frame, params)


def _rows_of(frame: Any, section: float) -> int:
    rows = section / (4 * frame.shape[0] * frame.shape[-1])
    return max(1, ceil(float(rows)))


def _number(value: Number, frame: Any, params: Mapping[str, Any]) -> float:
    return value(frame, **params) if callable(value) else value


def needs(*, halo: Number = 0, copies: Number = 3.0, fixed: Number = 0, sample: int = 0, keeps: Number = 0) -> Callable[[F], F]:
    """Declare what a step needs; see Needs."""

    def mark(step: F) -> F:
        step.needs = Needs(halo, copies, fixed, sample, keeps)  # type: ignore[attr-defined]
        return step

    return mark


def needs_of(step: Callable[..., Any]) -> Needs | None:
    """What a step declares, None where it declares nothing: then it must see the whole frame."""
    return getattr(step, "needs", None)
