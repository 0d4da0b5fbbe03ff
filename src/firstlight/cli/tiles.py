"""The commands of tile sets: `firstlight tiles build | verify | audit | unscale | page`; bare `tiles ROOT OUT` is build."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from firstlight.cli.options import Json
from firstlight.errors import FrameError
from firstlight.terminal import emit, progress

__all__ = ["tiles"]

tiles = App(name="tiles", help="Training tiles from folders of raw files: build, verify, audit, unscale, page.")

Count = Annotated[int | None, Parameter(negative="")]
Choices = Annotated[list[str] | None, Parameter(negative="")]


@tiles.default
@tiles.command
def build(
    root: Path,
    out: Path,
    *,
    max_files: Count = None,
    profile: Literal["physical", "documented", "document0"] = "physical",
    split: Literal["scene", "documented", "seeded", "sid"] | None = None,
    workers: int = 1,
    mapping: Path | None = None,
    store: Literal["npy", "pack"] = "npy",
    detector: Choices = None,
    unit: Choices = None,
    page: Path | None = None,
    json: Json = False,
) -> int:
    """Tiles, metadata and splits of a folder; run again, it goes on where it stopped.

    Parameters
    ----------
    root
        Folder with SID/, microscopy/, astronomy/, or any files that --mapping describes.
    out
        Folder of the tile set.
    max_files
        So many files a domain.
    profile
        physical; documented and document0 are the published pipeline's numbers, with a warning of what is wrong.
    split
        scene: all of a scene in one split; documented, seeded and sid are published rules. Where it is left out: scene,
        or for profile documented and document0 documented.
    workers
        Threads; the output is the same for any number.
    mapping
        A TOML file that says which files are which scene.
    store
        npy: a file a tile; pack: memory-mapped packs with a Parquet index.
    detector
        A detector for files that name none: of `firstlight transfer`, or gain=2.1,read_noise=3,offset=100. For one domain
        or one layout alone: microscopy:gain=2.1,read_noise=3,offset=100; again for another.
    unit
        What the numbers are, where files do not say; for one domain or layout alone: microscopy:adu.
    page
        Also write a contact sheet and statistics, one HTML file.
    """
    from firstlight import dataset

    # the summary holds the warnings, each once
    with progress(json) as tick, warnings.catch_warnings(action="ignore", category=UserWarning):
        summary = dataset.build(
            root,
            out,
            layouts=mapping,
            profile=profile,
            split=split,
            max_files=max_files,
            workers=workers,
            store=store,
            detector=_choice("detector", detector),
            unit=_choice("unit", unit),
            tick=tick,
        )
        if page is not None:
            dataset.write_page(out, page)
    emit(summary.to_dict(), json, summary.text)
    return 0 if summary.ok else 1


def _choice(option: str, texts: list[str] | None) -> str | dict[str, str] | None:
    """One text for all files, or NAME:TEXT for those of a domain or layout."""
    if not texts:
        return None
    named = [re.fullmatch(r"([A-Za-z][^:=/\\]+):([^/\\].*)", text) for text in texts]
    if len(texts) == 1 and named[0] is None:
        return texts[0]
    if bad := [text for text, found in zip(texts, named, strict=True) if found is None]:
        raise FrameError(
            f"--{option} {bad[0]}: given {len(texts)} times, expected NAME:VALUE each, such as microscopy:{bad[0]}"
        )
    return {found[1]: found[2] for found in named if found}


@tiles.command
def verify(out: Path, *, every: Annotated[bool, Parameter(negative="")] = False, json: Json = False) -> int:
    """Every row has its tile, every tile its row, values are what rows say, and nothing leaks between splits.

    Parameters
    ----------
    out
        A tile set.
    every
        Look at the values of every tile, not of a sample.
    """
    from firstlight import dataset

    with progress(json) as tick:
        checks = dataset.verify(out, sample=None, tick=tick) if every else dataset.verify(out, tick=tick)
    emit(checks.to_dict(), json, checks.text)
    return 0 if checks.passed else 1


@tiles.command
def audit(folder: Path, *, scene: str | None = None, splits: str | None = None, json: Json = False) -> int:
    """Leakage between splits: scenes, copies, near-duplicates, overlaps, and labels that the data contradict.

    Parameters
    ----------
    folder
        A tile set, or any folder of images.
    scene
        Of a folder: a regular expression with a group named scene, or a mapping file.
    splits
        Of a folder: a CSV or JSON file of path and split; subfolders named train, validation and test otherwise.
    """
    from firstlight import dataset

    with progress(json) as tick:
        found = dataset.audit(folder, scene=scene, splits=splits, tick=tick)
    emit(found.to_dict(), json, found.text)
    return 0 if found.passed else 1


@tiles.command
def unscale(out: Path, dest: Path, *, json: Json = False) -> int:
    """The tile set in electrons: the scaling stored with each tile undone, within 2 ulp.

    Parameters
    ----------
    out
        A tile set.
    dest
        A new folder.
    """
    from firstlight import dataset

    with progress(json) as tick:
        done = dataset.unscale_set(out, dest, tick=tick)
    emit(done, json, lambda: f"{dest}: {done['tiles']} tiles in electrons")
    return 0


@tiles.command
def page(out: Path, html: Path, *, json: Json = False) -> int:
    """A contact sheet and statistics of a tile set, one HTML file.

    Parameters
    ----------
    out
        A tile set.
    html
        The file to write.
    """
    from firstlight import dataset

    dataset.write_page(out, html)
    emit({"page": str(html)}, json, lambda: f"{html}")
    return 0
