"""ISO base media boxes (ISO/IEC 14496-12), as AVIF, HEIF and JPEG XL files are made of."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from firstlight.errors import ReadError

__all__ = ["box", "children", "full", "inside"]


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box of four-letter `kind`."""
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    """A box that begins with a version (8 bits) and flags (24 bits)."""
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def children(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and contents of each box in `data`; raises ReadError where one ends after them."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1 and at + 16 <= len(data):
            size, head = struct.unpack_from(">Q", data, at + 8)[0], 16
        end = len(data) if size == 0 else at + size
        if end < at + head or end > len(data):
            raise ReadError(f"truncated or damaged in its box {kind!r} of {size} bytes; copy it again")
        yield kind, data[at + head : end]
        at = end


def inside(data: bytes, *path: bytes) -> bytes:
    """Contents of the first box found by following `path`, empty where there is none; "meta" and "iref" are full boxes."""
    for kind in path:
        data = next((body for k, body in children(data) if k == kind), b"")
        data = data[4:] if kind in (b"meta", b"iref") else data
    return data
