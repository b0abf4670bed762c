"""What entry points share: one line for an error, progress on stderr, text that is safe to show."""

import argparse
import difflib
import functools
import math
import os
import shutil
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ParamSpec, TypeVar

from models.errors import LegacyModelError

P = ParamSpec("P")
Number = TypeVar("Number", int, float)

PACKAGES = ("converters", "models", "relume", "service")  # that every installation has


def reports_errors(main: Callable[P, int]) -> Callable[P, int]:
    """Turn what `main` raises into one line on stderr and an exit status.

    Our own errors, whose line ends with the command that explains them, the system's (no such file,
    disk full) and a package that is not installed give 1, an interrupt gives 130, SIGTERM 143 and a
    reader that closed the pipe 141, as a shell would. Everything else is a bug and stays a
    traceback.
    """

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            with _unwound_by_sigterm():
                return main(*args, **kwargs)
        except LegacyModelError as error:
            # Here alone: messages are quoted in other messages, which must not repeat it.
            print(f"error: {escaped(str(error))} ({explained(error)})", file=sys.stderr)
            return 1
        except BrokenPipeError:
            sys.stdout = None  # nobody reads on: the last flush would fail too
            return 141
        except OSError as error:
            print(f"error: {escaped(described(error))}", file=sys.stderr)
            return 1
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in PACKAGES:
                raise  # ours: a bug
            print(missing_package(error), file=sys.stderr)
            return 1
        except _Terminated:
            print("terminated", file=sys.stderr)
            return 128 + signal.SIGTERM
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 128 + signal.SIGINT

    return run


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextmanager
def _unwound_by_sigterm() -> Iterator[None]:
    """Have SIGTERM unwind the program as Ctrl-C does, so that no file stays behind half-written."""
    owner, came = os.getpid(), False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if os.getpid() != owner:  # a process that was forked meanwhile has nothing to clean up
            os._exit(128 + number)
        came = True
        raise KeyboardInterrupt

    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        if came:  # what is caught tells nothing: Ray, for one, raises its own in its place
            raise _Terminated from None
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def new_parser(description: str, *examples: str) -> argparse.ArgumentParser:
    """Return a parser whose help says what the command does, and ends with lines to type."""
    width = shutil.get_terminal_size().columns - 2  # as argparse itself wraps
    lines = "".join(f"\n  {one}" for one in examples)
    return argparse.ArgumentParser(
        description=textwrap.fill(description, width),
        epilog=f"examples:{lines}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # examples are not wrapped
    )


def at_least(least: Number) -> Callable[[str], Number]:
    """Return the type of a flag: a number of the kind of `least`, from it on, and finite.

    Raises:
        ArgumentTypeError: The text that the type is given is none.
    """

    def read(text: str) -> Number:
        try:
            value = type(least)(text)
            if least <= value < math.inf:
                return value
        except ValueError:
            pass  # no number at all, and said below
        kind = "whole number" if isinstance(least, int) else "number"
        raise argparse.ArgumentTypeError(f"{text!r} is not a {kind} from {least:g}")

    return read


def escaped(text: str) -> str:
    """Return text of a file as one line that cannot move a terminal's cursor or change its colours.

    A file's name, whatever bytes it has, is text that every terminal takes, too.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def meant(word: str, known: Iterable[str]) -> str:
    """Return the question whether a known word was meant that is like this one; else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def size_of(count: int) -> str:
    """Return how much so many bytes are, as people say it."""
    if count < 1_000:
        return f"{count} byte{'' if count == 1 else 's'}"
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def explained(error: LegacyModelError) -> str:
    """Return the command that prints the page about an error."""
    return f"relume explain {error.page()}"


def missing_package(error: ModuleNotFoundError) -> str:
    """Return what to tell somebody whose Python lacks a package that we need."""
    return (
        f"error: {sys.executable} has no package {error.name}: `. .venv/bin/activate` where `make` "
        "has been run, or pip install '.[cpu]'"
    )


def described(error: OSError) -> str:
    """Return what the system could not do, and with which file."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say on stderr what is being done, and how long it took once it is done."""
    live = sys.stderr.isatty()
    if live:
        print(f"  {what} ...", end="", file=sys.stderr, flush=True)
    start = time.perf_counter()
    try:
        yield
    except BaseException:
        if live:
            print(file=sys.stderr)
        raise
    took = f"{time.perf_counter() - start:.1f} s"
    print(f" {took}" if live else f"  {what} ... {took}", file=sys.stderr, flush=True)


class Progress:
    """A line at the foot of the terminal; nothing where stderr is none."""

    def __init__(self, total: int, said: Callable[[int], str] = "{:,}".format) -> None:
        """Begin at 0 of `total`; `said` writes such a number."""
        self._said = said
        self._total, self._done, self._start = total, 0, time.perf_counter()
        self._live, self._next = sys.stderr.isatty(), 0.0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def advance(self, count: int = 1) -> None:
        """Say that so many more are done, ten times a second at most."""
        self._done += count
        now = time.perf_counter()
        if self._live and (now >= self._next or self._done == self._total):
            self._next = now + 0.1
            share = self._done / max(self._total, 1)
            bar = "#" * round(30 * share)
            rate = self._done / (now - self._start)
            speed = f"{self._said(round(rate))}/s" if rate >= 10 else f"{rate:.1f}/s"
            left = max(self._total - self._done, 0) / rate if rate else 0
            line = (
                f"\r\033[K[{bar:30}] {self._said(self._done)} of {self._said(self._total)}, "
                f"{speed}, {left / 60:.0f} min left"
            )
            print(line, end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line away, so that other text can be printed; it comes back by itself."""
        if self._live and self._done:
            self._next = 0.0
            print("\r\033[K", end="", file=sys.stderr, flush=True)
