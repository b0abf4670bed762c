"""What a run shows while it goes on: a bar at the terminal's foot, a line where there is none."""

import sys
import time

from models.data.packed import Packed
from models.data.samples import Samples
from models.errors import some
from models.terminal import escaped

BAR = 24  # characters
OFTEN_S = 0.2  # between two drawings of the bar
SELDOM_S = 60.0  # between two lines where there is no terminal


class Bar:
    """Progress through an epoch: images a second, time left, and how long data was waited for."""

    def __init__(self, title: str, total: int, done: int, *, shown: bool) -> None:
        self.images, self.waited = 0, 0.0
        self._title, self._total, self._begun_at = title, total, done
        self._shown, self._live = shown, sys.stderr.isatty()
        self._start = self._drawn = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time since the bar began."""
        return time.perf_counter() - self._start

    @property
    def images_per_second(self) -> float:
        """Images of this process and its peers, as counted, by time."""
        return self.images / self.seconds

    @property
    def wait(self) -> float:
        """Share of the time that was spent waiting for data."""
        return self.waited / self.seconds

    def advance(self, done: int, images: int, waited: float) -> None:
        """Count an update."""
        self.images += images
        self.waited += waited
        every = OFTEN_S if self._live else SELDOM_S
        if self._shown and time.perf_counter() - self._drawn > every:
            self._drawn = time.perf_counter()
            self._draw(done)

    def _draw(self, done: int) -> None:
        filled = "#" * round(BAR * done / max(self._total, 1))
        begin, end = ("\r\033[K", "") if self._live else ("", "\n")
        left = self.seconds / max(done - self._begun_at, 1) * (self._total - done)
        line = (
            f"{self._title} [{filled:{BAR}}] {done:,}/{self._total:,}  "
            f"{self.images_per_second:,.0f} images/s  {clock(left)} left  "
            f"data {self.wait:.0%}"
        )
        print(f"{begin}{line}", end=end, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the bar away."""
        if self._shown and self._live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def tell_damage(samples: Samples) -> None:
    """Say which records of a `.rec` are left out because they are damaged, if any."""
    if isinstance(samples, Packed) and samples.damage:
        places = [f"byte {at:,}: {found}" for at, found, _ in samples.damage]
        print(
            f"warning: {escaped(samples.name)}: {len(places):,} damaged records are left out: "
            f"{some(places, '; ')}",
            file=sys.stderr,
        )


def clock(seconds: float) -> str:
    """Return a time as people read it: `2 d 03:04`, `3:04:05` or `4:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
