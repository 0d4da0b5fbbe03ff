"""What can go wrong, as a tree.

    FirstlightError
    ├── FrameError     a frame, noise model, box or tile plan contradicts itself or what a step needs
    ├── ReadError      a file cannot be read: absent, empty, truncated, of another kind, unsupported
    ├── WriteError     an output cannot be written, or its format cannot hold the frame
    ├── RecipeError    a recipe names an unknown step or parameter, or a value of the wrong kind
    ├── ModelError     a model file is damaged or names something unknown
    └── MissingExtra   an optional package is needed; the message names the extra to install

A message says what was got, what was expected and what to do.
"""

__all__ = [
    "FirstlightError",
    "FrameError",
    "MissingExtra",
    "ModelError",
    "ReadError",
    "RecipeError",
    "WriteError",
]


class FirstlightError(Exception):
    """Root of every error that firstlight raises on purpose."""


class FrameError(FirstlightError):
    """A frame, noise model, box or tile plan contradicts itself or what a step needs."""


class ReadError(FirstlightError):
    """A file cannot be read; the message names the file and the cause."""


class WriteError(FirstlightError):
    """An output cannot be written; the message names the file and the cause."""


class RecipeError(FirstlightError):
    """A recipe cannot be run; the message lists every problem found."""


class ModelError(FirstlightError):
    """A model file is damaged or names something unknown."""


class MissingExtra(FirstlightError):
    """An optional package is needed; the message names the extra to install."""
