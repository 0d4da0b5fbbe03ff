"""Restoring files: a method, blocks within the memory stated, the self-check, and the line of history that tells of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from warnings import warn

import numpy as np

from firstlight import calibrate as cal
from firstlight import intake, io, measure, outputs, scale
from firstlight import restore as res
from firstlight.box import Box
from firstlight.errors import FrameError, ModelError
from firstlight.facts import flagged
from firstlight.frame import Frame, Record, Unit
from firstlight.geometry import Mosaic

if TYPE_CHECKING:
    from firstlight.model_file import Model

__all__ = ["METHODS", "Outcome", "Restoration", "restore", "restored"]

Tick = Callable[[int, int, str], None]
METHODS = ("network", "means")
UNIVERSAL = "universal"
NETWORK_BYTES = 150  # a pixel read, the peak of a network in float32 with its standard error
CHECK_BYTES = 256  # a pixel that the self-check looks at, kept until it is done
SAMPLING = 1 << 28  # bytes: the network's tiles while it draws samples
SAMPLED_PLANE = 80  # bytes a pixel of one plane besides, the samples apart


@dataclass(frozen=True)
class Restoration:
    """Options of `restore`, as the CLI's flags; memory in bytes.

    method None: means on mosaics and where strength is given, else network.
    """

    detector: str | None = None
    unit: str | None = None
    ext: str | None = None
    strength: float | None = None
    std: bool = False
    to: str | None = None
    memory: int = scale.MEMORY
    assume_white: bool = False
    resume: bool = False
    model: str | None = None
    method: Literal["network", "means"] | None = None
    samples: int | None = None
    seed: int = 0
    finetune: str | None = None
    keep_model: Path | None = None
    ensemble: bool = False


class Outcome(NamedTuple):
    """frame: what was written, without its data; check: the self-check; note: what the fine-tuning came to."""

    frame: Frame
    check: measure.Residual
    note: str | None = None


def restore(files: Sequence[Path], out: Path, options: Restoration, tick: Tick) -> list[dict[str, Any]]:
    """Restore files into `out`, block by block; returns one row per file: input, output, unit, noise, check, summary.

    A self-check that fails is a warning and `check["passed"]` False; the output stays. Errors as in `outputs.each`.
    """

    def one(path: Path, goal: Path) -> dict[str, Any]:
        if options.resume and goal.exists():
            return {"input": str(path), "output": str(goal), "skipped": True, "summary": "is there already"}
        if other is not None:
            tick(files.index(path), len(files), path.name)
            with outputs.placed(goal, out):
                return _pictured(path, goal, other, options)
        found = intake.load(path, detector=options.detector, unit=options.unit, ext=options.ext)
        if not options.assume_white:
            intake.check_white(found.frame)
        with outputs.placed(goal, out):
            done = restored(intake.hashed(found.frame, path), goal, options, partial(_named, tick, path.name))
        if done.check.problems:
            warn(f"{path}: the self-check failed: {'; '.join(done.check.problems)}", UserWarning, stacklevel=2)
        return _row(path, goal, found, done, _others(path, options.ext))

    _agree(options, files)
    other = _other(options)
    goals = outputs.targets(files, out, options.to)
    outputs.spare([*goals, *([options.keep_model] if options.keep_model else [])], files)
    return outputs.each(files, goals, one)


def _other(options: Restoration) -> Model | None:
    """The model where it is none of stabilised planes of one channel: it takes whole images and gives their mean alone."""
    if options.model in (None, UNIVERSAL):
        return None
    from firstlight import model_file

    model = model_file.load(str(options.model))
    domain = model.scaling["domain"]
    if (domain, model.axes, model.channels) == ("stabilised", "YX", 1):
        return None
    if options.std or options.ensemble or options.samples is not None or options.finetune is not None:
        raise ModelError(
            f"{options.model}: a model of {model.channels} channels, axes {model.axes}, domain {domain}, gives no --std, "
            "--ensemble or --samples and takes no --finetune; those are for stabilised planes of one channel"
        )
    return model


def _pictured(path: Path, goal: Path, model: Model, options: Restoration) -> dict[str, Any]:
    from firstlight.evaluation.images import Given, Parent
    from firstlight.evaluation.whole import whole

    given = Given(options.detector, options.unit, options.ext, assume_white=options.assume_white)
    return whole(Parent(outputs.stem(path), path), model, goal, given=given, memory=options.memory)


def _row(path: Path, goal: Path, found: intake.Intake, done: Outcome, kept: list[str]) -> dict[str, Any]:
    unit, check = str(found.frame.unit), done.check
    lines = [f"[{unit}] noise from {found.source}" + (f"; unchanged: {', '.join(kept)}" if kept else "")]
    lines += [f"  fine-tuning: {done.note}"] if done.note else []
    figures = {k: getattr(check, k) for k in ("ratio", "chi2", "chi2_expected", "lag1_y", "lag1_x", "flux", "flux_error")}
    bins = [{"low": b.low, "high": b.high, "n": b.n, "ratio": b.ratio} for b in check.by_signal]
    told = {"passed": False if check.problems else check.passed, "problems": list(check.problems), **figures, "by_signal": bins}
    row = {"input": str(path), "output": str(goal), "unit": unit, "noise": found.source, "kept": kept, "check": told}
    summary = "\n".join([*lines, f"  self-check {check.line()}"])
    return row | ({"finetuned": done.note} if done.note else {}) | {"summary": summary}


def _agree(options: Restoration, files: Sequence[Path]) -> None:
    """Raises FrameError or ModelError for options that say two things at once, before any work is done."""
    means = options.method == "means" or (options.method is None and options.strength is not None)
    learned = {"--model": options.model, "--samples": options.samples, "--finetune": options.finetune}
    given = [k for k, v in learned.items() if v is not None]
    if means and given:
        raise FrameError(f"restore: {given[0]} is for networks, --method means and --strength are not; leave out one of them")
    if options.method == "network" and options.strength is not None:
        raise FrameError("restore: --strength is for --method means, a network has none; leave out one of them")
    if options.ensemble and (means or options.samples is not None):
        raise FrameError("restore: --ensemble is of the network's estimate, not of --method means, --strength or --samples")
    if options.samples is not None and (options.samples < 1 or options.std):
        raise FrameError("restore: --samples takes a number from 1, and no --std: the spread of the samples is the error")
    if options.keep_model is not None and (options.finetune is None or len(files) > 1):
        raise FrameError("restore: --keep-model is for one file with --finetune")
    if options.keep_model is not None and options.keep_model.suffix != ".safetensors":
        raise ModelError(f"{options.keep_model}: a model file ends in .safetensors; name it so")


def _others(path: Path, ext: str | None) -> list[str]:
    """Names of the images in a file beside the one that is restored: they are copied as they are."""
    names = list(io.read_set(path))
    chosen = ext if ext in names else names[0]
    return [n for n in names if n != chosen]


def _named(tick: Tick, name: str, done: int, total: int, what: str) -> None:
    tick(done, total, f"{name}{what}")


class _Method(NamedTuple):
    """step(block, std), made ready for it by `ready`; how far it reaches, in blocks of so much memory; how it was tuned; std:
    whether it gives standard errors.
    """

    step: Callable[..., Frame]
    ready: Callable[[Frame], Frame]
    reach: Mapping[str, int]
    memory: int
    found: Mapping[str, Any]
    note: str | None
    model: str | Model | None
    std: bool = True


def restored(frame: Frame, goal: Path, options: Restoration, tick: Tick = lambda done, total, what: None) -> Outcome:
    """Restore one frame into the file `goal` within the memory stated, checked before it is written."""
    frame = flagged(frame)
    method = _method(frame, options, tick)
    if options.samples is not None:
        return _sampled(frame, goal, options, method)
    if prod(frame.shape) <= _looked_at(options):
        whole = _whole(frame, method, tick)
        check = measure.judged([(method.ready(frame), whole)])
        like = _said(whole, check, method)
        io.write(like if options.std else like.replace(std=None), goal)
        return Outcome(like.replace(std=None), check, method.note)
    check = measure.judged(_looks(frame, options, method, tick))
    like = _said(_like(frame, method), check, method)
    with io.create(goal, like, dtype=np.float32, std=options.std) as writer:
        _map(frame, method, writer, options.std, tick)
    return Outcome(like, check, method.note)


def _looked_at(options: Restoration) -> int:
    """Pixels that the self-check looks at: all of a frame that has no more, else blocks spread over it."""
    return min(measure.LIMIT, options.memory // CHECK_BYTES)


def _map(frame: Frame, method: _Method, sink: scale.Sink, std: bool, tick: Tick) -> None:
    def step(block: Frame) -> Frame:
        return method.step(method.ready(block), std=std)

    scale.map_blocks(step, frame, sink, tick=lambda done, total: tick(done, total, ""), memory=method.memory, **method.reach)


def _like(frame: Frame, method: _Method) -> Frame:
    """The frame that restoring gives, its data not yet: noise, unit and history."""
    corner = Box((0,) * len(frame.shape), tuple(min(n, 32) for n in frame.shape))
    like = method.step(method.ready(frame.crop(corner)), std=False)
    return frame.replace(noise=like.noise, unit=like.unit, history=like.history, std=None)


class _Kept:
    """What blocks put, whole, in memory."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.data, self.std = (np.empty(shape, np.float32) for _ in range(2))

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        self.data[box.slices] = block
        if std is not None:
            self.std[box.slices] = std


def _whole(frame: Frame, method: _Method, tick: Tick) -> Frame:
    kept = _Kept(frame.shape)
    _map(frame, method, kept, method.std, tick)
    return _like(frame, method).replace(data=kept.data, std=kept.std if method.std else None)


def _looks(frame: Frame, options: Restoration, method: _Method, tick: Tick) -> list[tuple[Frame, Frame]]:
    """Blocks spread over the frame, each with what it is restored to."""
    places = measure.boxes(frame.shape, _looked_at(options))
    pairs = []
    for i, box in enumerate(places):
        tick(i, len(places), ": self-check")
        read = scale.around(frame, box, **method.reach)
        block = method.ready(frame.crop(read))
        block = block.replace(data=np.asarray(block.data))
        inside = box.within(read)
        pairs.append((block.crop(inside), method.step(block, std=method.std).crop(inside)))
    return pairs


def _said(like: Frame, check: measure.Residual, method: _Method) -> Frame:
    """The frame with what was found in the last line of its history."""
    last = like.history[-1]
    found = {**last.params, **method.found, "check": check.line()}
    return like.replace(history=(*like.history[:-1], Record(last.step, found, last.inputs)))


def _sampled(frame: Frame, goal: Path, options: Restoration, method: _Method) -> Outcome:
    """Posterior samples: whole planes at once, since neighbours far apart share what is drawn."""
    n = options.samples or 1
    need = SAMPLING + 4 * n * prod(frame.shape) + SAMPLED_PLANE * prod(frame.shape[-2:])
    if need > options.memory:
        raise FrameError(
            f"{n} samples of {frame.shape} need {need >> 20} MiB, --memory gives {options.memory >> 20}; give more, ask for "
            "fewer samples or restore a part of the frame"
        )
    check = measure.judged(_looks(frame, options, method, lambda done, total, what: None))
    drawn = res.samples(method.ready(frame), n=n, seed=options.seed, model=method.model)
    like = _said(drawn, check, method)
    io.write(like, goal)
    return Outcome(like, check, method.note)


def _method(frame: Frame, options: Restoration, tick: Tick) -> _Method:
    flag = frame.observation.saturation is not None and frame.unit is Unit.ADU and frame.flags is None
    ready = cal.flag_saturated if flag else _as_it_is
    if _by_means(frame, options):
        params: dict[str, Any] = {} if options.strength is None else {"strength": options.strength}
        step = partial(res.nonlocal_means, **params)
        return _Method(step, ready, {"halo": res.halo(frame)}, options.memory, {}, None, None)
    from firstlight.restore import learned

    named = None if options.model in (None, UNIVERSAL) else options.model
    tuned = _Tuned(named) if options.finetune is None else _tuned(ready(frame), named, options, tick)
    reach = {"halo": learned.halo(frame, model=tuned.model), "multiple": learned.multiple(frame, model=tuned.model)}
    memory = options.memory * scale.BYTES_PER_PIXEL // NETWORK_BYTES
    step = partial(res.denoise, model=tuned.model, ensemble=options.ensemble)
    std = options.std or learned.gives_std(tuned.model)
    return _Method(step, ready, reach, memory, tuned.found, tuned.note, tuned.model, std)


def _by_means(frame: Frame, options: Restoration) -> bool:
    """Non-local means or not: where asked for; by default on mosaics, whose colours a network sees apart and thinned out."""
    if options.method is not None:
        return options.method == "means"
    learned = options.ensemble or any(v is not None for v in (options.model, options.samples, options.finetune))
    return options.strength is not None or (isinstance(frame.geometry, Mosaic) and not learned)


def _as_it_is(frame: Frame) -> Frame:
    return frame


@dataclass(frozen=True, eq=False)
class _Tuned:
    model: str | Model | None
    found: Mapping[str, Any] = field(default_factory=dict)
    note: str | None = None


def _tuned(frame: Frame, named: str | None, options: Restoration, tick: Tick) -> _Tuned:
    """The model adapted to the frame, or the same one where held-out pixels do not say that it is better."""
    from firstlight import model_file
    from firstlight.train import finetune

    start = model_file.load(model_file.shipped() if named is None else named)
    told: dict[str, Any] = {}
    model = finetune(
        frame,
        start,
        budget=options.finetune or "60s",
        seed=options.seed,
        assume_white=options.assume_white,
        tick=lambda done, total, what: tick(done, total, f": fine-tuning {what}"),
        say=told.update,
    )
    kept = model is not start
    which = "the fine-tuned model was kept" if kept else "the original model was kept"
    note = f"{which}: held-out risk {told['risk_before']:.4f} before, {told['risk_after']:.4f} after, +- {told['error']:.4f}"
    found = {"finetune": options.finetune, "finetuned": note}
    if options.keep_model is not None:
        model_file.save(model, options.keep_model)
        found["kept_model"] = str(options.keep_model)
    return _Tuned(model if kept else named, found, note)
