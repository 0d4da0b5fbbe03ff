"""The images that a judgement is about: parents of patches, or files; and what a network makes of them."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight import calibrate, intake, io, model_file, outputs
from firstlight.atomic import replacing
from firstlight.dataset.manifest import Patch, patch_frame, read_patches
from firstlight.errors import FrameError, ReadError
from firstlight.facts import flagged
from firstlight.frame import Flag, Frame, Unit
from firstlight.measure.white import with_white_noise
from firstlight.model_file import Model
from firstlight.noise import Unmodelled
from firstlight.restore.learned import denoise
from firstlight.restore.pictured import denoise_picture

__all__ = ["Given", "Parent", "assembled", "chosen", "cleaned", "goal_of", "load", "named_model", "parents", "png", "saved"]

Array = NDArray[Any]
SHOWN = 5  # ids in a message


@dataclass(frozen=True)
class Parent:
    """An image: its id, its file, and the patches that were cut from it, where it comes from a list of them."""

    id: str
    path: Path
    patches: tuple[Patch, ...] = ()


@dataclass(frozen=True)
class Given:
    """What the user says of files: as the CLI's flags; profile: "physical" or "documented"."""

    detector: str | None = None
    unit: str | None = None
    ext: str | None = None
    profile: str = "physical"
    assume_white: bool = False


def parents(
    patches: Path | None, files: Sequence[Path] = (), *, split: str | None = "test", most: int | None = None
) -> list[Parent]:
    """The parents in a list of patches, of one split where the list has splits, or the files; `most` of them at most.

    Raises FrameError for both or none of the two, or for a split that is empty, ReadError as `read_patches` does.
    """
    if (patches is None) == (not files):
        raise FrameError("expected --patches patches_splits.csv or image files, one of the two")
    found = [Parent(outputs.stem(p), p) for p in files] if patches is None else _by_parent(patches, split)
    if most is not None and most < 1:
        raise FrameError(f"--max-parents {most}: expected 1 or more")
    return found[:most]


def _by_parent(patches: Path, split: str | None) -> list[Parent]:
    rows = read_patches(patches)
    if split is not None and any(r.split for r in rows):
        rows = [r for r in rows if r.split == split]
    elif split is not None:
        warnings.warn(f"{patches}: no splits, all parents are taken; those that were learned from flatter", stacklevel=3)
    groups: dict[str, list[Patch]] = defaultdict(list)
    for row in rows:
        groups[row.parent_id].append(row)
    if not groups:
        raise FrameError(f"{patches}: no patch in split {split!r}; draw the splits again, or take another with --split")
    return [Parent(k, Path(v[0].parent_path), tuple(v)) for k, v in groups.items()]


def load(parent: Parent, given: Given = Given()) -> Frame:
    """The parent's image: its file, else put together from its patches; noise completed, saturated pixels flagged."""
    if not parent.path.exists() and parent.patches:
        warnings.warn(f"{parent.path}: is gone; put together from its {len(parent.patches)} patches", stacklevel=2)
        frame = intake.complete(assembled(parent.patches), detector=given.detector, unit=given.unit).frame
    else:
        frame = intake.load(parent.path, detector=given.detector, unit=given.unit, ext=given.ext).frame
        frame = intake.hashed(frame, parent.path)
    frame = flagged(frame)
    flag = frame.observation.saturation is not None and frame.unit is Unit.ADU and frame.flags is None
    return calibrate.flag_saturated(frame) if flag else frame


def assembled(patches: Sequence[Patch]) -> Frame:
    """A parent from its patches: each one's scaling undone, and of several over a pixel the one whose border is farthest.

    Returns data (Y, X) or (C, Y, X) in the parent's unit with the noise of its first patch; pixels of no patch are 0 and
    flagged NO_DATA. Raises ReadError as `manifest.patch_frame` does, or where the patches are of several parents or shapes.
    """
    first = patches[0]
    whole = (first.parent_height, first.parent_width)
    like = patch_frame(first)
    out = np.zeros((*like.shape[:-2], *whole), like.data.dtype)
    depth = np.full(whole, -1, np.int64)
    for p in patches:
        if (p.parent_id, p.parent_height, p.parent_width, p.channels) != (first.parent_id, *whole, first.channels):
            raise ReadError(f"{p.path}: of parent {p.parent_id}, expected {first.parent_id}; all patches of one image")
        here = np.s_[p.y : p.y + p.height, p.x : p.x + p.width]
        if depth[here].shape != (p.height, p.width) or min(p.y, p.x) < 0:
            raise ReadError(f"{p.path}: at row {p.y}, column {p.x} it leaves its parent of {whole}; cut the patches again")
        own = np.minimum(*np.meshgrid(*(_depth(*k) for k in _sides(p)), indexing="ij"))
        nearer = own > depth[here]
        out[..., *here] = np.where(nearer, patch_frame(p).data, out[..., *here])
        depth[here] = np.maximum(depth[here], own)
    flags = np.where(depth < 0, np.uint8(Flag.NO_DATA), np.uint8(0)) if (depth < 0).any() else None
    return like.replace(data=out, flags=flags)


def _sides(p: Patch) -> list[tuple[int, int, int]]:
    return [(p.y, p.height, p.parent_height), (p.x, p.width, p.parent_width)]


def _depth(start: int, length: int, whole: int) -> Array:
    """Distance [px] of each pixel of a patch from the patch's ends inside its parent."""
    i = np.arange(length)
    left = i if start > 0 else np.full(length, whole)
    right = length - 1 - i if start + length < whole else np.full(length, whole)
    return np.asarray(np.minimum(left, right))


def named_model(model: Path | str | None) -> Model:
    """The model in a file, the shipped one for None or "universal"."""
    return model_file.load(model_file.shipped() if model in (None, "universal", Path("universal")) else str(model))


def cleaned(frame: Frame, model: Model, given: Given = Given()) -> Frame:
    """What the network makes of a frame, float32 [unit]; stabilised models take white noise as measured where none is known.

    Raises FrameError where neighbours' noise correlates and `given.assume_white` is not said.
    """
    if model.scaling["domain"] != "stabilised":
        return denoise_picture(frame, model=model, profile=given.profile)  # type: ignore[arg-type]
    if isinstance(frame.noise, Unmodelled):
        said = f"the noise is unknown ({frame.noise.reason}): taken as white, of the size that the data show"
        warnings.warn(said, stacklevel=2)
        frame = with_white_noise(frame)
    elif not given.assume_white:
        intake.check_white(frame)
    if (model.axes, model.channels, given.profile) == ("YX", 1, "physical"):
        return denoise(frame, model=model)
    return denoise_picture(frame, model=model, profile=given.profile)  # type: ignore[arg-type]


def goal_of(source: Path, out: Path, to: str | None = None, *, several: bool = False) -> Path:
    """Where the cleaned image goes: as `outputs.target`, a JPEG's as PNG; with `several` into the folder `out`."""
    lossy = io.kind(source) in (".jpg", ".jpeg")
    return outputs.target(source, out, several, to or ("png" if lossy else None))


def saved(restored: Frame, source: Frame, goal: Path) -> Path:
    """Write a restored frame: a picture's codes as whole numbers again, its opacity put back; returns the path.

    Codes outside those of its type are clipped, with a warning that counts them.
    """
    dtype = np.dtype(source.data.dtype)
    if restored.unit is Unit.DISPLAY and dtype.kind == "u" and goal.suffix.lower() in (".png", ".jpg", ".jpeg"):
        codes, top = np.rint(np.asarray(restored.data)), np.iinfo(dtype).max
        over = np.count_nonzero((codes < 0) | (codes > top))
        if over:
            said = f"{goal}: {over} of {codes.size} values outside 0..{top} were clipped, as codes must be"
            warnings.warn(said, stacklevel=2)
        restored = restored.replace(data=np.clip(np.nan_to_num(codes), 0, top).astype(dtype))
    return io.write(restored, goal)


def png(path: Path, image: Array) -> Path:
    """Write uint8 (Y, X) or RGB (Y, X, 3) as PNG."""
    from imagecodecs import png_encode

    with replacing(path) as temp:
        temp.write_bytes(png_encode(np.ascontiguousarray(image)))
    return path


def chosen(source: str, patches: Path | None) -> Parent:
    """A parent by its id in a list of patches, or an image by its path. Raises FrameError for an id that is not there."""
    if patches is None:
        return parents(None, [Path(source)])[0]
    found = {p.id: p for p in parents(patches, split=None)}
    if source not in found:
        some = ", ".join(list(found)[:SHOWN])
        raise FrameError(f"{patches}: no parent {source!r}; there are {len(found)}: {some}{', ...' * (len(found) > SHOWN)}")
    return found[source]
