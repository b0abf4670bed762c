"""What entry points share: one line for an error, progress on stderr, text that is safe to show."""

import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec

from models.errors import LegacyModelError

P = ParamSpec("P")


def reports_errors(main: Callable[P, int]) -> Callable[P, int]:
    """Turn what `main` raises into one line on stderr and an exit status.

    Our own errors and the system's (no such file, disk full) give 1, an interrupt gives 130 and a
    reader that closed the pipe gives 141, as a shell would. Everything else is a bug and stays a
    traceback.
    """

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except LegacyModelError as error:
            print(f"error: {escaped(str(error))}", file=sys.stderr)
            return 1
        except BrokenPipeError:
            sys.stdout = None  # nobody reads on: the last flush would fail too
            return 141
        except OSError as error:
            print(f"error: {escaped(described(error))}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return run


def escaped(text: str) -> str:
    """Return text of a file as one line that cannot move a terminal's cursor or change its colours.

    A file's name, whatever bytes it has, is text that every terminal takes, too.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def size_of(count: int) -> str:
    """Return how much so many bytes are, as people say it."""
    if count < 1_000:
        return f"{count} byte{'' if count == 1 else 's'}"
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


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
