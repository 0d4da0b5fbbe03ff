"""Where compiled loops are kept: numba finds a folder itself, and fails where neither it nor the user has one to write to."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["find_room"]

ROOMS = ("calibrate", "operators", "restore")  # that hold compiled loops


def find_room() -> None:
    """Point numba to a folder that lasts as long as the process, only where all the usual ones refuse."""
    if os.environ.get("NUMBA_CACHE_DIR") or _takes(_of_user()):
        return
    package = Path(__file__).parent
    if all(_takes(package / room / "__pycache__") for room in ROOMS):
        return
    import atexit
    import shutil
    import tempfile

    try:
        folder = tempfile.mkdtemp(prefix="firstlight-")
    except OSError:  # not even a temporary folder: numba says so where loops are needed
        return
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["NUMBA_CACHE_DIR"] = folder
    if "numba" in sys.modules:  # it has read its environment already
        sys.modules["numba"].config.CACHE_DIR = folder


def _of_user() -> Path:
    """numba's folder in the user's cache."""
    home = os.path.expanduser("~")  # noqa: PTH111  (never raises)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home), "numba", "Cache")
    base = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.join(home, base), "numba")  # noqa: PTH118


def _takes(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder made."""
    text = os.fspath(folder)
    while not os.path.lexists(text) and os.path.dirname(text) != text:  # noqa: PTH120
        text = os.path.dirname(text)  # noqa: PTH120
    return os.path.isdir(text) and os.access(text, os.W_OK | os.X_OK)  # noqa: PTH112
