"""The commands `firstlight manifest`, `patches`, `split` and `qc`: images and their patches as CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from firstlight.cli.options import Json, Out, Switch
from firstlight.terminal import emit, progress

__all__ = ["manifest"]

Count = Annotated[int | None, Parameter(negative="")]


def manifest(
    root: Path,
    *,
    out: Out,
    print_summary: Switch = False,
    sample: Count = None,
    seed: int = 0,
    json: Json = False,
) -> int:
    """A catalogue of the images below a folder as CSV: id, sha1, path, format, mode, size, telescope, band.

    Parameters
    ----------
    root
        A folder of images, or an images.csv to draw a sample from.
    out
        The CSV file to write.
    print_summary
        Also print how many images there are of each format, mode, size, telescope and band.
    sample
        Keep so many images, drawn at random.
    seed
        Of the sample.
    """
    from firstlight import dataset

    with progress(json) as tick:
        found = dataset.catalogue(root, tick=tick)
    if sample is not None:
        found = dataset.sampled(found, sample, seed)
    dataset.write_images(out, found.images)
    emit({"manifest": str(out), **found.to_dict()}, json, lambda: f"{out}: {found.text(print_summary)}")
    return 1 if found.unreadable else 0
