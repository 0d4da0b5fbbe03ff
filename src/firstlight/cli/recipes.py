"""The commands that take recipes and scans: check, run, center."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from firstlight.cli.options import Inputs, Json, MaybeOut, Out, Switch, size
from firstlight.terminal import emit, lines, progress

__all__ = ["center", "check", "run"]

Sets = Annotated[list[str] | None, Parameter(name="--set", consume_multiple=True, negative="")]
Rows = Annotated[list[int] | None, Parameter(consume_multiple=True, negative="")]


def check(
    recipe: str,
    file: Path | None = None,
    *,
    input_: Inputs = None,
    set_: Sets = None,
    out: MaybeOut = None,
    memory: str = "4G",
    workers: int | None = None,
    json: Json = False,
) -> int:
    """Every problem of a recipe at once, the recipe as it would run, and of a scan the plan; nothing runs.

    Parameters
    ----------
    recipe
        A TOML file, or the name of a shipped recipe: photography, microscopy, astronomy, tomography.
    file
        An image to check it against.
    input_
        Files by the name that the recipe uses: NAME=FILE, such as dark=dark_1.fits dark=dark_2.fits.
    set_
        A parameter over the recipe's: STEP.PARAMETER=VALUE.
    out
        Where the output would go.
    memory
        Of a scan: memory that the run may use, such as 500M or 4G.
    workers
        Of a scan: threads that compute.
    """
    from firstlight import running

    scan = running.Scanning(size(memory), workers)
    found = running.check(recipe, file, input_ or [], overrides=set_ or [], scan=scan, out=out)

    def text() -> str:
        rest = [*(["", found.recipe.rstrip()] if found.recipe else []), *(["", *found.plan] if found.plan else [])]
        return lines([*(found.problems or ["no problems"]), *rest])

    emit({"problems": found.problems, "recipe": found.recipe, "plan": found.plan}, json, text)
    return 1 if found.problems else 0


def run(
    recipe: str,
    file: Path,
    *,
    out: Out,
    detector: str | None = None,
    set_: Sets = None,
    input_: Inputs = None,
    memory: str = "4G",
    workers: int | None = None,
    save_projections: Path | None = None,
    codec: str | None = None,
    anew: Switch = False,
    json: Json = False,
) -> int:
    """Run a recipe on a file; a scan in sections of detector rows, going on where an earlier run of the same stopped.

    Parameters
    ----------
    recipe
        A TOML file, or the name of a shipped recipe: photography, microscopy, astronomy, tomography.
    file
        The image, or the scan.
    out
        Output file, or folder. Of a scan: a .zarr, .h5 or .tif, or recon_#####.tif for one file a slice.
    detector
        A detector file of `firstlight transfer`, or gain=2.1,read_noise=3,offset=100.
    set_
        A parameter over the recipe's: STEP.PARAMETER=VALUE, such as restore.nonlocal_means.strength=0.8.
    input_
        Files by the name that the recipe uses: NAME=FILE, such as dark=dark_1.fits dark=dark_2.fits.
    memory
        Of a scan: memory that the run may use, such as 500M or 4G.
    workers
        Of a scan: threads that compute; one for each processor by default.
    save_projections
        Of a scan: also write what enters the last step, as a Data Exchange .h5.
    codec
        Of a scan: bitshuffle-lz4 (default), zstd, gzip or none; .h5 also lz4.
    anew
        Of a scan: remove an unfinished output of another recipe, input or option first.
    """
    from firstlight import running

    scan = running.Scanning(size(memory), workers, save_projections, codec, anew)

    def say(line: str) -> None:
        if not json:
            print(line, flush=True)  # noqa: T201

    pairs: dict[str, Any] = {"detector": detector, "overrides": set_ or [], "inputs": input_ or []}
    with progress(json) as tick:
        row = running.run(recipe, file, out, **pairs, scan=scan, tick=tick, say=say)
    emit(row, json, lambda: row["summary"] if "plan" in row else f"{row['input']} -> {row['output']}  {row['summary']}")
    return 0


def center(
    file: Path,
    *,
    try_: Annotated[bool, Parameter(name="--try", negative="")] = False,
    method: str = "auto",
    rows: Rows = None,
    guess: float | None = None,
    width: float | None = None,
    out: MaybeOut = None,
    detector: str | None = None,
    json: Json = False,
) -> int:
    """The rotation axis of a scan, its confidence, and how the methods agree; exit code 1 where it cannot be told.

    Parameters
    ----------
    file
        A scan: raw with white and dark fields, transmission, or optical depth.
    try_
        Also write a sheet of nine slices around the axis, each with its centre and its unsharpness.
    method
        auto, wedge, phase, vo or sharpness.
    rows
        Detector rows to look at; 32 spread over the scan by default.
    guess
        Search around this column only.
    width
        Search within this many columns of the guess; of a sheet: how far it goes.
    out
        The sheet: NAME_center.png by default, in the folder at hand.
    detector
        A detector file of `firstlight transfer`, or gain=2.1,read_noise=3,offset=100.
    """
    from firstlight import outputs, running

    sheet = out or (Path(f"{outputs.stem(file)}_center.png") if try_ else None)
    options: dict[str, Any] = {"method": method, "guess": guess, "width": width} | ({"rows": rows} if rows else {})
    found = running.center(file, sheet=sheet, detector=detector, **options)
    emit(found.to_dict(), json, found.text)
    if found.refused:
        sys.stderr.write(f"firstlight: {found.refused}\n")
    return 1 if found.refused else 0
