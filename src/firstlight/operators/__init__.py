"""Linear operators with exact adjoints. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_NAMES = {"Operator": "operator"}

__all__ = ["Operator"]

if TYPE_CHECKING:  # what type checkers and editors see of _NAMES; tests/test_names.py holds them equal
    from firstlight.operators.operator import Operator
else:

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            return getattr(import_module(f"firstlight.operators.{_NAMES[name]}"), name)
        raise AttributeError(f"module 'firstlight.operators' has no attribute {name!r}")
