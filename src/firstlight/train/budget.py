"""How long to train: seconds of processor or GPU time, steps, or epochs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from firstlight.errors import FrameError

__all__ = ["Budget", "budget", "clock"]

SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}


@dataclass(frozen=True)
class Budget:
    """An amount of "seconds", "steps" or "epochs"; raises FrameError for another kind or an amount that is not positive."""

    amount: float
    kind: str = "seconds"

    def __post_init__(self) -> None:
        if self.kind not in ("seconds", "steps", "epochs") or not 0 < self.amount < float("inf"):
            raise FrameError(f"budget {self.amount:g} {self.kind}, expected a positive number of seconds, steps or epochs")

    def spent(self, seconds: float, steps: int, per_epoch: int) -> float:
        """Share of the budget, 1 when it is used up."""
        used = {"seconds": seconds, "steps": steps, "epochs": steps / per_epoch}[self.kind]
        return min(used / self.amount, 1.0)


def budget(text: str | float | Budget) -> Budget:
    """60, "60s", "10m", "2h", "500 steps", "3 epochs"; a plain number is seconds. Raises FrameError for another text."""
    if isinstance(text, Budget):
        return text
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-z]*)\s*", str(text).lower())
    unit = found[2] if found else ""
    if found and unit in ("", *SECONDS):
        return Budget(float(found[1]) * SECONDS.get(unit, 1))
    if found and unit.rstrip("s") in ("step", "epoch"):
        return Budget(float(found[1]), unit.rstrip("s") + "s")
    raise FrameError(f"budget {text!r}, expected such as 60s, 10m, 2h, 500 steps or 3 epochs")


def clock(device: str) -> Callable[[], float]:
    """Seconds used: of all threads of this process on the processor, of the wall on a GPU, once it has caught up."""
    import time

    import torch

    if not device.startswith("cuda"):
        return time.process_time

    def wall() -> float:
        torch.cuda.synchronize(device)
        return time.monotonic()

    return wall
