"""Tomography jobs: a recipe on a scan in sections of detector rows, its check, the rotation axis by itself."""

from __future__ import annotations

from firstlight.tomography.center import Found, find
from firstlight.tomography.chain import Job, Resources, lines, prepared, takes
from firstlight.tomography.doubts import angle_doubts
from firstlight.tomography.run import run, summary_text
from firstlight.tomography.walk import problems

__all__ = ["Found", "Job", "Resources", "angle_doubts", "find", "lines", "prepared", "problems", "run", "summary_text", "takes"]
