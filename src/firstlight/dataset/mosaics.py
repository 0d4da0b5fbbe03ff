"""Linear colour pictures from raw files, to learn demosaicking from: black level once, white balance first, no clipping.

A picture OUT/NAME.npy is float32 (Y, X, 3), R G B, 0 = black, 1 = the lowest channel's white level before white balance; with
patches (N, P, P, 3). OUT/NAME_meta.json, written last, says where it comes from. Four-fold shrinking removes what a
demosaicker invents, and three quarters of the noise.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from firstlight import calibrate, io
from firstlight.atomic import replacing, write_text
from firstlight.dataset.remote import Item, at_hand, listed
from firstlight.errors import FirstlightError, FrameError, ReadError, WriteError
from firstlight.frame import Frame
from firstlight.geometry import Mosaic
from firstlight.noise import Noise
from firstlight.restore import demosaic

__all__ = ["Making", "build_mosaics", "linear", "picture", "shrunk", "unbalanced"]

Array = NDArray[Any]
Tick = Callable[[int, int, str], None]
SETTINGS, KEPT = "mosaics.json", ".fetched"
DOCUMENTED = (
    "profile documented: LibRaw's teacher without white balance, as published; it costs a demosaicker 4 to 5 dB, and what "
    "LibRaw runs for X-Trans is Markesteijn, whatever else is asked (DHT). Use profile physical to learn from"
)


@dataclass(frozen=True)
class Making:
    """How pictures are made. method: "average", demosaicked by linear MMSE, then averaged over shrink x shrink px;
    "superpixel", means of each colour's samples there. patches: side [px], None: whole pictures. full_size: the raw files
    themselves are kept, and jpeg: the camera's JPEG with each."""

    shrink: int = 4
    method: Literal["average", "superpixel"] = "average"
    profile: Literal["physical", "documented"] = "physical"
    patches: int | None = None
    full_size: bool = False
    jpeg: bool = False

    def __post_init__(self) -> None:
        if self.shrink < 1 or (self.patches is not None and self.patches < 8):
            raise FrameError(
                f"mosaic-dataset: shrink {self.shrink}, patches {self.patches} px; expected 1 or more, and 8 or more"
            )
        if self.full_size and self.patches is not None:
            raise FrameError("mosaic-dataset: --full-size keeps the raw files whole; leave --patches out")
        if self.profile == "documented" and self.method == "superpixel":
            raise FrameError("mosaic-dataset: profile documented averages what LibRaw demosaicks; leave the method out")


PHYSICAL = Making()


def build_mosaics(
    sources: Sequence[str], out: Path, making: Making = PHYSICAL, tick: Tick | None = None
) -> list[dict[str, Any]]:
    """Write the pictures of raw files, folders of them or HOST:PATH (by scp) into `out`; a row a file, with "error" where one
    cannot be used. Run again, it goes on where it stopped. Raises ReadError, WriteError where nothing can be done at all.
    """
    if making.profile == "documented" and not making.full_size:
        warnings.warn(DOCUMENTED, UserWarning, stacklevel=2)
    if out.exists() and not out.is_dir():
        raise WriteError(f"{out}: is a file, expected a folder for the pictures")
    out.mkdir(parents=True, exist_ok=True)
    _same_settings(out, making)
    items, rows = listed(sources, out / KEPT), list[dict[str, Any]]()
    for i, item in enumerate(items):
        if tick:
            tick(i, len(items), item.source)
        try:
            rows.append(_row(item, out, _finished(item, out) or _made(item, out, making)))
        except WriteError:
            raise
        except FirstlightError as error:
            text = " ".join(str(error).split())
            rows.append({"input": item.source, "error": text if item.source in text else f"{item.source}: {text}"})
    shutil.rmtree(out / KEPT, ignore_errors=True)
    return rows


def linear(frame: Frame) -> Frame:
    """A raw mosaic (Y, X) [ADU] as light, float32: black level off once, over the lowest channel's white, balanced (green 1).

    Negatives and values above 1 stay. Noise as far as the file states it. Raises FrameError for another frame, or where black
    level, white level or multipliers are unknown.
    """
    return calibrate.white_balance(unbalanced(frame))


def unbalanced(frame: Frame) -> Frame:
    """`linear` before white balance: what models of profile documented learned from. Raises FrameError as it does."""
    if not isinstance(frame.geometry, Mosaic) or frame.axes != "YX":
        raise FrameError(f"mosaic-dataset: axes {frame.axes!r} without a mosaic of colours; expected a raw file of one image")
    if frame.observation.saturation is None:
        raise FrameError("mosaic-dataset: the file states no white level; expected a raw file that does")
    flat = calibrate.subtract_offset(frame)
    span = float(np.min(np.asarray(flat.observation.saturation)))
    noise = flat.noise.scaled(1 / span) if isinstance(flat.noise, Noise) else flat.noise
    seen = flat.observation
    level = np.asarray(seen.saturation)[()] / span
    return flat.then(
        "dataset.normalize",
        {"white": span},
        data=(np.asarray(flat.data) / span).astype(np.float32),
        noise=noise,
        observation=replace(seen, saturation=level if np.ndim(level) else float(level)),
    )


def picture(frame: Frame, making: Making = PHYSICAL) -> Array:
    """The linear colours (Y, X, 3) float32 of a raw mosaic, shrunk."""
    light = linear(frame)
    if making.method == "superpixel":
        return np.ascontiguousarray(np.moveaxis(calibrate.superpixels(light, factor=making.shrink).data, 0, -1))
    still = light.replace(noise=Noise(0.0, 0.0))  # truth is interpolated, not denoised, and nowhere clipped by a root
    return shrunk(demosaic(still, method="lmmse").data, making.shrink)


def shrunk(colors: Array, k: int) -> Array:
    """Colours (3, Y, X) averaged over k x k px, what is left at the far border cut off: (Y / k, X / k, 3) float32."""
    rows, cols = (n // k for n in colors.shape[1:])
    if not rows or not cols:
        raise FrameError(
            f"mosaic-dataset: {colors.shape[2]} x {colors.shape[1]} px cannot shrink by {k}; take a smaller factor"
        )
    cells = colors[:, : rows * k, : cols * k].reshape(3, rows, k, cols, k)
    return np.ascontiguousarray(np.moveaxis(cells.mean(axis=(2, 4), dtype=np.float32), 0, -1))


def _teacher(path: Path, frame: Frame, shrink: int) -> Array:
    """Document 4's target: LibRaw's colours without white balance, the black level subtracted once, by us, without clipping."""
    import rawpy

    black, white = (float(np.min(np.asarray(v))) for v in (frame.observation.offset, frame.observation.saturation))
    try:
        with rawpy.imread(str(path)) as raw:
            found = raw.postprocess(
                demosaic_algorithm=rawpy.DemosaicAlgorithm.DHT,
                gamma=(1, 1),
                user_wb=[1.0, 1.0, 1.0, 1.0],
                output_color=rawpy.ColorSpace.raw,
                no_auto_bright=True,
                no_auto_scale=True,
                user_black=0,
                user_flip=0,
                output_bps=16,
            )
    except rawpy.LibRawError as error:
        raise ReadError(f"{path}: LibRaw cannot demosaic it ({error}): damaged, or X-Trans of under 512 px a side") from error
    return (shrunk(np.moveaxis(found, -1, 0), shrink) - np.float32(black)) / np.float32(white - black)


def _made(item: Item, out: Path, making: Making) -> dict[str, Any]:
    with at_hand(item, out / KEPT) as path:
        frame = io.read(path)
        meta = _meta(item, frame, making)
        if making.jpeg:
            meta["jpeg"] = _jpeg(path, out, item.name)
        if making.full_size:
            meta["raw"] = _copied(path, out / f"{item.name}{path.suffix}")
        else:
            documented = making.profile == "documented"
            meta |= _written(_teacher(path, frame, making.shrink) if documented else picture(frame, making), out, item, making)
    write_text(out / f"{item.name}_meta.json", json.dumps(meta, indent=1, allow_nan=False) + "\n")
    return meta


def _written(data: Array, out: Path, item: Item, making: Making) -> dict[str, Any]:
    size = list(data.shape[:2])
    if making.patches is not None:
        data = _patches(data, making.patches, item.source)
    path = out / f"{item.name}.npy"
    with replacing(path) as temp:
        np.save(temp, data)
    span = [float(data.min()), float(data.max())]
    return {"file": path.name, "axes": "NYXC"[4 - data.ndim :], "shape": list(data.shape), "size": size, "value_range": span}


def _patches(data: Array, side: int, source: str) -> Array:
    rows, cols = (n // side for n in data.shape[:2])
    if not rows * cols:
        raise FrameError(f"{source}: {data.shape[0]} x {data.shape[1]} px hold no patch of {side} px; take smaller ones")
    cells = data[: rows * side, : cols * side].reshape(rows, side, cols, side, 3).swapaxes(1, 2)
    return np.ascontiguousarray(cells.reshape(rows * cols, side, side, 3))


def _meta(item: Item, frame: Frame, making: Making) -> dict[str, Any]:
    from firstlight import __version__

    seen, mosaic = frame.observation, frame.geometry
    if not isinstance(mosaic, Mosaic) or frame.axes != "YX":
        raise FrameError(f"{item.source}: no mosaic of colours (axes {frame.axes!r}); expected a raw file of one image")
    return {
        "source": item.source,
        "black_level": np.asarray(seen.offset).tolist(),
        "white_level": np.asarray(seen.saturation).tolist(),
        "camera_wb": list(seen.white_balance or ()),
        "balanced": None if making.full_size else making.profile == "physical",
        "original_size": list(frame.shape),
        "pattern": [list(row) for row in mosaic.pattern],
        "phase": list(mosaic.phase),
        "colors": mosaic.colors,
        "camera": seen.instrument,
        "setting": seen.setting,
        "orientation": seen.orientation,
        "saturated": float(np.mean(np.asarray(frame.data) >= np.min(np.asarray(seen.saturation)))),
        **asdict(making),
        "firstlight": __version__,
    }


def _jpeg(raw: Path, out: Path, name: str) -> str | None:
    """The camera's JPEG beside the raw file, else the one inside it."""
    beside = [p for ending in (".JPG", ".jpg", ".JPEG", ".jpeg") if (p := raw.with_suffix(ending)).is_file()]
    if beside:
        return _copied(beside[0], out / f"{name}.jpg")
    import rawpy

    try:
        with rawpy.imread(str(raw)) as file:
            thumb = file.extract_thumb()
    except rawpy.LibRawError:
        return None
    if thumb.format != rawpy.ThumbFormat.JPEG:
        return None
    with replacing(out / f"{name}.jpg") as temp:
        temp.write_bytes(bytes(thumb.data))
    return f"{name}.jpg"


def _copied(path: Path, to: Path) -> str:
    """The file under another name, without taking room where the disk can share it."""
    with replacing(to) as temp:
        with suppress(OSError):
            os.link(path, temp)
        if not temp.exists():
            shutil.copyfile(path, temp)
    return to.name


def _finished(item: Item, out: Path) -> dict[str, Any] | None:
    """What an earlier run wrote of it, where its files are still there."""
    try:
        meta = json.loads((out / f"{item.name}_meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    files = [meta[k] for k in ("file", "raw", "jpeg") if isinstance(meta, dict) and meta.get(k)]
    whole = isinstance(meta, dict) and meta.get("source") == item.source and files and all((out / f).is_file() for f in files)
    return meta if whole else None


def _same_settings(out: Path, making: Making) -> None:
    path = out / SETTINGS
    if not path.is_file():
        write_text(path, json.dumps(asdict(making), indent=1) + "\n")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        before = None
    if before != asdict(making):
        raise WriteError(f"{out}: holds a set that was made otherwise ({before}); name another folder, or make it alike")


def _row(item: Item, out: Path, meta: dict[str, Any]) -> dict[str, Any]:
    name = meta.get("file") or meta.get("raw")
    what = (
        "kept whole"
        if meta.get("raw")
        else f"{' x '.join(map(str, meta['shape']))}, {meta['value_range'][0]:.3g} to {meta['value_range'][1]:.3g}"
    )
    pair = f", {meta['jpeg']}" if meta.get("jpeg") else ", without a JPEG" if meta.get("jpeg", "") is None else ""
    return {"input": item.source, "output": str(out / str(name)), "summary": what + pair, "meta": meta}
