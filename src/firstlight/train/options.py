"""What a training is asked for, and what no method, data or machine can do of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from firstlight.errors import FrameError

__all__ = ["Learning", "Options", "changed", "check", "check_device", "check_patch", "check_seed"]


@dataclass(frozen=True)
class Options:
    """Options of a training, as the CLI's flags; net: "lean" or "seed"; start: a model to go on from; width: of the lean
    network's first level, None: by how much there is to learn from."""

    net: str = "lean"
    width: int | None = None
    start: Path | None = None
    budget: str = "60s"
    batch: int = 8
    patch: int = 64
    rate: float = 2e-3
    alpha: float = 1.0
    share: float = 0.01
    hole: int | None = None
    prefilter: str = "mean"
    colour: bool = False
    patience: int | None = None
    min_delta: float = 0.0
    validations: int = 10
    seed: int = 0
    device: str = "cpu"
    half: bool | None = None
    detector: str | None = None
    unit: str | None = None
    ext: str | None = None
    assume_white: bool = False
    widen: bool = False
    resume: bool = False
    log: Path | None = None
    preview: Path | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Learning:
    """Options of a demosaicker's training, as the CLI's flags; net: "packed" (ours) or "unet" (document 4's); width: channels
    of the first level, None: 64; mix: PATH:SHARE of what is mixed in."""

    net: str = "packed"
    cfa: str = "xtrans"
    width: int | None = None
    depth: int = 8
    start: Path | None = None
    mix: tuple[str, ...] = ()
    profile: str = "physical"
    shrink: tuple[int, ...] = (1,)
    noisy: float = 0.5
    budget: str = "60s"
    batch: int = 12
    patch: int = 96
    rate: float = 6e-4
    patience: int | None = None
    min_delta: float = 0.0
    validations: int = 10
    seed: int = 0
    device: str = "cpu"
    half: bool | None = None
    resume: bool = False
    log: Path | None = None
    preview: Path | None = None
    licence: str | None = None


# options that bear on some methods alone
OF: Mapping[str, tuple[str, ...]] = {
    "alpha": ("r2r",),
    "share": ("n2v", "n2v2"),
    "hole": ("n2v", "n2v2", "masked-l2"),
    "widen": ("n2v", "n2v2"),
    "assume_white": ("n2v", "n2v2", "neighbour", "r2r"),
    "colour": ("n2v", "n2v2", "neighbour", "r2r", "masked-l2"),
}
FILES = ("colour", "detector", "unit", "ext")  # options of files, which the tiles of a set have answered already
NEW = ("net", "width", "prefilter")  # options of a new network, which a model to go on from has answered


def changed(options: Any) -> list[str]:
    """The flags that differ from their defaults and bear on the weights, as text for the card."""
    found = []
    for f in fields(options):
        value = getattr(options, f.name)
        if value == f.default or f.name in ("log", "preview", "resume"):
            continue
        flag = f"--{f.name.replace('_', '-')}"
        if isinstance(value, tuple):  # paths of --mix are named, not placed
            found += [part for v in value for part in (flag, Path(str(v)).name)]
            continue
        text = value.name if isinstance(value, Path) else str(value)
        found += [flag if value else flag.replace("--", "--no-")] if isinstance(value, bool) else [flag, text]
    return found


def check(method: str, options: Options, is_set: bool) -> None:
    """Raises FrameError for options that the method, a tile set or a model to go on from leaves no use for, for numbers that no
    training can use, and for a device that is not there."""
    given = [f.name for f in fields(Options) if getattr(options, f.name) != f.default]
    for name in given:
        flag = f"--{name.replace('_', '-')}"
        if method not in OF.get(name, (method,)):
            raise FrameError(f"train {method}: {flag} is of {', '.join(OF[name])} alone; leave it out, or take one of them")
        if is_set and name in FILES:
            raise FrameError(f"train: {flag} is for files; the tiles of a set hold the answer, leave it out")
        if options.start is not None and name in NEW:
            raise FrameError(f"train: {flag} is for a new network, but --start names one to go on from; leave one of them out")
        if options.net == "seed" and name in NEW[1:]:
            raise FrameError(f"train: the network 'seed' takes no {flag}; leave it out, or take --net lean")
    _numbers(options)
    check_seed(options.seed)
    check_device(options.device)


def check_patch(patch: int, multiple: int) -> None:
    """Raises FrameError for a patch that is no multiple of the network's."""
    if patch % multiple:
        raise FrameError(f"train: patch {patch} px, expected a multiple of the network's {multiple}")


def _numbers(options: Options) -> None:
    for name, least in (("rate", 0.0), ("alpha", 0.0), ("min_delta", -1e-300)):
        if not least < getattr(options, name) < float("inf"):
            raise FrameError(f"train: {name} {getattr(options, name):g}, expected a positive number")
    for name in ("validations", "patience", "width"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise FrameError(f"train: {name} {value}, expected 1 or more")


def check_seed(seed: int) -> None:
    """Raises FrameError for a seed that the generators do not take."""
    if not 0 <= seed < 1 << 32:
        raise FrameError(f"train: seed {seed}, expected 0 to {(1 << 32) - 1}")


def check_device(device: str) -> None:
    """Raises FrameError for a device that is not there."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise FrameError(f"train: device {device!r} is not there ({str(error).splitlines()[0]}); take cpu") from error
