"""A run's figures for TensorBoard."""

from __future__ import annotations

from pathlib import Path

from engines.errors import TrainingError
from trainer.log import Epoch


class Board:
    """Writes loss, learning rate and accuracy at each reported width, an entry an epoch.

    Args:
        out: Directory of the run; TensorBoard reads it or one above it.

    Raises:
        TrainingError: tensorboard is not installed.
    """

    def __init__(self, out: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise TrainingError("--tensorboard needs the package of that name: pip install tensorboard") from None
        self._writer = SummaryWriter(str(out))

    def add(self, epoch: Epoch) -> None:
        """Write an epoch's figures."""
        figures = {"loss": epoch.loss, "lr": epoch.lr, "seconds": epoch.seconds}
        figures |= {f"accuracy/{width}": share for width, share in epoch.accuracy.items()}
        for name, value in figures.items():
            self._writer.add_scalar(name, value, epoch.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
