"""`firstlight train METHOD DATA -o model.safetensors`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from firstlight.cli.options import Json, Out, Switch
from firstlight.terminal import emit, progress

__all__ = ["USUAL", "Run", "done", "train"]

Choice = Annotated[bool | None, Parameter(negative="--no-half")]


@dataclass(frozen=True, kw_only=True)
class Run:
    """How long a training goes on, where, and what it leaves behind: flags of every training.

    Parameters
    ----------
    start
        A model file to train further.
    budget
        60s, 10m or 2h of processor time (on a GPU of its time), 500 steps, or 3 epochs.
    patience
        End after so many validations without progress.
    min_delta
        The least progress that counts.
    validations
        How many, evenly over the budget.
    seed
        Of everything random.
    device
        cpu, cuda or cuda:1.
    half
        Compute in bfloat16; by default where the machine is faster so.
    resume
        Go on with a training that was interrupted.
    log
        A file of JSON lines, one a validation.
    preview
        A folder for a picture a validation: what is seen, the estimate, and the truth or the difference.
    licence
        The licence of the data, for the model's card.
    """

    start: Path | None = None
    budget: str = "60s"
    patience: int | None = None
    min_delta: float = 0.0
    validations: int = 10
    seed: int = 0
    device: str = "cpu"
    half: Choice = None
    resume: Switch = False
    log: Path | None = None
    preview: Path | None = None
    licence: str | None = None


USUAL = Run()


def train(
    method: Literal["n2v", "n2v2", "neighbour", "r2r", "n2n", "supervised", "masked-l2"],
    data: Path,
    *,
    out: Out,
    net: Literal["lean", "seed"] = "lean",
    width: int | None = None,
    batch: int = 8,
    patch: int = 64,
    rate: float = 2e-3,
    alpha: float = 1.0,
    share: float = 0.01,
    hole: int | None = None,
    prefilter: Literal["mean", "input", "zero"] = "mean",
    colour: Switch = False,
    detector: str | None = None,
    unit: str | None = None,
    ext: str | None = None,
    assume_white: Switch = False,
    widen: Switch = False,
    run: Annotated[Run, Parameter(name="*")] = USUAL,
    json: Json = False,
) -> int:
    """A denoiser learned from a file, a folder of images or a tile set; no clean image is needed but for supervised.

    Parameters
    ----------
    method
        r2r where the noise is known; n2v, n2v2 and neighbour where it is only known to be white; n2n from exposures of one
        scene; supervised from a tile set with clean tiles; masked-l2 is a published objective that does not denoise.
    data
        A file, a folder of images, or a tile set of `firstlight tiles`.
    out
        The model file to write, .safetensors. A checkpoint lies beside it until the training has ended.
    net
        lean: small and fast; seed: the U-Net of the documented astronomy pipeline.
    width
        Channels of the lean network's first level; by default 8 to 32, by how many noisy pixels there are to learn from.
    batch
        Patches a step.
    patch
        Side of a patch [px].
    rate
        Learning rate at the start of the cosine.
    alpha
        Of r2r: the added noise over the image's own.
    share
        Of n2v: the share of pixels masked.
    hole
        Of n2v and masked-l2: the width [px] hidden around a masked pixel, odd.
    prefilter
        What the network corrects: a local mean, the input, or nothing.
    colour
        Learn on all channels together.
    detector
        A detector file of `firstlight transfer`, or gain=2.1,read_noise=3,offset=100.
    unit
        What the numbers are, where the files do not say.
    ext
        One of several images in each file.
    assume_white
        Go on where neighbouring pixels' noise correlates.
    widen
        Where it correlates, hide 5 px around each masked pixel instead of refusing (n2v, n2v2).
    """
    from firstlight import train as training

    options = training.Options(
        net=net,
        width=width,
        batch=batch,
        patch=patch,
        rate=rate,
        alpha=alpha,
        share=share,
        hole=hole,
        prefilter=prefilter,
        colour=colour,
        detector=detector,
        unit=unit,
        ext=ext,
        assume_white=assume_white,
        widen=widen,
        **vars(run),
    )
    return done(["train", method, data.name], options, partial(training.train, method, data, out, options), json)


def done(words: list[str], options: Any, work: Callable[..., dict[str, Any]], json: bool) -> int:
    """Runs a training with its progress and the command that its card names, prints its figures; 130 where interrupted."""
    from firstlight import train as training

    command = shlex.join(["firstlight", *words, *training.changed(options)])
    try:
        with progress(json) as tick:
            row = work(tick=tick, command=command)
    except KeyboardInterrupt:
        sys.stderr.write("firstlight: interrupted; go on from the checkpoint with --resume\n")
        return 130
    emit(row, json, lambda: training.told(row))
    return 0
