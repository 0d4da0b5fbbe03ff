"""Frames larger than memory: local steps in blocks, tomography in sections of detector rows; read, compute, write overlap."""

from __future__ import annotations

from firstlight.scale.blocks import BYTES_PER_PIXEL, MEMORY, bands, map_blocks
from firstlight.scale.sections import Call, Plan, Section, plan, run, settle

__all__ = ["BYTES_PER_PIXEL", "MEMORY", "Call", "Plan", "Section", "bands", "map_blocks", "plan", "run", "settle"]
