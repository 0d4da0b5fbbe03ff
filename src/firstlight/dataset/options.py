"""What a run of `build` may be asked for: checked before a folder is made or a file is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from firstlight import intake, io
from firstlight.dataset.journal import owner
from firstlight.dataset.prepare import PROFILES
from firstlight.dataset.rows import Source
from firstlight.dataset.scan import images_below
from firstlight.dataset.split import RULES
from firstlight.errors import FrameError
from firstlight.frame import Frame, Unit
from firstlight.noise import Detector, Unmodelled

__all__ = ["STORES", "Choice", "check_apart", "check_choices", "check_known", "chosen", "noted"]

Choice = str | Mapping[str, str] | None
STORES = ("npy", "pack")


def check_known(profile: str, split: str, store: str, workers: int) -> None:
    """Refuse names that are none, and fewer than one worker."""
    for name, got, known in (
        ("profile", profile, PROFILES),
        ("split", split, tuple(RULES)),
        ("store", store, STORES),
    ):
        if got not in known:
            raise FrameError(f"tiles: unknown {name} {got!r}, expected one of {', '.join(known)}")
    if workers < 1:
        raise FrameError(f"tiles: {workers} workers, expected at least 1")


def check_apart(root: Path, out: Path) -> None:
    """Refuse an OUT that would put tiles among the images, or images among what is swept away."""
    images_below(root)
    if out.resolve() == root.resolve():
        raise FrameError(f"{out}: holds the images themselves, expected another folder for the tiles, such as {out}-tiles")
    if (home := owner(out, root)) is not None:
        raise FrameError(f"{root}: lies in {home}, a folder of the tile set's own; move the images, or choose another folder")


def check_choices(detector: Choice, unit: Choice, known: set[str]) -> None:
    """Refuse a name that no file can have, and a detector or unit that is none, before any file is read."""
    for option, choice in (("detector", detector), ("unit", unit)):
        if bad := sorted(set(choice) - known) if isinstance(choice, Mapping) else []:
            raise FrameError(f"tiles: {option} for {bad[0]!r}, expected a domain or a layout: {', '.join(sorted(known))}")
    for text in _texts(detector):
        Detector.from_dict({"gain": 1.0, "read_noise": 0.0, "offset": 0.0} | intake.read_detector(text))
    for text in _texts(unit):
        io.assume(Frame(np.zeros((1, 1), np.uint16), "YX", Unit.ADU, Unmodelled("no image")), unit=text)


def _texts(choice: Choice) -> list[str]:
    return list(choice.values()) if isinstance(choice, Mapping) else [] if choice is None else [choice]


def noted(choice: Choice) -> Any:
    """What stands for a choice in the journal: the text, with the hash of the detector file that it names."""
    if isinstance(choice, Mapping):
        return {k: noted(v) for k, v in choice.items()}
    return f"{choice} ({io.sha256(choice)[:12]})" if choice and Path(choice).is_file() else choice


def chosen(choice: Choice, source: Source) -> str | None:
    """The choice for a source: that of its layout, of its domain, or the one for all."""
    if isinstance(choice, Mapping):
        return choice.get(source.layout, choice.get(source.domain))
    return choice
