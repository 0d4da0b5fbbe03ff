"""Frames larger than memory: local steps in blocks, tomography in sections of detector rows; read, compute, write overlap."""

from __future__ import annotations

from firstlight.scale.blocks import BYTES_PER_PIXEL, MEMORY, Sink, around, bands, map_blocks
from firstlight.scale.sections import NOTHING, Call, Plan, Seconds, Section, plan, probe, run, sample, settle, timed

__all__ = [
    "BYTES_PER_PIXEL",
    "MEMORY",
    "NOTHING",
    "Call",
    "Plan",
    "Seconds",
    "Section",
    "Sink",
    "around",
    "bands",
    "map_blocks",
    "plan",
    "probe",
    "run",
    "sample",
    "settle",
    "timed",
]
