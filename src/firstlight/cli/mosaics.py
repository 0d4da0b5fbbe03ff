"""Learning to demosaic: `mosaic-dataset build`, `torture`, `sharpness`, `train demosaic`, `compare`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from firstlight.cli.options import Json, Out, Switch
from firstlight.cli.train import USUAL, Run, done, train
from firstlight.errors import FrameError
from firstlight.terminal import emit, emit_rows, lines, progress

__all__ = ["compare", "dataset", "sharpness", "torture", "training"]

Many = Annotated[list[int] | None, Parameter(consume_multiple=True, negative="")]
Mix = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]

dataset = App(name="mosaic-dataset", help="Linear colour pictures from raw files, to learn demosaicking from: build.")
training = App(name="train", help="A network learned from images: a denoiser, or (train demosaic) a demosaicker.")
training.default(train)


@dataset.command
def build(
    *paths: str,
    shrink: int = 4,
    method: Literal["average", "superpixel"] = "average",
    patches: int | None = None,
    full_size: Switch = False,
    jpeg: Switch = False,
    profile: Literal["physical", "documented"] = "physical",
    json: Json = False,
) -> int:
    """Linear pictures of raw files: black level off once, white-balanced, not clipped, shrunk; run again, it goes on.

    Parameters
    ----------
    paths
        RAWS OUT: raw files, folders of them, lists of `sharpness --top`, or HOST:PATH, which the user's scp fetches, one at a
        time where it names a file; last the folder for NAME.npy (Y, X, 3) float32 and NAME_meta.json.
    shrink
        How many times.
    method
        average: demosaicked, then averaged over squares; superpixel: means of each colour's samples in them.
    patches
        Cut pictures into patches of so many px: (N, P, P, 3).
    full_size
        Keep the raw files themselves, for learning at full size.
    jpeg
        Keep the camera's JPEG with each: the file beside it, or the one inside.
    profile
        physical; documented is the published pipeline's teacher, with a warning of what is wrong.
    """
    from firstlight.dataset import Making, build_mosaics

    if len(paths) < 2:
        raise FrameError(f"mosaic-dataset build: got {list(paths)}, expected RAWS and OUT: raw files, then the folder to write")
    making = Making(shrink, method, profile, patches, full_size, jpeg)
    with progress(json) as tick:
        rows = build_mosaics(paths[:-1], Path(paths[-1]), making, tick)
    return emit_rows(rows, json)


def torture(
    out: Path,
    *,
    count: int = 5000,
    seed: int = 0,
    side: int = 128,
    cfa: Literal["xtrans", "bayer"] = "xtrans",
    json: Json = False,
) -> int:
    """Pictures that demosaicking finds hard, thirteen kinds, as one .npz: rgb, cfa, kind.

    Parameters
    ----------
    out
        The file to write, .npz.
    count
        How many.
    seed
        Of everything random; a longer set begins with a shorter one of its seed.
    side
        Of a picture [px].
    cfa
        The pattern of the mosaic.
    """
    from firstlight.dataset import write_torture
    from firstlight.geometry import BAYER, XTRANS

    with progress(json) as tick:
        row = write_torture(out, count=count, seed=seed, side=side, pattern=BAYER if cfa == "bayer" else XTRANS, tick=tick)
    emit(row, json, lambda: f"{row['output']}: {count} pictures of {side} px, {len(row['kinds'])} kinds")
    return 0


def sharpness(folder: Path, *, out: Out, top: Many = None, json: Json = False) -> int:
    """A table of how sharp raw files and pictures are: the variance of the Laplacian; unchanged files are not read again.

    Parameters
    ----------
    folder
        Raw files and pictures, in folders below it too.
    out
        The table: .csv, .sqlite, or .json: {"folder/filename": score}, with the table as .csv beside it.
    top
        For each number, a list of the whole paths of so many sharpest: NAME_topN.txt, beside a .json NAME_topN.json.
    """
    from firstlight.dataset import sharpness as scored

    with progress(json) as tick:
        rows = scored(folder, out, top=top or [], tick=tick)
    return emit_rows(rows, json)


@training.command
def demosaic(
    data: Path,
    *,
    out: Out,
    net: Literal["packed", "unet"] = "packed",
    cfa: Literal["xtrans", "bayer"] = "xtrans",
    width: int | None = None,
    depth: int = 8,
    mix: Mix = None,
    profile: Literal["physical", "documented"] = "physical",
    shrink: Many = None,
    noisy: float = 0.5,
    batch: int = 12,
    patch: int = 96,
    rate: float = 6e-4,
    run: Annotated[Run, Parameter(name="*")] = USUAL,
    json: Json = False,
) -> int:
    """A demosaicker learned from linear pictures (mosaic-dataset, .npy), JPEG or PNG files (linearised), or a torture set.

    Parameters
    ----------
    data
        A folder of pictures, or a file; a tenth is held out.
    out
        The model file to write, .safetensors. A checkpoint lies beside it until the training has ended.
    net
        packed: a correction to the linear estimate, for every noise level; unet: the published pipeline's U-Net.
    cfa
        The pattern that it learns.
    width
        Channels of the first level: 64.
    depth
        Blocks of the packed network.
    mix
        PATH:SHARE, pictures to mix in: torture.npz:0.1 makes a tenth of the patches torture; PATH alone is a tenth too.
    profile
        documented: linear light without white balance, as published, with a warning.
    shrink
        Sizes to learn at, 1 being the picture's own: with 2 3 4 JPEG files lose their blocks.
    noisy
        Share of steps with noise (packed).
    batch
        Patches a step.
    patch
        Side of a patch [px].
    rate
        Learning rate at the start of the cosine.
    """
    from firstlight import train as training

    options = training.Learning(
        net=net,
        cfa=cfa,
        width=width,
        depth=depth,
        mix=tuple(mix or ()),
        profile=profile,
        shrink=tuple(shrink or (1,)),
        noisy=noisy,
        batch=batch,
        patch=patch,
        rate=rate,
        **vars(run),
    )
    return done(["train", "demosaic", data.name], options, partial(training.learn_demosaic, data, out, options), json)


def compare(
    checkpoints: Annotated[list[Path], Parameter(consume_multiple=True, negative="")],
    *,
    images: Annotated[list[Path], Parameter(consume_multiple=True, negative="")],
    out: Out,
    side: int = 256,
    json: Json = False,
) -> int:
    """Demosaickers side by side: a picture an image (bilinear, lmmse, each checkpoint, the truth) and a table.

    Parameters
    ----------
    checkpoints
        Model files of one pattern.
    images
        Pictures, which are sampled by that pattern, or raw files of it.
    out
        Folder for NAME.png and table.tsv.
    side
        Px of the middle that is shown.
    """
    from firstlight.evaluation.demosaickers import compare_demosaickers

    with progress(json) as tick:
        rows = compare_demosaickers(checkpoints, images, out, side=side, tick=tick)
    told = [
        f"{r['image']:<24} {r['method']:<24} {'-' if r['psnr'] is None else format(r['psnr'], '.2f') + ' dB'}" for r in rows
    ]
    emit(rows, json, lambda: lines(told))
    return 0
