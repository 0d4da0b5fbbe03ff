"""What people and programs see of a command: figures, progress, warnings, and the signals that end it."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["close_output", "emit", "emit_rows", "lines", "one_line_warnings", "progress", "stoppable"]

AGAIN = 0.05  # s until a signal that was lost comes again


def _say(text: Any) -> None:
    if not isinstance(text, str):
        from rich.console import Console

        console = Console(highlight=False, soft_wrap=True, markup=False)
        with console.capture() as shown:
            console.print(text)
        text = shown.get().removesuffix("\n")
    sys.stdout.write(f"{text}\n")


def emit(result: Any, json: bool, text: Callable[[], Any]) -> None:
    """The result as JSON, or the text that `text` makes, on standard output."""
    if json:
        from json import dumps

        sys.stdout.write(dumps(result, indent=1, allow_nan=False) + "\n")
    else:
        _say(text())


def emit_rows(rows: list[dict[str, Any]], json: bool) -> int:
    """Rows of files done; files that failed among several go to standard error, one line each, and make the exit code 2."""
    failed = [r["error"] for r in rows if "error" in r]
    done = [f"{r['input']} -> {r['output']}  {r['summary']}" for r in rows if "error" not in r]
    if json or done:
        emit(rows, json, lambda: lines(done))
    for error in failed:
        sys.stderr.write(f"firstlight: {error}\n")
    return 2 if failed else 0


def lines(rows: Iterable[Any]) -> str:
    """One line a row."""
    return "\n".join(str(r) for r in rows)


@contextmanager
def progress(json: bool) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on standard error, where that is a terminal; `tick(done, total, what)`."""
    if json or not sys.stderr.isatty():
        yield lambda done, total, what: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Warnings as one line each, after the command; one that fails says its error alone."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for text in dict.fromkeys(" ".join(str(w.message).split()) for w in caught):
        sys.stderr.write(f"firstlight: warning: {text}\n")


@contextmanager
def stoppable() -> Iterator[None]:
    """Being told to end (SIGTERM, or SIGHUP unless it is ignored) unwinds like Ctrl-C, so that nothing half-written stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [s for s in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)) if signal.getsignal(s) == signal.SIG_DFL]
    told: list[int] = []

    def stop(number: int, stack: object) -> None:
        if not told:
            sys.stderr.write(
                "firstlight: terminated; finished outputs are whole, the one under way was removed or is NAME.partial\n"
            )
        told.append(number)
        raise SystemExit(128 + number)

    for number in numbers:
        signal.signal(number, stop)
    try:
        with _not_swallowed(told):
            yield
    except (KeyboardInterrupt, SystemExit):
        _quiet()
        raise
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _not_swallowed(told: list[int]) -> Iterator[None]:
    """A signal that falls into a finalizer, whose exceptions Python ignores, comes again."""
    before, timers = sys.unraisablehook, list[threading.Timer]()

    def again(lost: sys.UnraisableHookArgs) -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt | SystemExit):
            before(lost)
            return
        number = told[-1] if told and isinstance(lost.exc_value, SystemExit) else signal.SIGINT
        timers.append(threading.Timer(AGAIN, _thread.interrupt_main, (number,)))
        timers[-1].start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in timers:
            timer.cancel()


def _quiet() -> None:
    """Event loops of libraries that are cut off say nothing of it."""
    from logging import CRITICAL, getLogger

    getLogger("asyncio").setLevel(CRITICAL)


def close_output() -> None:
    """Whatever standard output could not take is dropped, so that the interpreter does not fail on it at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
