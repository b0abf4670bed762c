"""How far a run is, on stderr: one line that moves on a terminal, a line now and then in a log."""

import sys
import time

LOGGED_S = 30.0  # between lines of a log
SHOWN_S = 0.1


class Progress:
    """Counts parts and images.

    Attributes:
        skipped: Parts that had been finished before.
        done: Parts that were finished now.
        images: That were classified, or found broken.
        broken: Of these.
    """

    def __init__(self, parts: int, skipped: int) -> None:
        """Begin with so many of the parts done before."""
        self.skipped = skipped
        self.done = self.images = self.broken = 0
        self._parts, self._start = parts, time.perf_counter()
        self._live = sys.stderr.isatty()
        self._next = self._start + (0 if self._live else LOGGED_S)

    @property
    def seconds(self) -> float:
        """How long it has been."""
        return time.perf_counter() - self._start

    def add(self, images: int, broken: int) -> None:
        """Count images."""
        self.images += images
        self.broken += broken
        self._show()

    def finish_part(self) -> None:
        """Count a part."""
        self.done += 1
        self._show()

    def clear(self) -> None:
        """Take the line away, so that other text can be printed."""
        if self._live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def line(self) -> str:
        """Return what there is to say."""
        rate = self.images / self.seconds
        speed = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"
        before = f" ({self.skipped:,} before)" if self.skipped else ""
        finished = self.skipped + self.done
        left = (self._parts - finished) * self.seconds / self.done / 60 if self.done else 0
        return (
            f"{finished:,} of {self._parts:,} parts{before}, {self.images:,} images, "
            f"{self.broken:,} broken, {speed}{f', {left:,.0f} min left' if left else ''}"
        )

    def _show(self) -> None:
        if (now := time.perf_counter()) < self._next:
            return
        self._next = now + (SHOWN_S if self._live else LOGGED_S)
        begin, end = ("\r\033[K", "") if self._live else ("", "\n")
        print(f"{begin}{self.line()}", end=end, file=sys.stderr, flush=True)
