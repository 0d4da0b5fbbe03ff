"""Images as overlapping patches, percentile-normalised so that it can be undone: what each was scaled by lies in its row."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight import intake, io
from firstlight.dataset.cut import save
from firstlight.dataset.journal import Entry, Journal, locked
from firstlight.dataset.listing import by_cause, few
from firstlight.dataset.manifest import Image, Patch, read_images, write_patches
from firstlight.dataset.rows import Source
from firstlight.dataset.store import flags_file
from firstlight.errors import FirstlightError, FrameError, ReadError, WriteError
from firstlight.frame import Flag, Frame
from firstlight.geometry import Mosaic
from firstlight.noise import Unmodelled
from firstlight.scaling import Scaling
from firstlight.tiles import strides

__all__ = ["PATCH_PROFILES", "Cut", "Patching", "cut_patches"]

Array = NDArray[Any]
Tick = Callable[[int, int, str], None]
PATCH_PROFILES = ("physical", "documented")
DTYPES = ("float16", "float32")
DOCUMENTED = (
    "profile 'documented': each patch has percentiles of its own and loses for good what lies beyond them, the cores of stars "
    "and the dark tail of the sky's noise; neighbouring patches disagree where they overlap"
)
OPACITY, PALETTE = (1, 2), 3  # TIFF's ExtraSamples and PhotometricInterpretation
HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Patching:
    """What patches depend on beside their image. dtype None: float32, or float16 for profile "documented"."""

    tile: int = 512
    stride: int = 256
    low: float = 1.0
    high: float = 99.5
    dtype: str | None = None
    profile: str = "physical"
    detector: str | None = None
    unit: str | None = None

    def checked(self) -> Patching:
        """The same with its dtype; raises FrameError for what no patch can be cut by."""
        if self.profile not in PATCH_PROFILES:
            raise FrameError(f"patches: profile {self.profile!r}, expected one of {', '.join(PATCH_PROFILES)}")
        dtype = self.dtype or ("float16" if self.profile == "documented" else "float32")
        if dtype not in DTYPES:
            raise FrameError(f"patches: dtype {dtype!r}, expected one of {', '.join(DTYPES)}")
        if not 0 <= self.low < self.high <= 100:
            raise FrameError(f"patches: percentiles {self.low:g} and {self.high:g}, expected 0 <= low < high <= 100")
        if not 1 <= self.stride <= self.tile:
            raise FrameError(f"patches: stride {self.stride} and tile {self.tile}, expected 1 <= stride <= tile: no gaps")
        return replace(self, dtype=dtype)


@dataclass(frozen=True)
class Cut:
    """The patches, (path, cause) of images that gave none, and notes; kept: how many images had been cut before."""

    patches: tuple[Patch, ...]
    unusable: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    kept: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON object: counts, unusable images, notes."""
        bad = [{"path": p, "cause": c} for p, c in self.unusable]
        parents = len({p.parent_id for p in self.patches})
        return {"patches": len(self.patches), "images": parents, "kept": self.kept, "unusable": bad, "notes": list(self.notes)}

    def text(self) -> str:
        """For people: the counts, notes, and the images that gave no patches, cause by cause."""
        before = f", {self.kept} of them cut before" if self.kept else ""
        lines = [f"{len(self.patches)} patches of {len({p.parent_id for p in self.patches})} images{before}"]
        lines += [f"note: {n}" for n in self.notes]
        lines += [f"unusable: {few(paths)}: {cause}" for cause, paths in by_cause(self.unusable)]
        return "\n".join(lines)


def cut_patches(
    images: str | Path, out: str | Path, manifest: str | Path, options: Patching = Patching(), *, tick: Tick | None = None
) -> Cut:
    """Cut the images of an images.csv into OUT/ID/ID_Y_X.npy and write patches.csv; run again, it goes on where it stopped.

    Patches start every `stride` px, the last flush with the border, so that every pixel is in one. Profile "physical": (x +
    offset) / scale with -offset and scale + -offset the `low` and `high` percentile of the whole image, nothing clipped.
    "documented": percentiles of each patch, clipped to 0..1; it warns. Flags lie beside a patch where any are set. Raises
    ReadError for what is no images.csv, FrameError for options, WriteError where OUT holds patches cut otherwise.
    """
    options = options.checked()
    if options.profile == "documented":
        warnings.warn(DOCUMENTED, UserWarning, stacklevel=2)
    every, out = read_images(images), Path(out)
    unique = list({image.id: image for image in reversed(every)}.values())[::-1]
    notes = [f"{n} images are copies of others and are cut once"] if (n := len(every) - len(unique)) else []
    patches, failed = list[Patch](), list[tuple[str, str]]()
    with locked(out) as journal:
        journal.agree(_noted(options))
        done = _finished(journal, {image.id for image in unique})
        for n, image in enumerate(unique):
            if tick:
                tick(n, len(unique), image.filename)
            try:
                patches += _where(image, done[image.id]) if image.id in done else _cut(image, out, options, journal)
            except WriteError:
                raise
            except FirstlightError as error:
                failed.append((image.path, " ".join(str(error).split()).removeprefix(f"{image.path}: ")))
    write_patches(manifest, patches)
    return Cut(tuple(patches), tuple(failed), (*notes, *_notes(patches, options)), len(done))


def _noted(options: Patching) -> dict[str, Any]:
    from firstlight.dataset.options import noted

    return {"what": "patches", **vars(options), "detector": noted(options.detector)}


def _finished(journal: Journal, wanted: set[str]) -> dict[str, list[Patch]]:
    """The patches of images that are done; what a vanished image, or an interrupted run, left goes."""
    done = {}
    for entry in list(journal.entries()):
        if entry.path in wanted and entry.whole(journal.out):
            done[entry.path] = [_placed(row, journal.out) for row in entry.rows]
        else:
            _removed(journal, entry)
    for stray in journal.out.glob("*/.*.part.*.npy"):
        stray.unlink()
    return done


def _removed(journal: Journal, entry: Entry) -> None:
    journal.remove([entry])
    for name in entry.files:
        (journal.out / name).unlink(missing_ok=True)


def _placed(row: Mapping[str, Any], out: Path) -> Patch:
    return Patch(**{**row, "path": str((out / row["path"]).absolute())})


def _where(image: Image, patches: Sequence[Patch]) -> list[Patch]:
    """The patches of an image that may have moved since."""
    return [replace(p, parent_path=image.path) for p in patches]


def _cut(image: Image, out: Path, options: Patching, journal: Journal) -> list[Patch]:
    try:
        digest = io.sha1(image.path)
    except OSError as error:
        raise ReadError(f"cannot be read ({error.strerror or error})") from error
    if digest != image.sha1:
        raise FrameError(f"has changed since its manifest was written (sha1 {digest[:12]}); write the manifest again")
    frame = _frame(image, options)
    (out / image.id).mkdir(exist_ok=True)
    rows, files = list[Patch](), dict[str, int]()
    for patch, scaled, flags in _pieces(image, frame, options):
        files[patch.path] = save(out / patch.path, scaled)
        if flags is not None:
            files[flags_file(patch.path)] = save(out / flags_file(patch.path), flags)
        rows.append(patch)
    source = Source(image.id, "patches", "patches", image.id, image.id, "unknown", sha256=image.sha1)
    journal.add(source, files, rows)
    return [_placed(vars(row), out) for row in rows]


def _frame(image: Image, options: Patching) -> Frame:
    """The image, pixels in memory, with its noise as far as it is known. Raises FrameError for what is no flat image."""
    frame = intake.load(image.path, detector=options.detector, unit=options.unit).frame
    if frame.axes not in ("YX", "CYX"):
        raise FrameError(f"has axes {frame.axes}, patches are cut from YX or CYX; save each plane as a file of its own")
    if isinstance(frame.geometry, Mosaic):
        raise FrameError("is a colour filter mosaic, whose patches keep its phase in `firstlight tiles` alone; use that")
    tags = frame.observation.header if isinstance(frame.observation.header, dict) else {}
    if any(s in OPACITY for s in tags.get("extrasamples", ())) or tags.get("photometric") == PALETTE:
        raise FrameError("is a TIFF with opacity or a colour table, which would be taken for signal; save it as PNG")
    data = np.asarray(frame.data)
    if data.dtype.kind not in "iuf":
        raise FrameError(f"holds {data.dtype}, patches are cut from real numbers")
    return frame.replace(data=data)


def _pieces(image: Image, frame: Frame, options: Patching) -> Iterator[tuple[Patch, Array, Array | None]]:
    data, (height, width) = np.asarray(frame.data), frame.shape[-2:]
    flags = None if frame.flags is None or not np.any(frame.flags) else np.broadcast_to(np.asarray(frame.flags), data.shape)
    whole = None if options.profile == "documented" else _percentiles(data, flags, options)
    sides, law = [min(options.tile, n) for n in (height, width)], _law(frame)
    starts = [strides(n, side, min(options.stride, side)) for n, side in zip((height, width), sides, strict=True)]
    for y, x in product(*starts):
        here = (..., slice(y, y + sides[0]), slice(x, x + sides[1]))
        piece, marked = data[here], None if flags is None else flags[here]
        rule, said = whole or _percentiles(piece, marked, options)
        scaled = _scaled(piece, rule, options)
        good = np.isfinite(piece) if marked is None else np.isfinite(piece) & (marked == 0)
        name = f"{image.id}_{y:05d}_{x:05d}"
        yield (
            Patch(
                patch_id=name,
                parent_id=image.id,
                parent_path=image.path,
                path=f"{image.id}/{name}.npy",
                y=y,
                x=x,
                height=sides[0],
                width=sides[1],
                channels=1 if data.ndim == 2 else data.shape[0],
                dtype=str(scaled.dtype),
                scaling=json.dumps(said),
                parent_height=height,
                parent_width=width,
                parent_dtype=str(data.dtype.newbyteorder("=")),
                unit=str(frame.unit),
                noise=law,
                valid=float(good.mean()),
            ),
            scaled,
            marked if marked is not None and marked.any() else None,
        )


def _percentiles(data: Array, flags: Array | None, options: Patching) -> tuple[Scaling, dict[str, Any]]:
    """The scaling by percentiles of finite pixels that hold data, and its row; scale 1 where they are one value or none."""
    good = np.isfinite(data) if flags is None else np.isfinite(data) & (flags & np.array(Flag.NO_DATA, flags.dtype) == 0)
    values = data[good]
    low, high = (float(v) for v in np.percentile(values, [options.low, options.high])) if values.size else (0.0, 1.0)
    rule = Scaling(high - low if high > low else 1.0, 0.0 - low)
    said: dict[str, Any] = {"scale": rule.scale, "offset": rule.offset, "low": options.low, "high": options.high}
    if options.profile == "documented":
        said["clip"] = [0.0, 1.0]
    return rule, said


def _scaled(data: Array, rule: Scaling, options: Patching) -> Array:
    scaled = rule.apply(data)
    if options.profile == "documented":
        scaled = np.clip(scaled, 0.0, 1.0)
    if options.dtype == "float16" and (worst := float(np.max(np.abs(scaled), initial=0, where=np.isfinite(scaled)))) > HALF:
        raise FrameError(f"scaled values reach {worst:.3g}, float16 holds {HALF:.0f}; cut float32 patches")
    return scaled.astype(options.dtype, copy=False)


def _law(frame: Frame) -> str:
    """The noise of a frame as a row states it: numbers, or a list of one a channel; what varies over the image is said so."""
    noise = frame.noise
    if isinstance(noise, Unmodelled):
        return json.dumps({"unmodelled": noise.reason})
    parts = {k: _plain(getattr(noise, k)) for k in ("a", "b", "offset")}
    if None in parts.values() or np.any(noise.c) or np.any(noise.d):
        return json.dumps({"unmodelled": "the image's noise varies over it, or is shared with masters; pass a detector"})
    return json.dumps(parts)


def _plain(value: Any) -> float | list[float] | None:
    part = np.asarray(value, dtype=np.float64)
    if part.size == 1:
        return float(part.ravel()[0])
    return [float(v) for v in part.ravel()] if part.ndim == 3 and part.shape[1:] == (1, 1) else None


def _notes(patches: Sequence[Patch], options: Patching) -> list[str]:
    scales = {p.patch_id: json.loads(p.scaling)["scale"] for p in patches}
    small = len({p.parent_id for p in patches if min(p.height, p.width) < options.tile})
    found = [f"{small} images are smaller than {options.tile} px: their patches are as small"] if small else []
    if flat := sum(s == 1.0 for s in scales.values()):
        found.append(f"{flat} patches have the same value at both percentiles, or none: their scale is 1")
    if gaps := sum(p.valid < 1 for p in patches):
        found.append(f"{gaps} patches hold pixels that are flagged or not finite; `valid` is the share of the others")
    if options.dtype == "float16" and options.profile == "physical" and patches:
        p = max(patches, key=lambda p: scales[p.patch_id])
        step = scales[p.patch_id] / 2**12
        found.append(f"float16 keeps 11 bits: values near the high percentile move by up to {step:.2g} {p.unit} ({p.patch_id})")
    if patches and not any("a" in json.loads(p.noise) for p in patches):
        found.append("the noise of no image is known: pass --detector where you know it, r2r learns from it")
    return found
