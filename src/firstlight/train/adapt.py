"""A model adapted to one very file, self-supervised, and kept only where held-out pixels say that it is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from firstlight import intake
from firstlight.errors import FrameError, ModelError
from firstlight.frame import Frame
from firstlight.model_file import Model
from firstlight.train.batches import Batch, Batches
from firstlight.train.budget import Budget
from firstlight.train.budget import budget as parsed
from firstlight.train.loop import fit
from firstlight.train.objectives import r2r
from firstlight.train.sources import frames
from firstlight.train.validation import difference, r2r_risk

__all__ = ["finetune"]

HELD, COUNT = 0.2, 128  # share of cells held out, and how many at most: half choose the step, half judge it
CELLS = 10  # of a plane, at least
JUDGED = 0.2  # a: the network is judged at noise of variance 1 + a^2, nearly that of its use


def finetune(
    frame: Frame,
    model: Model,
    *,
    budget: str | float | Budget = "60s",
    alpha: float = 0.5,
    rate: float = 4e-4,
    batch: int = 8,
    patch: int = 64,
    validations: int = 10,
    seed: int = 0,
    device: str = "cpu",
    assume_white: bool = False,
    tick: Callable[[int, int, str], None] | None = None,
    say: Callable[[dict[str, Any]], None] | None = None,
) -> Model:
    """The model trained further on the frame itself by r2r, where that lowers its held-out risk; else `model`, the same object.

    budget: seconds of processor or GPU time, or "500 steps". A fifth of the frame is never learned from: half of it chooses
    among the states of the training, the other half judges: the new model must be better by more than its standard error.
    The card tells both risks [variances of the noise], and `say` is told them whichever is kept. Raises FrameError where noise
    is unmodelled or neighbouring pixels correlate (unless assume_white), or the frame is too small, ModelError for a model of
    another domain than stabilised data.
    """
    if model.scaling["domain"] != "stabilised" or model.axes != "YX":
        raise ModelError(f"finetune: model of {model.scaling['domain']} data, axes {model.axes}; expected stabilised, YX")
    if not assume_white:
        intake.check_white(frame, "finetune")
    prefilter, planes = model.scaling["prefilter"], frames([frame])
    side = _side([p.z.shape[1:] for p in (planes[i] for i in range(len(planes)))], patch, int(model.net.multiple))  # type: ignore[arg-type]
    batches = Batches(planes, batch, side, seed, HELD)
    choosing, judging = _halves([b.to(device) for b in batches.held_out(COUNT)])
    old = deepcopy(model.net)
    found = fit(
        deepcopy(model.net).requires_grad_(True),
        partial(r2r, alpha=alpha, prefilter=prefilter),
        batches,
        budget=parsed(budget),
        per_epoch=batches.per_epoch(),
        rate=rate,
        validate=partial(r2r_risk, batches=choosing, alpha=JUDGED, prefilter=prefilter),
        validations=validations,
        seed=seed,
        device=device,
        tick=tick,
    )
    how = {"steps": found.steps, "alpha": alpha, "seed": seed}
    return _better(model, old.to(device), found.net, judging, prefilter, how, say)


def _better(
    model: Model,
    old: nn.Module,
    new: nn.Module,
    judging: Sequence[Batch],
    prefilter: str,
    how: dict[str, Any],
    say: Callable[[dict[str, Any]], None] | None,
) -> Model:
    before, after = (r2r_risk(net, judging, alpha=JUDGED, draws=4, seed=1 << 20, prefilter=prefilter) for net in (old, new))
    gain, error = difference(after, before)
    figures = {"risk_before": float(before.mean()), "risk_after": float(after.mean()), "error": error}
    if say is not None:
        say(figures)
    if not gain + error < 0:  # also where a single patch gives no error
        return model
    card = {**model.card, "finetuned": [*model.card.get("finetuned", []), {**how, **figures}]}
    return replace(model, net=new.cpu().eval(), card=card)


def _side(shapes: Sequence[tuple[int, ...]], patch: int, multiple: int) -> int:
    """The largest side up to `patch`, of the network's multiple, that leaves CELLS cells in every plane."""
    for side in range(patch - patch % multiple, 15, -multiple):
        if all((y // side) * (x // side) >= CELLS for y, x in shapes):
            return side
    raise FrameError(f"finetune: planes of {min(shapes)} px hold fewer than {CELLS} patches of 16 px; take the model as it is")


def _halves(batches: Sequence[Batch]) -> tuple[list[Batch], list[Batch]]:
    """Every second patch of held-out batches, and the others."""
    found: tuple[list[Batch], list[Batch]] = ([], [])
    first = 0
    for b in batches:
        for k, half in enumerate(found):
            own = slice((k - first) % 2, None, 2)
            if len(b.z[own]):
                half.append(b.part(own))
        first += len(b.z)
    return found
