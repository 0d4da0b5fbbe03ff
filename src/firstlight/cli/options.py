"""Kinds of options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from firstlight.errors import FrameError

__all__ = ["Files", "Inputs", "Json", "MaybeOut", "Out", "Switch", "size"]

Files = Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")]
Inputs = Annotated[list[str] | None, Parameter(name="--input", consume_multiple=True, negative="")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON to standard output, and nothing else there.")]
Switch = Annotated[bool, Parameter(negative="")]
Out = Annotated[Path, Parameter(name=["--out", "-o"])]
MaybeOut = Annotated[Path | None, Parameter(name=["--out", "-o"])]


def size(text: str) -> int:
    """Bytes of a text such as 500M or 4G."""
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    shift = units.get(number[-1:], 0)
    try:
        found = int(float(number[:-1] if shift else number) * 2**shift)
    except ValueError:
        found = 0
    if found < 1:
        raise FrameError(f"memory {text!r}: expected a size such as 500M or 4G")
    return found
