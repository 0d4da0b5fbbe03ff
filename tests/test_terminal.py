"""Signals that end a command."""

import signal
import subprocess
import sys

import pytest

CODE = """
import signal, sys, time, weakref
from firstlight.terminal import stoppable

class Thing: pass

def told(ref):
    signal.raise_signal(int(sys.argv[1]))
    for _ in range(1000): pass

with stoppable():
    thing = Thing()
    kept = weakref.ref(thing, told)
    del thing
    time.sleep(20)
    print("went on")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_signal_in_a_finalizer_is_not_lost(number: int, code: int) -> None:
    """Python ignores what a weak reference's callback raises, and h5py and zarr have many: the run went on to its end."""
    argv = [sys.executable, "-c", CODE, str(int(number))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert done.stdout == ""
    assert "ignored" not in done.stderr
    assert done.stderr.count("terminated") == (number == signal.SIGTERM)
