"""Linear operators with exact adjoints. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_NAMES = {"Gridding": "gridding", "Normal": "normal", "Operator": "operator", "lamino": "radon", "radon_line": "radon"}

__all__ = ["Gridding", "Normal", "Operator", "lamino", "mosaic", "radon", "radon_line"]

if TYPE_CHECKING:  # what type checkers and editors see of _NAMES; tests/test_names.py holds them equal
    from firstlight.operators.gridding import Gridding
    from firstlight.operators.normal import Normal
    from firstlight.operators.operator import Operator
    from firstlight.operators.radon import lamino, radon_line
else:

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            return getattr(import_module(f"firstlight.operators.{_NAMES[name]}"), name)
        raise AttributeError(f"module 'firstlight.operators' has no attribute {name!r}")


# Functions named like their files: bound here for good, or the first import of the file would put the module in its place.
from firstlight.operators.mosaic import mosaic as mosaic  # noqa: E402
from firstlight.operators.radon import radon as radon  # noqa: E402
