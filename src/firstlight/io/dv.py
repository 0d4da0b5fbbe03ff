"""DeltaVision (.dv, Priism): an MRC-like header with wavelengths, time points and the order of their sections.

Layout after Priism's IVE documentation (header bytes 0 to 1023, magic -16224 at byte 96) and Bio-Formats' table of the
extended header's floats. Read into (T)(C)(Z)YX, axes of one section left out; rows stand as in the file.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from firstlight.errors import ReadError, WriteError
from firstlight.frame import Frame, Observation, Unit
from firstlight.io.contiguous import ContiguousWriter, described_axes, mapped
from firstlight.io.partial import read_described
from firstlight.noise import Unmodelled

__all__ = ["create", "matches", "read"]

MAGIC = -16224
MODES = {0: "u1", 1: "i2", 2: "f4", 6: "u2", 7: "i4"}
WRITTEN = {np.dtype(v).name: k for k, v in MODES.items()}
SEQUENCE = {0: "CTZ", 1: "TZC", 2: "TCZ"}  # slowest axis first
EXPOSURE = 8  # of the extended header's floats: 1 time [s], 8 exposure [s], 10 and 11 excitation and emission [nm]
HEADER: list[tuple[str, str, int]] = [
    ("nx", "i4", 0),
    ("ny", "i4", 4),
    ("sections", "i4", 8),
    ("mode", "i4", 12),
    ("mx", "i4", 28),
    ("my", "i4", 32),
    ("mz", "i4", 36),
    ("dx", "f4", 40),
    ("dy", "f4", 44),
    ("dz", "f4", 48),
    ("mapc", "i4", 64),
    ("mapr", "i4", 68),
    ("maps", "i4", 72),
    ("low", "f4", 76),
    ("high", "f4", 80),
    ("mean", "f4", 84),
    ("next", "i4", 92),
    ("magic", "i2", 96),
    ("integers", "i2", 128),
    ("floats", "i2", 130),
    ("resolutions", "i2", 132),
    ("lens", "i2", 162),
    ("times", "i2", 180),
    ("sequence", "i2", 182),
    ("waves", "i2", 196),
    ("wave", "5i2", 198),
    ("titles", "i4", 220),
    ("title", "10S80", 224),
]


def _layout(order: str) -> np.dtype[Any]:
    names, formats, offsets = zip(*HEADER, strict=True)
    fields = {"names": names, "formats": formats, "offsets": offsets, "itemsize": 1024}
    return np.dtype(fields).newbyteorder(order)  # type: ignore[call-overload,no-any-return]


def matches(raw: bytes) -> bool:
    """True for a DeltaVision header of either byte order; an MRC stamp takes precedence."""
    magic = MAGIC.to_bytes(2, "little", signed=True)
    return raw[96:98] in (magic, magic[::-1]) and raw[208:211] != b"MAP"


def read(path: Path, file: IO[bytes], raw: bytes) -> Frame:
    """The (T)(C)(Z)YX stack of a DeltaVision file, memory-mapped, spacing in um, emission wavelengths in observation.band.

    Integers are camera counts, adu, unless a title tells of a deconvolution; else arbitrary. Noise unmodelled. Raises
    ReadError for complex modes, pyramids, section counts that do not multiply up, and cut files.
    """
    order = "<" if int.from_bytes(raw[96:98], "little", signed=True) == MAGIC else ">"
    h = np.frombuffer(raw, _layout(order))[0]
    size = _sizes(path, h)
    dtype = np.dtype(order + MODES[int(h["mode"])])
    extended = mapped(path, file, np.uint8, 1024, (int(h["next"]),)) if h["next"] > 0 else np.empty(0, np.uint8)
    stored = SEQUENCE[int(h["sequence"])]
    shape = (*(size[a] for a in stored), int(h["ny"]), int(h["nx"]))
    full = mapped(path, file, dtype, 1024 + extended.size, shape).transpose([stored.index(a) for a in "TCZ"] + [3, 4])
    kept = described_axes(path) or ""
    axes = "".join(a for a in "TCZ" if size[a] > 1 or a in kept) + "YX"
    data = full[tuple(slice(None) if a in axes else 0 for a in "TCZYX")]
    records = _records(h, extended, order)
    titles, waves = _titles(h), [int(w) for w in h["wave"][: size["C"]]]
    header = {
        "format": "DV",
        "titles": titles,
        "wavelengths": waves,
        "lens": int(h["lens"]),
        "sizes": size,
        "order": order,
        "main": raw,
        "extended": extended,
    }
    computed = any("DECON" in t.upper() for t in titles)
    plain = Frame(
        data,
        axes,
        Unit.ADU if dtype.kind in "iu" and not computed else Unit.ARBITRARY,
        Unmodelled(
            "deconvolved, as its title says: noise is correlated" if computed else "no gain in the header: pass a detector"
        ),
        spacing={a: float(v) for a in "ZYX" if a in axes and np.isfinite(v := h[f"d{a.lower()}"]) and v > 0},
        observation=Observation(
            instrument="DeltaVision",
            exposure=_common(records, EXPOSURE),
            band="; ".join(f"{w} nm" for w in waves if w > 0) or None,
            header=header,
            source=str(path),
        ),
    )
    return read_described(data, path, plain)


def _sizes(path: Path, h: Any) -> dict[str, int]:
    mode, sequence = int(h["mode"]), int(h["sequence"])
    times, waves, sections = max(1, int(h["times"])), max(1, int(h["waves"])), int(h["sections"])
    if mode not in MODES:
        raise ReadError(
            f"{path}: DeltaVision mode {mode} is not read, expected one of {sorted(MODES)}; convert it to real numbers"
        )
    if sequence not in SEQUENCE:
        raise ReadError(f"{path}: DeltaVision section order {sequence}, expected 0 (ZTW), 1 (WZT) or 2 (ZWT)")
    if int(h["resolutions"]) > 1:
        raise ReadError(f"{path}: a DeltaVision pyramid of {int(h['resolutions'])} resolutions is not read; export one of them")
    if min(sections, int(h["nx"]), int(h["ny"])) < 1 or sections % (times * waves):
        raise ReadError(
            f"{path}: damaged DeltaVision header: {sections} sections of {int(h['nx'])} x {int(h['ny'])} pixels, "
            f"{waves} wavelengths, {times} time points"
        )
    return {"T": times, "C": waves, "Z": sections // (times * waves)}


def _titles(h: Any) -> list[str]:
    texts = (bytes(t).decode("latin-1").strip(" \0") for t in h["title"])
    return [" ".join(t.split()) for t in texts if t]


def _records(h: Any, extended: Any, order: str) -> Any:
    """The extended header's floats, one row a section; no rows where it is absent or too short."""
    integers, floats = max(0, int(h["integers"])), max(0, int(h["floats"]))
    width, sections = 4 * (integers + floats), int(h["sections"])
    if floats == 0 or extended.size < width * sections:
        return np.empty((0, 32))
    rows = np.asarray(extended[: width * sections]).reshape(sections, width)[:, 4 * integers :]
    return np.ascontiguousarray(rows).view(order + "f4")


def _common(records: Any, column: int) -> float | None:
    """The value of a column where all sections share it, else None: channels may be exposed differently."""
    if len(records) == 0 or records.shape[1] <= column:
        return None
    value = float(records[0, column])
    return value if value > 0 and np.all(records[:, column] == records[0, column]) else None


def create(path: Path, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool) -> ContiguousWriter:
    """A writer of one DeltaVision file, axes any of T C Z then YX, sections in the order ZWT; a source's header is kept."""
    axes = like.axes
    size = {a: shape[axes.index(a)] if a in axes else 1 for a in "TCZ"}
    if not set(axes) <= set("TCZYX") or dtype.name not in WRITTEN or size["C"] > 5:
        raise WriteError(
            f"{path}: DeltaVision holds up to 5 channels of TCZYX in {', '.join(WRITTEN)}; got {axes} {shape} in {dtype.name}; "
            "choose .ome.tif"
        )
    if min(shape) < 1 or size["T"] >= 2**15:
        raise WriteError(f"{path}: DeltaVision holds 1 to 32767 time points and no empty axis, got shape {shape}")
    source = like.observation.header
    source = source if isinstance(source, dict) and source.get("format") == "DV" and source["order"] == "<" else {}
    extended = _sorted(source) if source.get("sizes") == size else b""
    h = _new_header(like, shape, size, WRITTEN[dtype.name], source)
    h["next"] = len(extended)
    patch = partial(_patched, h)
    stored = np.dtype("<" + MODES[WRITTEN[dtype.name]])
    return ContiguousWriter(path, like, shape, stored, std, head=h.tobytes() + extended, patch=patch)


def _patched(h: Any, low: float, high: float, mean: float) -> bytes:
    if np.isfinite([low, high, mean]).all():
        h["low"], h["high"], h["mean"] = low, high, mean
    return bytes(h.tobytes())


def _sorted(source: dict[str, Any]) -> bytes:
    """The extended header with its records in the order ZWT in which sections are written."""
    h = np.frombuffer(source["main"], _layout("<"))[0]
    stored, size = SEQUENCE[int(h["sequence"])], source["sizes"]
    width = 4 * (max(0, int(h["integers"])) + max(0, int(h["floats"])))
    used = width * int(h["sections"])
    raw = np.asarray(source["extended"])
    if raw.size < used:
        return b""
    table = raw[:used].reshape(*(size[a] for a in stored), width)
    return table.transpose(*(stored.index(a) for a in "TCZ"), 3).tobytes() + raw[used:].tobytes()


def _new_header(like: Frame, shape: tuple[int, ...], size: dict[str, int], mode: int, source: dict[str, Any]) -> Any:
    # bytes without a name here are kept too: a structured copy would drop them
    raw = np.frombuffer(source.get("main", bytes(1024)), np.uint8).copy()
    h = raw.view(_layout("<"))
    h["nx"], h["ny"], h["sections"], h["mode"] = shape[-1], shape[-2], size["T"] * size["C"] * size["Z"], mode
    h["mx"] = h["my"] = h["mz"] = 1
    for a in "xyz":
        h[f"d{a}"] = like.spacing.get(a.upper(), 0.0)
    h["mapc"], h["mapr"], h["maps"], h["magic"] = 1, 2, 3, MAGIC
    h["resolutions"], h["times"], h["waves"], h["sequence"] = 1, size["T"], size["C"], 2
    if size["C"] != len(source.get("wavelengths", ())):
        h["wave"] = 0
    step = like.history[-1].step if like.history else "written"
    titles = [t for t in (bytes(t) for t in h["title"][0]) if t.strip(b" \0") and not t.startswith(b"firstlight")]
    titles = [*titles[:9], f"firstlight: {step}".encode("latin-1", "replace")[:80]]
    h["titles"], h["title"] = len(titles), titles + [b""] * (10 - len(titles))
    return raw.view(_layout("<"))
