"""What a user asks of `develop`: formats, options, and which of them have no meaning together."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np

from firstlight.develop import hlg
from firstlight.errors import FrameError, WriteError
from firstlight.io.rendered import TARGETS
from firstlight.restore.demosaic import Method

__all__ = ["DNGS", "FORMATS", "Developing", "agree", "denoising", "format_of", "given", "multipliers", "nits", "suffixes"]

DNGS = ("dng", "cfa-dng")
FORMATS = (*TARGETS, *DNGS)
BY_SUFFIX = {".avif": "avif", ".jxl": "jxl", ".tif": "tiff", ".tiff": "tiff", ".jpg": "jpeg", ".jpeg": "jpeg", ".dng": "dng"}
NOT_OF: dict[str, tuple[str, ...]] = {  # options that have no meaning in a format
    "white": DNGS,
    "ev": DNGS,
    "quality": ("tiff", "jxl", *DNGS),
    "transfer": tuple(f for f in FORMATS if f != "tiff"),
}
RUNNING = ("jobs", "anew")  # options that change nothing in a picture
STOPS, GAIN, STRENGTH = 30, 1000.0, 100.0  # the most that --ev, --wb (or one over it) and --denoise may be: float32 holds more
DENOISING = ("auto", "net", "lmmse")


@dataclass(frozen=True)
class Developing:
    """Options of `develop`, as the CLI's flags; to None: by the output's name, else avif; white [nits]; ev [stops]."""

    to: str | None = None
    method: Method = "auto"
    model: str | None = None
    denoise: str = "auto"
    ev: float = 0.0
    wb: str | None = None
    white: float | None = None
    ensemble: bool = False
    keep_samples: bool = False
    detector: str | None = None
    quality: float | None = None
    transfer: Literal["srgb", "linear"] | None = None
    profile: Literal["physical", "documented"] = "physical"
    jobs: int = 1
    anew: bool = False


def format_of(out: Path, options: Developing, several: bool) -> str:
    """The format asked for, or that of the output's name. Raises WriteError where they contradict each other."""
    named = out.suffix.lower()
    if options.to is not None and options.to not in FORMATS:
        raise WriteError(f"{out}: no format {options.to!r}, expected one of {', '.join(FORMATS)}")
    if out.is_dir() or not named[1:].isalpha():
        return options.to or "avif"
    if several and named in BY_SUFFIX:
        raise WriteError(f"{out}: is named like one picture, expected a folder for several results")
    if several:
        return options.to or "avif"
    to = options.to or BY_SUFFIX.get(named)
    if to is None:
        raise WriteError(f"{out}: unknown format {named}; expected {', '.join(BY_SUFFIX)}, or a folder: make it first")
    if named not in suffixes(to):
        raise WriteError(f"{out}: a picture of format {to} is named {' or '.join(suffixes(to))}; rename it, or change --to")
    return to


def suffixes(to: str) -> tuple[str, ...]:
    """Of a format, the usual one first."""
    return (".dng",) if to in DNGS else TARGETS[to].suffixes


def agree(options: Developing) -> None:
    """Raises FrameError for options of no meaning, alone or together, before any work is done."""
    to, asked = options.to or "avif", given(options)
    for name, formats in NOT_OF.items():
        if name in asked and to in formats:
            fits = ", ".join(f for f in FORMATS if f not in formats)
            raise FrameError(f"develop: --{name} is for {fits}, it has no meaning in {to}; leave it out")
    if options.jobs < 1:
        raise FrameError(f"develop: --jobs {options.jobs}, expected 1 or more processes")
    if not abs(options.ev) <= STOPS:
        raise FrameError(f"develop: --ev {options.ev:g}, expected a number of stops from -{STOPS} to {STOPS}")
    if options.quality is not None and not 0 <= options.quality <= 100:
        raise FrameError(f"develop: --quality {options.quality:g}, expected 0 to 100")
    hlg.scene(np.zeros(1), nits(options))
    multipliers(options.wb)
    strength = denoising(options.denoise)
    if options.model is not None and options.method not in ("auto", "net"):
        raise FrameError(f"develop: --model is of --method net, not of {options.method}; leave out one of them")
    if options.method not in DENOISING and not isinstance(strength, str) and strength > 0:
        raise FrameError(f"develop: --method {options.method} takes no noise off; leave --denoise out, or take net or lmmse")
    if to == "cfa-dng" and (options.method not in DENOISING or strength in ("off", 0.0) or options.keep_samples):
        what = f"--method {options.method}" if options.method not in DENOISING else "--denoise off"
        what = "--keep-samples" if options.keep_samples else what
        raise FrameError(f"develop: cfa-dng is the denoised mosaic, with {what} it would be the raw file's own; leave that out")
    if options.profile == "documented":
        _published(options, asked)


def _published(options: Developing, asked: set[str]) -> None:
    if options.model is None:
        raise FrameError(
            "develop: --profile documented needs its network: --model FILE, of `train demosaic --profile documented`"
        )
    other = sorted(asked - {"profile", "model", "to", "quality"} - ({"method"} if options.method == "net" else set()))
    if other or options.to != "avif":
        what = f"--to {options.to}" if options.to != "avif" else f"--{other[0].replace('_', '-')}"
        raise FrameError(f"develop: --profile documented is the published way to AVIF, {what} is not of it; leave it out")


def given(options: Developing) -> set[str]:
    """Names of the options that are not as usual and change a picture."""
    return {f.name for f in fields(Developing) if f.name not in RUNNING and getattr(options, f.name) != f.default}


def nits(options: Developing) -> float:
    """Of diffuse white."""
    return hlg.WHITE if options.white is None else options.white


def denoising(text: str) -> float | Literal["auto", "off"]:
    """What --denoise says. Raises FrameError."""
    if text in ("auto", "off"):
        return "auto" if text == "auto" else "off"
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found <= STRENGTH:
        raise FrameError(f"develop: --denoise {text}, expected auto, off, or a factor from 0 to {STRENGTH:g}")
    return found


def multipliers(text: str | None) -> tuple[float, ...] | None:
    """Of R, G and B, as --wb says; None: the camera's. Raises FrameError."""
    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != 3 or not all(1 / GAIN <= v <= GAIN for v in found):
        raise FrameError(
            f"develop: --wb {text}, expected three positive multipliers of R, G and B up to {GAIN:g}, such as 2.1,1,1.6"
        )
    return found
