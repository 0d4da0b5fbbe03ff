"""Budgets as people write them."""

import pytest

from firstlight.errors import FrameError
from firstlight.train import Budget, budget


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("60s", Budget(60)),
        ("60", Budget(60)),
        (60, Budget(60)),
        ("1.5 m", Budget(90)),
        ("2h", Budget(7200)),
        ("500 steps", Budget(500, "steps")),
        ("1step", Budget(1, "steps")),
        ("3 epochs", Budget(3, "epochs")),
        (Budget(5), Budget(5)),
    ],
)
def test_texts(text: object, wanted: Budget) -> None:
    assert budget(text) == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "fast", "0s", "-3s", "3 days", "1e9999", "nan"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(FrameError, match="budget"):
        budget(text)


def test_what_is_spent() -> None:
    assert Budget(10).spent(4, 0, 1) == 0.4
    assert Budget(10, "steps").spent(99, 5, 1) == 0.5
    assert Budget(2, "epochs").spent(0, 30, 20) == 0.75
    assert Budget(10).spent(40, 0, 1) == 1
