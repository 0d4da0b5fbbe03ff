"""The training loop. Batches and draws of a step are functions of (seed, step), so that a checkpoint needs no generator."""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from firstlight.atomic import write_text
from firstlight.errors import FrameError
from firstlight.inference import fast_bf16
from firstlight.train.batches import Batch
from firstlight.train.budget import Budget, clock
from firstlight.train.checkpoint import State, begin, load, save
from firstlight.train.objectives import Objective
from firstlight.train.validation import Validation, summary

__all__ = ["Fitted", "fit"]

Tick = Callable[[int, int, str], None]
WARM = 50  # steps over which the rate rises
LAST = 0.01  # of the rate, at the end of the cosine
CLIP = 1.0  # norm of a gradient: a bright star in one patch must not undo the rest


@dataclass(frozen=True, eq=False)
class Fitted:
    """net: the best validated average, or the last where nothing validates; figures: a row per validation; why it stopped."""

    net: nn.Module
    steps: int
    seconds: float
    figures: list[dict[str, Any]]
    stopped: str


def fit(
    net: nn.Module,
    objective: Objective,
    batches: Callable[[int], Batch],
    *,
    budget: Budget,
    per_epoch: int = 1,
    rate: float = 2e-3,
    average: float = 0.999,
    validate: Validation | None = None,
    validations: int = 10,
    patience: int | None = None,
    min_delta: float = 0.0,
    warm: int = WARM,
    clip: float = CLIP,
    seed: int = 0,
    device: str = "cpu",
    half: bool | None = None,
    checkpoint: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    log: Path | None = None,
    preview: Callable[[nn.Module, int], None] | None = None,
    tick: Tick | None = None,
    seconds: Callable[[], float] | None = None,
) -> Fitted:
    """Minimise an objective with Adam, a rate that warms up and falls as a cosine of the budget, and averaged weights.

    batches(step) gives a step's batch. validate(net) gives figures whose mean is to fall: at the start, then `validations`
    times over the budget, on the average (weight of the past `average`); the best is returned, the start included. Training
    ends early after `patience` validations that are not better by min_delta. warm: steps over which the rate rises; clip: the
    largest norm of a gradient; half: forward in bfloat16; where it helps by
    default. checkpoint: written at each validation, at the end and on Ctrl-C, and resumed from where it exists; a budget in
    steps or epochs then gives the weights of an undisturbed run to the bit on a CPU. log: a JSON line per validation. preview
    is called at each. `net` itself is trained in place.

    Raises FrameError where the loss is not finite, ModelError for a checkpoint of another training, KeyboardInterrupt, with
    the checkpoint written, on Ctrl-C.
    """
    net = net.to(device).train()
    state = begin(net, rate)
    which = {"seed": seed, "rate": rate, "average": average, "budget": [budget.amount, budget.kind], **(identity or {})}
    if checkpoint is not None and checkpoint.exists():
        load(state, checkpoint, which)
    _rewrite(log, state.history)
    now = seconds or clock(device)
    began = now() - state.seconds
    forward = torch.autocast(torch.device(device).type, torch.bfloat16) if _half(half, device) else nullcontext()
    loss_sum, loss_count, why = torch.zeros((), device=device), 0, "budget"
    with _interruptible() as interrupted:
        while True:
            share = budget.spent(state.seconds, state.step, per_epoch)
            if validate is not None and share * validations >= state.validations:
                state.validations = math.floor(share * validations) + 1
                row = {"step": state.step, "seconds": round(state.seconds, 3), "loss": _value(loss_sum, loss_count, state.step)}
                _validated(state, validate, min_delta, row)
                loss_sum, loss_count = torch.zeros((), device=device), 0
                _append(log, state.history[-1])
                if preview is not None:
                    preview(state.average, state.step)
                if checkpoint is not None:
                    save(state, checkpoint, which)
            stale = patience is not None and state.stale >= patience
            if share >= 1 or stale or interrupted():
                why = "interrupted" if interrupted() else "patience" if stale else "budget"
                break
            now_rate = _rate(rate, share, state.step, warm)
            loss = _step(state, objective, batches(state.step).to(device), seed, forward, now_rate, average, clip)
            loss_sum, loss_count = loss_sum + loss, loss_count + 1
            state.step += 1
            state.seconds = now() - began
            if tick is not None:
                tick(round(1000 * budget.spent(state.seconds, state.step, per_epoch)), 1000, _told(state))
        if checkpoint is not None:
            save(state, checkpoint, which)
    if why == "interrupted":
        raise KeyboardInterrupt
    _value(loss_sum, loss_count, state.step)
    best = state.average if validate is None else state.best
    return Fitted(best.eval(), state.step, state.seconds, state.history, why)


def _step(
    state: State, objective: Objective, batch: Batch, seed: int, forward: Any, rate: float, average: float, clip: float
) -> torch.Tensor:
    rng = torch.Generator(batch.z.device).manual_seed((seed << 32) + state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    with forward:
        loss = objective(state.net, batch, rng)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.net.parameters(), clip)
    state.optimizer.step()
    _follow(state.average, state.net, min(average, (1 + state.step) / (10 + state.step)))
    return loss.detach()


def _rate(rate: float, share: float, step: int, warm: int) -> float:
    """Linear over `warm` steps, then rate (LAST + (1 - LAST) (1 + cos(pi share)) / 2); Loshchilov and Hutter, ICLR 2017."""
    return rate * min((1 + step) / warm, 1.0) * (LAST + (1 - LAST) * (1 + math.cos(math.pi * share)) / 2)


@torch.no_grad()
def _follow(average: nn.Module, net: nn.Module, past: float) -> None:
    """average = past average + (1 - past) net; buffers (BatchNorm's counts) are copied."""
    for mine, new in zip(average.parameters(), net.parameters(), strict=True):
        mine.lerp_(new, 1 - past)
    for held, now in zip(average.buffers(), net.buffers(), strict=True):
        held.copy_(now)


def _validated(state: State, validate: Validation, min_delta: float, row: dict[str, Any]) -> None:
    figure, error = summary(validate(state.average))
    better = state.figure is None or figure < state.figure
    state.stale = 0 if state.figure is None or figure < state.figure - min_delta else state.stale + 1
    if better:
        state.figure = figure
        state.best.load_state_dict(state.average.state_dict())
    state.history.append({**row, "figure": figure, "error": error if math.isfinite(error) else None, "best": better})


def _value(total: torch.Tensor, count: int, step: int) -> float | None:
    if not count:
        return None
    found = float(total) / count
    if not math.isfinite(found):
        raise FrameError(
            f"training: the loss became {found} before step {step}; lower the rate, or check the data for outliers"
        )
    return found


def _told(state: State) -> str:
    return f"step {state.step}" + (f", risk {state.history[-1]['figure']:.4f}" if state.history else "")


def _append(log: Path | None, row: dict[str, Any]) -> None:
    if log is not None:
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")


def _rewrite(log: Path | None, rows: list[dict[str, Any]]) -> None:
    """The log as of the state: rows that a killed run wrote after its last checkpoint come again."""
    if log is not None:
        write_text(log, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def _half(asked: bool | None, device: str) -> bool:
    if asked is not None:
        return asked
    return bool(torch.cuda.is_bf16_supported()) if device.startswith("cuda") else fast_bf16()


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C ends the loop after the step under way; a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    seen: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, stack: object) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, before)
