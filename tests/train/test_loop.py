"""The loop: resumes to the bit after a kill, stops early, keeps the best, logs, survives Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from firstlight.errors import FrameError, ModelError
from firstlight.train import Batches, Budget, Plane, Planes, fit
from firstlight.train.objectives import r2r
from firstlight.train.validation import r2r_risk

STEPS = Budget(24, "steps")


def planes() -> Planes:
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:96, :96]
    z = (12 + 5 * np.sin(x / 7.0) * np.cos(y / 9.0) + rng.standard_normal((96, 96))).astype(np.float32)
    return Planes([lambda: Plane(z[None])])


def net(norm: bool = False) -> nn.Module:
    torch.manual_seed(1)
    layers = [nn.Conv2d(2, 6, 3, padding=1), *([nn.BatchNorm2d(6)] if norm else []), nn.ReLU(), nn.Conv2d(6, 2, 3, padding=1)]
    return nn.Sequential(*layers)


def settings(**more: object) -> dict[str, object]:
    batches = Batches(planes(), batch=2, patch=16, seed=3)
    held = batches.held_out(8)
    common = {"budget": STEPS, "validate": partial(r2r_risk, batches=held), "validations": 6, "seed": 3, "half": False}
    return {"objective": r2r, "batches": batches, **common, **more}


def run(**more: object) -> object:
    module = more.pop("net", None) or net()
    return fit(module, **settings(**more))  # type: ignore[arg-type]


def weights(module: nn.Module) -> list[torch.Tensor]:
    return list(module.state_dict().values())


def same(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
import test_loop as t
def tick(done, total, what):
    if what.startswith("step 15"):
        os.kill(os.getpid(), signal.SIGKILL)
module = t.net(True)
t.fit(module, **t.settings(checkpoint=Path({path!r}), log=Path({log!r}), tick=tick))
"""


def test_resumed_after_a_kill_it_gives_the_undisturbed_weights_to_the_bit(tmp_path: Path) -> None:
    whole_log, log, path = tmp_path / "whole.jsonl", tmp_path / "log.jsonl", tmp_path / "c.safetensors"
    undisturbed_net, resumed_net = net(True), net(True)
    undisturbed = run(net=undisturbed_net, log=whole_log)
    script = KILLED.format(tests=str(Path(__file__).parent), path=str(path), log=str(log))
    died = subprocess.run([sys.executable, "-c", script], env=os.environ, check=False, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    resumed = run(net=resumed_net, checkpoint=path, log=log)
    assert same(undisturbed_net, resumed_net)
    assert same(undisturbed.net, resumed.net)
    one, two = ([json.loads(line) for line in p.read_text().splitlines()] for p in (whole_log, log))
    assert [(r["step"], r["figure"], r["best"]) for r in one] == [(r["step"], r["figure"], r["best"]) for r in two]


def test_interrupted_it_leaves_a_checkpoint_and_goes_on_from_it(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"

    def stop(done: int, total: int, what: str) -> None:
        if what.startswith("step 7"):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=path, tick=stop)
    seen: list[str] = []
    resumed = run(checkpoint=path, tick=lambda done, total, what: seen.append(what))
    assert seen[0].startswith("step 8")
    assert same(resumed.net, run().net)


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    run(checkpoint=path, budget=Budget(2, "steps"))
    with pytest.raises(ModelError, match=r"rate 0\.002 there, 0\.1 here"):
        run(checkpoint=path, budget=Budget(2, "steps"), rate=0.1)
    with pytest.raises(ModelError, match="do not fit this network"):
        run(checkpoint=path, budget=Budget(2, "steps"), net=net(True))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ModelError, match="not a whole checkpoint"):
        run(checkpoint=path, budget=Budget(2, "steps"))
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="not a whole checkpoint"):
        run(checkpoint=path, budget=Budget(2, "steps"))


def test_it_learns_and_returns_the_best_validated_average() -> None:
    found = run(budget=Budget(150, "steps"), rate=1e-2)
    figures = [row["figure"] for row in found.figures]
    assert len(figures) == 7
    assert found.stopped == "budget"
    assert found.steps == 150
    assert min(figures) < 0.7 * figures[0]
    held = Batches(planes(), batch=2, patch=16, seed=3).held_out(8)
    assert r2r_risk(found.net, held).mean() == pytest.approx(min(figures))


def test_it_stops_where_validation_gets_no_better_and_never_returns_worse_than_the_start() -> None:
    answers = iter([0.5, 0.6, 0.49, 0.7, 0.8, 0.9])
    start = net()
    before = [w.clone() for w in weights(start)]
    found = run(net=start, validate=lambda module: np.array([next(answers)]), patience=2, min_delta=0.05)
    assert found.stopped == "patience"
    assert [row["figure"] for row in found.figures] == [0.5, 0.6, 0.49]  # better by less than min_delta is not better
    rising = iter(range(100))
    found = run(net=net(), validate=lambda module: np.array([float(next(rising))]))
    assert all(torch.equal(a, b) for a, b in zip(before, weights(found.net), strict=True))


def test_a_budget_in_seconds_is_of_the_clock_given() -> None:
    times = iter(np.arange(0, 1000, 0.5))
    found = run(budget=Budget(5, "seconds"), seconds=lambda: float(next(times)))
    assert found.steps == 10
    assert found.seconds == 5


def test_epochs_are_as_many_pixels_as_there_are() -> None:
    batches = Batches(planes(), batch=2, patch=16, seed=3)
    found = run(budget=Budget(0.5, "epochs"), per_epoch=batches.per_epoch())
    assert batches.per_epoch() == 96 * 96 // (2 * 16 * 16)
    assert found.steps == 9


def test_a_loss_that_is_not_finite_ends_it_with_an_error() -> None:
    with pytest.raises(FrameError, match="loss became nan"):
        run(objective=lambda module, batch, rng: module(torch.cat([batch.z, batch.z], 1)).mean() * torch.nan, validate=None)


def test_without_validation_it_returns_the_last_average() -> None:
    found = run(validate=None)
    assert found.figures == []
    assert not found.net.training


def test_preview_is_called_at_each_validation_and_half_precision_runs() -> None:
    seen: list[int] = []
    run(preview=lambda module, step: seen.append(step), half=True)
    assert seen == [0, 4, 8, 12, 16, 20, 24]
