"""Processes: results and warnings come back, what fails is raised, and none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from functools import partial

import pytest

from firstlight.errors import FrameError
from firstlight.processes import spread


def squared(item: int, *, unfit: int = -1) -> int:
    warnings.warn(f"saw {item}", UserWarning, stacklevel=1)
    if item == unfit:
        raise ValueError("unfit")
    return item * item


def gone(item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_results_come_with_their_items_and_warnings() -> None:
    with pytest.warns(UserWarning, match="saw") as told:
        found = dict(spread(squared, range(5), 2))
    assert found == {0: 0, 1: 1, 2: 4, 3: 9, 4: 16}
    assert sorted(str(w.message) for w in told) == [f"saw {k}" for k in range(5)]


def test_what_fails_is_raised() -> None:
    with pytest.raises(ValueError, match="unfit"):
        list(spread(partial(squared, unfit=0), [0], 1))


@pytest.mark.skipif(sys.platform == "win32", reason="a kill that cannot be caught is a POSIX signal here")
def test_a_process_that_is_killed_is_told() -> None:
    with pytest.raises(FrameError, match="ended from outside"):
        list(spread(gone, [0, 1], 2))


WORKER = """
import os, signal
from firstlight import processes

def work(item):
    {body}

processes._begun(1)
try:
    processes._told(work, None)
except BaseException:
    pass  # as a pool's process does
print("goes on")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="being told to end is a POSIX signal here")
@pytest.mark.parametrize(
    "body",
    [
        "os.kill(os.getpid(), signal.SIGTERM)",
        "try: os.kill(os.getpid(), signal.SIGTERM)\n    except BaseException: pass  # libraries take it for an error",
    ],
)
def test_a_process_that_is_told_to_end_begins_no_other_work(body: str) -> None:
    done = subprocess.run([sys.executable, "-c", WORKER.format(body=body)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")
