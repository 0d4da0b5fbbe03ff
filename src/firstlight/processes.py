"""Work spread over processes that end with this one, however it ends."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from threading import Thread
from typing import TypeVar

from firstlight.errors import FrameError

__all__ = ["spread"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(work: Callable[[Item], Result], items: Sequence[Item], count: int) -> Iterator[tuple[Item, Result]]:
    """(item, work(item)) in `count` processes, in the order in which they end; warnings come with the result.

    The processes are told to end where this one is stopped, and end by themselves where it is killed. Raises what `work`
    raises, FrameError where a process is ended from outside.
    """
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import active_children, get_context

    before = set(active_children())
    threads = max(1, (os.cpu_count() or 1) // count)
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_begun, initargs=(threads,))
    try:
        running = {pool.submit(_told, work, item): item for item in items}
        for future in as_completed(running):
            result, texts = future.result()
            for text in texts:
                warnings.warn(text, UserWarning, stacklevel=2)
            yield running[future], result
        pool.shutdown()
    except BrokenProcessPool as error:
        raise FrameError(f"a process of {count} was ended from outside, was memory short? take fewer --jobs") from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(active_children()) - before:
            process.terminate()
            process.join()


def _begun(threads: int) -> None:
    """Of a process: its share of the processors; Ctrl-C is its parent's, whose word or end unwinds what is half-written."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    Thread(target=_orphaned, daemon=True).start()


def _leave(number: int, stack: object) -> None:
    os._exit(128 + number)


def _orphaned() -> None:
    """Wait for the end of the parent, which a pool's processes would outlive for ever."""
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    if (parent := parent_process()) is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _told(work: Callable[[Item], Result], item: Item) -> tuple[Result, list[str]]:
    """Result and warnings; told to end, the process does: the pool would take that for a result, and begin the next."""
    told: list[int] = []

    def stop(number: int, stack: object) -> None:
        told.append(number)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            result = work(item)
    finally:
        signal.signal(signal.SIGTERM, _leave)
        if told:
            _leave(told[0], None)
    return result, [str(w.message) for w in caught]
