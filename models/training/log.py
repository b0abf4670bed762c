"""What a run writes down: JSON lines for programs, a table of epochs, TensorBoard if asked for."""

import csv
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from models.errors import DeviceError, some
from models.terminal import described, escaped

LINES, TABLE = "log.jsonl", "log.csv"


class Epoch(NamedTuple):
    """A line of the table: errors in percent, of training as it went, of validation after it."""

    epoch: int
    update: int
    lr: float
    weight_decay: float
    train_loss: float
    train_top1: float
    train_top5: float
    val_top1: float
    val_top5: float
    images_per_second: float
    data_wait: float
    seconds: float


class Log:
    """The log of a run in its folder; nothing is written where the process does not lead.

    A line that cannot be written is missing, which is said once; the run goes on.
    """

    def __init__(self, folder: Path, *, leads: bool, tensorboard: bool) -> None:
        """Open the files at their ends: a run that goes on adds to what is there.

        Raises:
            DeviceError: TensorBoard is asked for and not installed.
        """
        self._folder = folder if leads else None
        self._board = _board(folder) if leads and tensorboard else None
        self._failed = False

    def line(self, kind: str, update: int, **values: Any) -> None:
        """Write one line of JSON."""
        if self._folder is None:
            return
        text = json.dumps({"kind": kind, "update": update, **values})
        with self._spared():
            _append(self._folder / LINES, text + "\n")
        if self._board is not None:
            with self._spared():
                for name, value in values.items():
                    if isinstance(value, int | float):
                        self._board.add_scalar(f"{kind}/{name}", value, update)

    def epoch(self, row: Epoch) -> None:
        """Write an epoch's line of the table, and the same as JSON."""
        values = row._asdict()
        self.line("epoch", values.pop("update"), **values)
        if self._folder is None:
            return
        path, text = self._folder / TABLE, io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        if not path.exists() or not path.stat().st_size:
            rows.writerow(Epoch._fields)
        rows.writerow([f"{one:.6g}" if isinstance(one, float) else one for one in row])
        with self._spared():
            _append(path, text.getvalue())

    def unread(self, update: int, split: str, images: Sequence[str]) -> None:
        """Write down which images could not be read, if any, and say so."""
        if images:
            said = f"{len(images)} images of {split} could not be read"
            print(f"warning: {said}: {escaped(some(images, '; '))}", file=sys.stderr)
            text = f"{split}: {len(images)} images unread"
            self.line("warning", update, text=text, images=images)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._board is not None:
            with self._spared():
                self._board.close()

    @contextmanager
    def _spared(self) -> Iterator[None]:
        """Say the first time that something cannot be written, and go on."""
        try:
            yield
        except OSError as error:
            if not self._failed:
                print(f"warning: {described(error)}; lines of the log are missing", file=sys.stderr)
            self._failed = True


def _append(path: Path, text: str) -> None:
    """Add whole lines to a file, or nothing; what a process that died has left torn is ended.

    Raises:
        OSError: They could not be written.
    """
    with path.open("ab+") as file:
        end = file.tell()
        file.seek(max(end - 1, 0))
        torn = file.read() not in (b"", b"\n")
    try:
        with path.open("ab") as file:
            file.write(("\n" * torn + text).encode())
    except OSError as error:
        os.truncate(path, end)
        raise OSError(error.errno, error.strerror, str(path)) from error


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise DeviceError(
            "--tensorboard: its package is not installed: pip install tensorboard"
        ) from error
    return SummaryWriter(str(folder))


def read_epochs(path: Path, *, torn: Literal["refuse", "skip"] = "refuse") -> list[Epoch]:
    """Return the epochs of a table, each once: one that was done again counts as it was last.

    Args:
        path: The table.
        torn: What a line does that is no epoch, as a machine that went down may leave one.

    Raises:
        ValueError, TypeError, KeyError: There is such a line.
    """
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {}
    overlooked = (ValueError, TypeError, KeyError) if torn == "skip" else ()
    for row in rows:
        with suppress(*overlooked):
            one = _epoch(row)
            found[one.epoch] = one
    return [found[number] for number in sorted(found)]


def _epoch(row: dict[str, str]) -> Epoch:
    if len(row) != len(Epoch._fields):
        raise ValueError(f"a line of {len(row)} values, expected {len(Epoch._fields)}")
    kinds = Epoch.__annotations__
    return Epoch(**{name: kinds[name](row[name]) for name in Epoch._fields})
