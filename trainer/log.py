"""The log of a run: a line an epoch, as CSV."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from engines.errors import TrainingError
from engines.files import write_atomically


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        epoch: Counted from 1.
        loss: Mean over steps and widths of the training loss.
        lr: Learning rate of the last step.
        seconds: Time of the training steps.
        accuracy: Share of the test images that the kept weights get right, by width.
    """

    epoch: int
    loss: float
    lr: float
    seconds: float
    accuracy: dict[str, float]


def write_log(path: Path, epochs: list[Epoch]) -> None:
    """Write the epochs of a run, at least one."""
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["epoch", "loss", "lr", "seconds", *(f"accuracy@{width}" for width in epochs[0].accuracy)])
    rows.writerows([done.epoch, done.loss, done.lr, done.seconds, *done.accuracy.values()] for done in epochs)
    write_atomically(path, text.getvalue().encode())


def read_log(path: Path) -> list[Epoch]:
    """Read what `write_log` wrote.

    Raises:
        TrainingError: the file is missing or damaged.
    """
    try:
        header, *rows = csv.reader(StringIO(path.read_text()))
        names = [name.removeprefix("accuracy@") for name in header[4:]]
        return [
            Epoch(int(e), float(loss), float(lr), float(s), dict(zip(names, map(float, accuracy), strict=True)))
            for e, loss, lr, s, *accuracy in rows
        ]
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot read the log of the run, {path}: {error}") from None
