"""The commands `firstlight manifest`, `patches`, `split` and `qc`: images and their patches as CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from firstlight.cli.options import Json, Out, Switch
from firstlight.terminal import emit, progress

__all__ = ["manifest", "patches", "qc", "split"]

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
    from firstlight import dataset, outputs

    with progress(json) as tick:
        found = dataset.catalogue(root, tick=tick)
    outputs.spare([out], [root, *(Path(i.path) for i in found.images)])
    if sample is not None:
        found = dataset.sampled(found, sample, seed)
    dataset.write_images(out, found.images)
    emit({"manifest": str(out), **found.to_dict()}, json, lambda: f"{out}: {found.text(print_summary)}")
    return 1 if found.unreadable else 0


def patches(
    images: Path,
    *,
    out: Out,
    manifest: Path,
    tile: int = 512,
    stride: int = 256,
    low: float = 1.0,
    high: float = 99.5,
    dtype: Literal["float16", "float32"] | None = None,
    profile: Literal["physical", "documented"] = "physical",
    detector: str | None = None,
    unit: str | None = None,
    json: Json = False,
) -> int:
    """Overlapping patches of the images in a catalogue, normalised so that it can be undone; goes on where it stopped.

    Parameters
    ----------
    images
        The CSV file of `firstlight manifest`.
    out
        Folder for the patches, NumPy files.
    manifest
        The CSV file of the patches to write.
    tile
        Side of a patch [px].
    stride
        From one patch to the next [px]; the last ones end at the border.
    low
        Percentile of an image that becomes 0.
    high
        Percentile of an image that becomes 1; what lies beyond is kept.
    dtype
        float32, or to save space float16; documented: float16.
    profile
        physical: one scaling an image, nothing clipped. documented: the published pipeline's, percentiles of each patch and
        values clipped to 0..1, with a warning.
    detector
        A detector file of `firstlight transfer`, or gain=2.1,read_noise=3,offset=100.
    unit
        What the numbers are, where the files do not say ("adu" for pictures that hold raw counts).
    """
    from firstlight import dataset, outputs

    outputs.spare([manifest], [images])
    options = dataset.Patching(tile, stride, low, high, dtype, profile, detector, unit)
    with progress(json) as tick:
        done = dataset.cut_patches(images, out, manifest, options, tick=tick)
    emit({"manifest": str(manifest), **done.to_dict()}, json, lambda: f"{manifest}: {done.text()}")
    return 1 if done.unusable else 0


def split(
    *,
    images: Path,
    patches: Path,
    out_json: Path,
    out_patches: Path,
    train: float = 0.7,
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 42,
    profile: Literal["physical", "documented"] = "physical",
    scene: str | None = None,
    by_name: Switch = False,
    json: Json = False,
) -> int:
    """Images, and with them their patches, to train, validation and test; all files of one scene together.

    Parameters
    ----------
    images
        The CSV file of `firstlight manifest`.
    patches
        The CSV file of `firstlight patches`.
    out_json
        The JSON file to write: the ids of each split.
    out_patches
        The CSV file to write: the patches with their split.
    train
        Share of the images.
    val
        Share of the images.
    test
        Share of the images.
    seed
        Of the shuffle.
    profile
        physical: scenes stay whole, found by name and by content. documented: the published pipeline's, image by image, with
        a warning.
    scene
        A regular expression with a group named scene, searched in each path, or a mapping file.
    by_name
        Do not look at the pixels for files that show one scene.
    """
    from firstlight import dataset, outputs

    outputs.spare([out_json, out_patches], [images, patches])
    outputs.apart(out_json, out_patches)
    with progress(json) as tick:
        done = dataset.split_patches(
            images,
            patches,
            out_json,
            out_patches,
            dataset.Shares(train, val, test),
            seed=seed,
            profile=profile,
            scene=scene,
            look=not by_name,
            tick=tick,
        )
    emit(
        {"splits": str(out_json), "patches_csv": str(out_patches), **done.to_dict()},
        json,
        lambda: f"{out_patches}: {done.text()}",
    )
    return 0


def qc(
    *,
    patches: Path,
    splits: Path,
    content: int = 512,
    loader: Switch = False,
    batch: int = 8,
    batches: int = 20,
    workers: int = 0,
    seed: int = 0,
    json: Json = False,
) -> int:
    """Quality control: files, shapes, values, scalings, coverage, and that no image or its copy is in two splits.

    Parameters
    ----------
    patches
        The CSV file of patches that `firstlight split` wrote.
    splits
        The JSON file that it wrote.
    content
        So many patches are compared by content across splits; 0 for none.
    loader
        Instead read batches as training does: shapes, types, ranges and patches a second, for each split.
    batch
        Of --loader: patches a batch.
    batches
        Of --loader: batches a split, at most.
    workers
        Of --loader: processes that read; 0 reads in this one.
    seed
        Of --loader: of order and augmentation.
    """
    if loader:
        from firstlight.train.loader import check_loader

        read = check_loader(patches, splits, batch=batch, batches=batches, workers=workers, seed=seed)
        emit(read.to_dict(), json, read.text)
        return 0 if read.passed else 1
    from firstlight import dataset

    with progress(json) as tick:
        found = dataset.qc(patches, splits, content=content, tick=tick)
    emit(found.to_dict(), json, found.text)
    return 0 if found.passed else 1
