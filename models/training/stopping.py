"""Ending a run early without losing it: a signal is noted, and obeyed between two updates."""

import signal
from types import FrameType


class Stopped(Exception):  # noqa: N818  no error: somebody asked for it
    """A run has saved what it had and ends, as asked by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Stop:
    """While entered, takes the place of what signals do; a second one does that all the same.

    Attributes:
        signal: The number of the signal that came; 0 for none.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> "Stop":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
        self.signal = number
