"""The commands of tile sets: `firstlight tiles build | verify | audit | unscale`; bare `tiles ROOT OUT` is build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from firstlight.cli.options import Json
from firstlight.terminal import emit, progress

__all__ = ["tiles"]

tiles = App(name="tiles", help="Training tiles from folders of raw files: build, verify, audit, unscale.")

Count = Annotated[int | None, Parameter(negative="")]


@tiles.default
@tiles.command
def build(
    root: Path,
    out: Path,
    *,
    max_files: Count = None,
    profile: Literal["physical", "documented", "document0"] = "physical",
    split: Literal["scene", "documented", "seeded", "sid"] = "scene",
    workers: int = 1,
    mapping: Path | None = None,
    store: Literal["npy", "pack"] = "npy",
    detector: str | None = None,
    unit: str | None = None,
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
        scene: all of a scene in one split; documented, seeded and sid are published rules.
    workers
        Threads; the output is the same for any number.
    mapping
        A TOML file that says which files are which scene.
    store
        npy: a file a tile; pack: memory-mapped packs with a Parquet index.
    detector
        A detector for files that name none.
    unit
        What the numbers are, where files do not say.
    page
        Also write a contact sheet and statistics, one HTML file.
    """
    from firstlight import dataset

    with progress(json) as tick:
        summary = dataset.build(
            root,
            out,
            layouts=mapping,
            profile=profile,
            split=split,
            max_files=max_files,
            workers=workers,
            store=store,
            detector=detector,
            unit=unit,
            tick=tick,
        )
        if page is not None:
            dataset.write_page(out, page)
    emit(summary.to_dict(), json, summary.text)
    return 0 if summary.ok else 1


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

    done = dataset.unscale_set(out, dest)
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
