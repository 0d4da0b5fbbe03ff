"""The table [reconstruction] of a recipe: the last step by its algorithm, and how to run all of them on a scan.

    [reconstruction]
    algorithm = "fourierrec"      # fbp gridrec fourierrec linerec, or an iterative step of restore: sirt cgls tv ...
    filter = "shepp"              # and any other parameter of that step
    gpu_devices = [0, 1]          # or ["cpu", "cpu"], or [] for the processor
    chunk_size = 64               # detector rows at once
    dtype = "float32"
    output_format = "zarr"        # or hdf5, tiff

Without [[step]] tables the steps before it are those of the shipped recipe "tomography".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from firstlight.errors import FrameError, RecipeError
from firstlight.recipe.step import near, parameters
from firstlight.recipe.text import Recipe, Step, load

__all__ = ["Options", "algorithms", "expanded", "options"]

ENGINE = "restore.reconstruct"
FORMATS = {"zarr": ".zarr", "hdf5": ".h5", "h5": ".h5", "tiff": ".tif", "tif": ".tif"}
TYPES = ("float32", "float16", "float64")
ITERATIVE = {name: name for name in ("cgls", "landweber", "mlem", "osem", "sirt", "tikhonov", "total_variation")} | {
    "tv": "total_variation",
    "pwls": "least_squares",
}
KEYS = ("algorithm", "gpu_devices", "chunk_size", "dtype", "output_format")
TABLE = "[reconstruction]"


@dataclass(frozen=True)
class Options:
    """How to run on a scan: devices (none: the processor), rows at once, type of the volume's numbers, suffix of its file."""

    devices: tuple[str, ...] = ()
    rows: int | None = None
    dtype: str = "float32"
    suffix: str | None = None


def expanded(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe with its table as a last step, and what is wrong with the table, one line each."""
    table = recipe.reconstruction
    if table is None:
        return recipe, []
    before, faults = recipe.steps, [str(f) for f in _options(table)[1]]
    if not before:
        shipped = load("tomography")
        before = tuple(s for s in shipped.steps if s.use not in algorithms().values())
        recipe = replace(recipe, domain=recipe.domain or shipped.domain)
    if twice := [s.use for s in before if s.use in algorithms().values()]:
        return recipe, [*faults, f"{TABLE} and the step {twice[0]} both reconstruct; keep one of them"]
    step, wrong = _step(table)
    return replace(recipe, steps=(*before, *step), reconstruction=None), [*faults, *wrong]


@lru_cache(maxsize=1)
def algorithms() -> dict[str, str]:
    """Each algorithm's step: the engine's names, and the iterative ones."""
    from firstlight.restore.reconstruct import ALGORITHMS

    return dict.fromkeys(ALGORITHMS, ENGINE) | {name: f"restore.{step}" for name, step in ITERATIVE.items()}


def _step(table: Mapping[str, Any]) -> tuple[tuple[Step, ...], list[str]]:
    name = table.get("algorithm", "fbp")
    use = algorithms().get(name) if isinstance(name, str) else None
    if use is None:
        return (), [f"algorithm {name!r}{near(str(name), algorithms())}"]
    params = {k: v for k, v in table.items() if k not in KEYS} | ({"algorithm": name} if use == ENGINE else {})
    own = [p.name for p in parameters(use) if p.name not in ("device", "workers")]
    faults = [f"unknown key {k!r} of {TABLE}{near(k, [*KEYS, *own])}" for k in params if k not in own]
    return (Step(use, {k: v for k, v in params.items() if k in own}),), faults


def options(recipe: Recipe) -> Options:
    """How the recipe says that it is to be run; raises RecipeError for what it cannot be."""
    found, faults = _options(recipe.reconstruction or {})
    if faults:
        raise RecipeError("\n".join(f"{recipe.name}: {f}" for f in faults))
    return found


def _options(table: Mapping[str, Any]) -> tuple[Options, list[str]]:
    faults = []
    devices, wrong = _devices(table.get("gpu_devices", []))
    faults += wrong
    rows = table.get("chunk_size")
    if rows is not None and (not isinstance(rows, int) or isinstance(rows, bool) or rows < 1):
        faults.append(f"chunk_size is {rows!r}, expected a number of detector rows from 1")
        rows = None
    dtype = table.get("dtype", "float32")
    if dtype not in TYPES:
        faults.append(f"dtype {dtype!r}{near(str(dtype), TYPES)}")
    named = table.get("output_format")
    if named is not None and (not isinstance(named, str) or named not in FORMATS):
        faults.append(f"output_format {named!r}{near(str(named), FORMATS)}")
    return Options(devices, rows, str(dtype), FORMATS.get(named) if isinstance(named, str) else None), faults


def _devices(value: Any) -> tuple[tuple[str, ...], list[str]]:
    """Names for the sections' threads: numbers are CUDA devices."""
    if not isinstance(value, list) or not all(isinstance(v, int | str) and not isinstance(v, bool) for v in value):
        return (), [f'gpu_devices is {value!r}, expected a list such as [0, 1], ["cpu", "cpu"], or [] for the processor']
    names = tuple(f"cuda:{v}" if isinstance(v, int) else v for v in value)
    faults = [fault for name in dict.fromkeys(names) if name != "cpu" and (fault := _absent(name))]
    return names, faults


def _absent(name: str) -> str | None:
    """Why a device cannot be used, None where it can."""
    from firstlight.operators.gridding_torch import device_of

    try:
        device_of(name)
    except FrameError as error:
        return f"gpu_devices: {error}; [] stands for the processor"
    return None
