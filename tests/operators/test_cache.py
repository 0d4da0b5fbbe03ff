"""Compiled loops are kept: a second process compiles nothing, and an installation that cannot be written to is no obstacle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import firstlight

CODE = """
import gc, json, os
import numpy as np
from numba.core.dispatcher import Dispatcher
import firstlight
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.noise import Unmodelled
from firstlight.operators import radon
from firstlight.restore import reconstruct

frame = Frame(np.ones((8, 2, 16), np.float32), "AYX", Unit.OPTICAL_DEPTH, Unmodelled("none"),
              geometry=Scan(np.arange(8) * 0.4, center=7.5))
reconstruct(frame, padding="edge")
radon(np.arange(8) * 0.4, 16, slices=2, convolution=False)(np.ones((2, 16, 16), np.float32))
ours = [d for d in gc.get_objects() if isinstance(d, Dispatcher) and d.py_func.__module__.startswith("firstlight")]
stats = [d.stats for d in ours if d.signatures]
print(json.dumps({
    "cache": os.environ.get("NUMBA_CACHE_DIR"),
    "file": firstlight.__file__,
    "hits": sum(sum(s.cache_hits.values()) for s in stats),
    "misses": sum(sum(s.cache_misses.values()) for s in stats),
    "paths": sorted({s.cache_path for s in stats}),
}))
"""


def run(site: Path, home: Path) -> dict:
    """The program in a process of its own, with its package at `site` and its user's cache under `home`."""
    drop = ("NUMBA_CACHE_DIR", "PYTHONPATH", "XDG_CACHE_HOME")
    env = {k: v for k, v in os.environ.items() if k not in drop}
    env |= {"PYTHONPATH": str(site), "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, env=env, cwd=home)
    found = json.loads(ran.stdout)
    assert Path(found["file"]).is_relative_to(site)
    return found


@pytest.mark.parametrize("writable", [True, False])
def test_a_second_process_compiles_nothing(tmp_path, writable):
    site, home = tmp_path / "site", tmp_path / "home"
    home.mkdir()
    shutil.copytree(Path(firstlight.__file__).parent, site / "firstlight", ignore=shutil.ignore_patterns("__pycache__"))
    if not writable:  # a file where the directory would go refuses every user, the administrator too
        for folder in [site / "firstlight", *(p for p in (site / "firstlight").rglob("*") if p.is_dir())]:
            (folder / "__pycache__").touch()
    first, second = run(site, home), run(site, home)
    where = site if writable else home
    assert all(Path(path).is_relative_to(where) for path in first["paths"] + second["paths"])
    assert (first["hits"], second["misses"]) == (0, 0)
    assert second["hits"] == first["misses"] >= 6  # pack, spread, crop, embed, gather, unpack


def test_where_nothing_can_be_written_loops_live_as_long_as_their_process(tmp_path):
    site, home = tmp_path / "site", tmp_path / "home"
    home.mkdir()
    (home / ".cache").touch()
    shutil.copytree(Path(firstlight.__file__).parent, site / "firstlight", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [site / "firstlight", *(p for p in (site / "firstlight").rglob("*") if p.is_dir())]:
        (folder / "__pycache__").touch()
    found = run(site, home)
    assert found["hits"] == 0
    assert found["misses"] >= 6
    assert found["cache"]
    assert not Path(found["cache"]).exists()
