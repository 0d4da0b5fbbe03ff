"""The journal of an output under construction: which sections are on disk, so that a killed run goes on where it stopped.

    {"key": "9f0c..."}                          once everything but the pixels is laid out
    {"start": [16, 0, 0], "stop": [24, 64, 64]}   after the bytes of that section have reached the disk
    {"finished": ["a.tif.json"]}                  once all is written: what is left is to give files their names

One JSON line each, appended and synchronised; a line cut by a kill counts for nothing. The file is locked while it is open.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from threading import Lock
from typing import IO, Any

from firstlight.box import Box
from firstlight.errors import WriteError

__all__ = ["Journal"]


class Journal:
    """An open, locked journal: its key (None where nothing was laid out) and the boxes done.

    Raises WriteError where another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("a+b")
        try:
            _lock(self._file, path)
            self._file.seek(0)
            lines = _whole_lines(self._file)
        except BaseException:
            self._file.close()
            raise
        self.key: str | None = str(lines[0]["key"]) if lines and "key" in lines[0] else None
        entries = lines[1:] if self.key else []
        self.done: set[Box] = {Box(tuple(e["start"]), tuple(e["stop"])) for e in entries if "start" in e}
        self.finished: list[str] | None = next((e["finished"] for e in entries if "finished" in e), None)
        self._mutex = Lock()

    def begin(self, key: str) -> None:
        """Start anew under `key`."""
        self._file.truncate(0)
        self.key, self.done, self.finished = key, set(), None
        self._append({"key": key})

    def add(self, box: Box) -> None:
        """A section that is on disk."""
        with self._mutex:
            self._append({"start": box.start, "stop": box.stop})
            self.done.add(box)

    def finish(self, names: list[str]) -> None:
        """All is written, with companions of these names."""
        if self.finished is None:
            self._append({"finished": names})
            self.finished = names

    def _append(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Unlock."""
        self._file.close()


def _lock(file: IO[bytes], path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: two runs of the same output are the user's care
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WriteError(f"{path.parent}: another run is writing this output; wait for it or choose another name") from None
    except OSError:  # file systems without locks
        return


def _whole_lines(file: IO[bytes]) -> list[dict[str, Any]]:
    """The lines that parse; the file is cut behind them."""
    found, good = [], 0
    for line in file:
        try:
            found.append(dict(json.loads(line)))
        except ValueError:
            break
        if not line.endswith(b"\n"):
            found.pop()
            break
        good += len(line)
    file.truncate(good)
    return found
