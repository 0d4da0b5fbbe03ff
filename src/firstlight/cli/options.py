"""Kinds of options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

__all__ = ["Files", "Inputs", "Json", "MaybeOut", "Out", "Switch"]

Files = Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")]
Inputs = Annotated[list[str] | None, Parameter(name="--input", consume_multiple=True, negative="")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON to standard output, and nothing else there.")]
Switch = Annotated[bool, Parameter(negative="")]
Out = Annotated[Path, Parameter(name=["--out", "-o"])]
MaybeOut = Annotated[Path | None, Parameter(name=["--out", "-o"])]
