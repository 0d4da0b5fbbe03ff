"""Pictures of linear light that demosaicking is learned from: read, cut, turned, recoloured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from firstlight.dataset import read_torture
from firstlight.errors import FirstlightError, FrameError, ReadError
from firstlight.simulate import linearise
from firstlight.train.augment import turned
from firstlight.train.batches import Plane

__all__ = ["Pool", "described", "drawn", "encoded", "light_of", "mixes", "pool", "recoloured"]

Array = NDArray[Any]
GREY = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
SHARE = 0.1  # mixed in, as document 4 says: nine tenths real
PICTURES = (".jpg", ".jpeg", ".png")


def encoded(linear: Array) -> Array:
    """sRGB values of linear light, the line through black for negatives and the curve above 1 (IEC 61966-2-1)."""
    x = np.asarray(linear)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)


def light_of(values: Tensor) -> Tensor:
    """Linear light of sRGB values; `encoded` backwards."""
    return torch.where(values <= 0.04045, values / 12.92, ((values.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


@dataclass(frozen=True, eq=False)
class Pool:
    """Pictures float16 (3, Y, X), sRGB values of linear light, and how likely each is drawn; names: where they come from."""

    pictures: Sequence[Array]
    chances: Array
    names: tuple[str, ...] = ()


def pool(data: Path, *, shrink: Sequence[int] = (1,), side: int = 96, held: bool | None = None) -> Pool:
    """The pictures of a folder or file that hold a patch of `side` px: .npy linear light (Y, X, 3), (N, Y, X, 3) or channels
    first, JPEG and PNG sRGB values, .npz of `firstlight torture`; each at the sizes `shrink`.

    held: None: all; True: every tenth file (of torture sets: picture; of one picture: its last rows), which False leaves out.
    They are drawn by the root of their area.
    Raises ReadError where there is none, or a file holds no picture.
    """
    files = sorted(p for p in data.rglob("*") if p.suffix.lower() in (".npy", ".npz", *PICTURES)) if data.is_dir() else [data]
    files = [p for p in files if p.is_file() and not p.name.startswith(".")]
    found, names = list[Array](), list[str]()
    for i, path in enumerate(files):
        each = len(files) == 1 or path.suffix == ".npz"
        if not each and not _chosen(i, len(files), held):
            continue
        ones = _linear(path)
        if each:
            ones = (
                _parted(ones[0], side, held)
                if len(ones) == 1
                else [p for k, p in enumerate(ones) if _chosen(k, len(ones), held)]
            )
        own = [p for one in ones for k in shrink if (p := _smaller(one, k)) is not None and min(p.shape[1:]) >= side]
        found += [encoded(p).astype(np.float16) for p in own]
        names += [path.name] if own else []
    if not found:
        part = "" if held is None else "held out " if held else "left "
        raise ReadError(f"{data}: no picture of {side} px or more is {part}there; give .npy, .npz, JPEG or PNG files, or more")
    roots = np.sqrt([p.shape[1] * p.shape[2] for p in found])
    return Pool(found, roots / roots.sum(), tuple(names))


def _chosen(i: int, n: int, held: bool | None) -> bool:
    """Whether the i-th of n is of those that are held out, or of the others: every tenth, of fewer the last."""
    return held is None or (i % 10 == min(9, n - 1)) == held


def _parted(light: Array, side: int, held: bool | None) -> list[Array]:
    """A single picture: its last tenth of rows, at least a patch's side, or those above."""
    cut = light.shape[1] - max(side, light.shape[1] // 10)
    return [light if held is None else light[:, max(cut, 0) :] if held else light[:, : max(cut, 0)]]


def _linear(path: Path) -> list[Array]:
    """Linear light (3, Y, X) float32, one or more of a file."""
    try:
        if path.suffix == ".npz":
            return [p.astype(np.float32) for p in read_torture(path)[0]]
        if path.suffix == ".npy":
            data = np.load(path, allow_pickle=False)
        else:
            from firstlight import io

            data = linearise(_display(io.read(path).data))
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, FirstlightError):
            raise
        raise ReadError(f"{path}: no whole array of numbers ({error}); write it again") from error
    if data.ndim not in (3, 4) or 3 not in (data.shape[-1], data.shape[-3]) or data.dtype.kind not in "fiu":
        raise ReadError(f"{path}: {data.dtype} of shape {data.shape}, expected colours (Y, X, 3), (3, Y, X) or patches of them")
    data = data if data.ndim == 4 else data[None]
    data = data if data.shape[1] == 3 else np.moveaxis(data, -1, 1)
    if not np.all(np.isfinite(data)):
        raise ReadError(f"{path}: holds numbers that are not finite; make it again")
    return [np.asarray(p, dtype=np.float32) for p in data]


def _display(codes: Any) -> Array:
    data = np.asarray(codes)
    return np.asarray(data / np.iinfo(data.dtype).max if data.dtype.kind == "u" else data)


def _smaller(light: Array, k: int) -> Array | None:
    from firstlight.dataset.mosaics import shrunk

    if k == 1:
        return light
    return None if min(light.shape[1:]) < k else np.ascontiguousarray(np.moveaxis(shrunk(light, k), -1, 0))


def drawn(pool: Pool, rng: np.random.Generator, side: int, recolor: float = 0.5) -> Array:
    """sRGB values (3, side, side) float32 of a picture of the pool, turned and flipped; the share `recolor` recoloured."""
    for _ in range(3):  # what is flat teaches little
        image = pool.pictures[rng.choice(len(pool.pictures), p=pool.chances)]
        y, x = (int(rng.integers(n - side + 1)) for n in image.shape[1:])
        part = image[:, y : y + side, x : x + side].astype(np.float32)
        if float(np.abs(np.diff(part[1], axis=1)).mean()) > rng.uniform(0, 0.015):
            break
    part = turned(Plane(part), int(rng.integers(8))).z
    return recoloured(part, rng) if rng.random() < recolor else part


def recoloured(values: Array, rng: np.random.Generator) -> Array:
    """sRGB values (3, Y, X) with another saturation (x 0.6 to 2.2) and other channel gains (0.6 to 1.3), within [0, 1]."""
    grey: Array = np.einsum("cyx,c->yx", values, GREY)
    part = grey + (values - grey) * np.float32(rng.uniform(0.6, 2.2))
    return np.asarray(np.clip(part * rng.uniform(0.6, 1.3, (3, 1, 1)).astype(np.float32), 0, 1))


def mixes(texts: Sequence[str], side: int) -> dict[str, tuple[Pool, float]]:
    """Pools to mix in, by path, of texts PATH:SHARE such as torture.npz:0.1, or PATH. Raises FrameError, ReadError."""
    found: dict[str, tuple[Pool, float]] = {}
    for text in texts:
        path, _, share = text.rpartition(":")
        try:
            part = float(share)
        except ValueError:
            path, part = text, SHARE
        if not path or not 0 < part < 1 or path in found:
            raise FrameError(
                f"train demosaic: --mix {text!r}, expected PATH or PATH:SHARE, once, with a share between 0 and 1: "
                "torture.npz:0.1"
            )
        if not Path(path).exists():
            raise ReadError(f"{path}: no such file or folder to mix in; --mix takes PATH or PATH:SHARE")
        found[path] = (pool(Path(path), side=side, held=False), part)
    return found


def described(path: Path) -> list[dict[str, Any]]:
    """What metas beside the pictures of a set say that a user must know: whether they are white-balanced."""
    found = []
    for one in sorted(path.glob("*_meta.json")) if path.is_dir() else []:
        try:
            found.append(json.loads(one.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ReadError(f"{one}: no whole description ({error}); make the set again") from error
    return found
