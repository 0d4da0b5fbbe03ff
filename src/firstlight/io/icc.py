"""ICC profiles of our own: a matrix and one curve (ICC.1:2010, version 4.3), for sRGB and BT.2020 primaries."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import WriteError

__all__ = ["CHROMATICITIES", "D50", "profile", "to_xyz"]

WHITE = (0.3127, 0.3290)  # D65, CIE 1931 chromaticity
D50 = (0.9642, 1.0, 0.8249)  # the profile connection space's white, ICC.1 7.2.16
CHROMATICITIES = {  # red, green, blue: IEC 61966-2-1, ITU-R BT.2020
    "srgb": ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    "rec2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
}
BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
NAMES = {
    ("srgb", "srgb"): "sRGB",
    ("rec2020", "linear"): "Linear BT.2020",
    ("srgb", "linear"): "Linear sRGB",
}


def to_xyz(space: str) -> NDArray[np.float64]:
    """The matrix (3, 3) from linear RGB with white at (1, 1, 1) to CIE XYZ of D65, Y of white 1."""
    xyz = np.array([_xyz(c) for c in CHROMATICITIES[space]]).T
    return np.asarray(xyz * np.linalg.solve(xyz, _xyz(WHITE)))


def _xyz(chromaticity: tuple[float, float]) -> NDArray[np.float64]:
    x, y = chromaticity
    return np.array([x / y, 1.0, (1 - x - y) / y])


def profile(space: str, transfer: str) -> bytes:
    """A display profile for primaries "srgb" or "rec2020", transfer "srgb" or "linear" (values 0..1).

    Raises WriteError for a pair that has none here (HLG is what CICP is for).
    """
    name = NAMES.get((space, transfer))
    if name is None:
        raise WriteError(f"no ICC profile for {transfer} in {space}; expected {' or '.join(NAMES.values())}")
    adapt = _adaptation()
    columns = _fixed(adapt @ to_xyz(space))
    columns[:, 1] += _fixed(np.array(D50)) - columns.sum(axis=1)  # rounded columns add up to the white
    curve = _curve(transfer)
    tags = [
        (b"desc", _text(name)),
        (b"cprt", _text("No copyright, use freely")),
        (b"wtpt", _numbers(b"XYZ ", _fixed(np.array(D50)))),
        (b"chad", _numbers(b"sf32", _fixed(adapt).ravel())),
        *((k, _numbers(b"XYZ ", columns[:, i])) for i, k in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))),
        *((k, curve) for k in (b"rTRC", b"gTRC", b"bTRC")),
    ]
    return _packed(tags)


def _adaptation() -> NDArray[np.float64]:
    """Bradford's adaptation of XYZ from D65 to D50 (ICC.1 annex E)."""
    cone = np.array(BRADFORD)
    return np.asarray(np.linalg.inv(cone) @ np.diag(cone @ np.array(D50) / (cone @ _xyz(WHITE))) @ cone)


def _fixed(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(values * 65536).astype(np.int64)


def _numbers(kind: bytes, values: NDArray[np.int64]) -> bytes:
    return kind + bytes(4) + struct.pack(f">{len(values)}i", *values)


def _text(text: str) -> bytes:
    """A multi-localised text with one record, in English."""
    coded = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">4xII4sII", 1, 12, b"enUS", len(coded), 28) + coded


def _curve(transfer: str) -> bytes:
    if transfer == "linear":
        return b"curv" + bytes(4) + struct.pack(">I", 0)
    # IEC 61966-2-1: ((x + .055)/1.055)^2.4 from .04045 on, x/12.92 below; parametric curve of type 3
    numbers = _fixed(np.array([2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045]))
    return b"para" + struct.pack(">4xHxx5i", 3, *numbers)


def _packed(tags: list[tuple[bytes, bytes]]) -> bytes:
    """Header, table and tags, each on four bytes; equal tags are stored once."""
    at, table, data, known = 128 + 4 + 12 * len(tags), b"", b"", dict[bytes, int]()
    for kind, value in tags:
        if value not in known:
            known[value] = at + len(data)
            data += value + bytes(-len(value) % 4)
        table += struct.pack(">4sII", kind, known[value], len(value))
    size = at + len(data)
    header: tuple[Any, ...] = (size, b"", 0x04300000, b"mntr", b"RGB ", b"XYZ ", b"acsp", *_fixed(np.array(D50)))
    packed = struct.pack(">I4sI4s4s4s12x4s28x3i48x", *header)
    return packed + struct.pack(">I", len(tags)) + table + data
