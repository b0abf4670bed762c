"""What a run writes down: JSON lines for programs, a table of epochs, TensorBoard if asked for."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

from models.errors import DeviceError

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
    """The log of a run in its folder; nothing is written where the process does not lead."""

    def __init__(self, folder: Path, *, leads: bool, tensorboard: bool) -> None:
        """Open the files at their ends: a run that goes on adds to what is there.

        Raises:
            DeviceError: TensorBoard is asked for and not installed.
        """
        self._folder = folder if leads else None
        self._board = _board(folder) if leads and tensorboard else None

    def line(self, kind: str, update: int, **values: Any) -> None:
        """Write one line of JSON."""
        if self._folder is None:
            return
        text = json.dumps({"kind": kind, "update": update, **values})
        with (self._folder / LINES).open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{kind}/{name}", value, update)

    def epoch(self, row: Epoch) -> None:
        """Write an epoch's line of the table, and the same as JSON."""
        values = row._asdict()
        self.line("epoch", values.pop("update"), **values)
        if self._folder is None:
            return
        path = self._folder / TABLE
        fresh = not path.exists()
        with path.open("a", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            if fresh:
                rows.writerow(Epoch._fields)
            rows.writerow([f"{one:.6g}" if isinstance(one, float) else one for one in row])

    def close(self) -> None:
        """Write what is still in memory."""
        if self._board is not None:
            self._board.close()


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise DeviceError(
            "--tensorboard: its package is not installed: pip install tensorboard"
        ) from error
    return SummaryWriter(str(folder))


def read_epochs(path: Path, *, skip_torn: bool = False) -> list[Epoch]:
    """Return the epochs of a table, each once: one that was done again counts as it was last.

    Args:
        path: Of the table.
        skip_torn: Leave out lines that are not whole, such as a full disk leaves.
    """
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for row in rows:
        try:
            epoch = _epoch(row)
        except (ValueError, TypeError, KeyError):
            if not skip_torn:
                raise
            continue
        found[epoch.epoch] = epoch
    return [found[number] for number in sorted(found)]


def _epoch(row: dict[str, str]) -> Epoch:
    if len(row) != len(Epoch._fields):
        raise ValueError(f"a line of {len(row)} values, expected {len(Epoch._fields)}")
    kinds = Epoch.__annotations__
    return Epoch(**{name: kinds[name](row[name]) for name in Epoch._fields})
