"""Data sets as uint8 tensors in memory, and augmentation on whole batches, on the device that they live on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engines.errors import TrainingError


@dataclass(frozen=True)
class DataInfo:
    """What a recipe needs to know of a named data set.

    Attributes:
        kind: The class of `torchvision.datasets` that reads it.
        folder: Where its files lie under the root, for error messages.
        labels: Names of the classes.
        mean: Mean of each channel of the training images, for pixels in 0 to 1.
        std: Standard deviation of each channel.
    """

    kind: str
    folder: str
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


DATA: dict[str, DataInfo] = {
    "mnist": DataInfo("MNIST", "MNIST/raw/*-ubyte", tuple("0123456789"), (0.1307,), (0.3081,)),
    "fashion-mnist": DataInfo(
        "FashionMNIST",
        "FashionMNIST/raw/*-ubyte",
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        (0.2860,),
        (0.3530,),
    ),
}


@dataclass(frozen=True)
class Images:
    """Labelled images in memory.

    Attributes:
        images: uint8, (N, H, W, C).
        labels: int64, (N,).
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Images:
        """The same images on a device."""
        return Images(self.images.to(device), self.labels.to(device))

    def batches(self, size: int, *, generator: torch.Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through the images once: in a random order without the last odd batch if a generator is given, else in order."""
        if generator is None:
            yield from zip(self.images.split(size), self.labels.split(size), strict=True)
            return
        order = torch.randperm(len(self), generator=generator).to(self.labels.device)
        for rows in order[: len(self) // size * size].split(size):
            yield self.images[rows], self.labels[rows]


def info(name: str) -> DataInfo:
    """Facts about a named data set.

    Raises:
        TrainingError: no data set has the name.
    """
    if name not in DATA:
        raise TrainingError(f"no data set is named {name!r}; there are: {', '.join(sorted(DATA))}")
    return DATA[name]


def load(name: str, root: Path, *, train: bool, download: bool = False) -> Images:
    """Read a named data set whole.

    Args:
        name: A key of `DATA`.
        root: The directory that torchvision reads from.
        train: The training images, else the test images.
        download: Fetch what is missing; needs a network.

    Raises:
        TrainingError: the name is unknown, or the files are missing; the message says which go where.
    """
    from torchvision import datasets  # loads slowly, and most of this package does without

    known = info(name)
    try:
        raw = getattr(datasets, known.kind)(str(root), train=train, download=download)
    except (RuntimeError, OSError) as error:
        raise TrainingError(
            f"{name} was not found under {root} ({error}); put its files at {root / known.folder}, name another directory with --root, "
            f"or pass --download on a machine with a network"
        ) from None
    images = torch.as_tensor(raw.data)
    if images.ndim == 3:
        images = images[..., None]
    return Images(images.contiguous(), torch.as_tensor(raw.targets).long())


def shift_and_flip(images: Tensor, *, shift: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Move each image by up to `shift` pixels each way, black coming in at the edges, and mirror half of them if asked.

    Args:
        images: uint8, (N, H, W, C).
        shift: The most pixels; 0 leaves the images in place.
        flip: Mirror left to right with probability one half.
        generator: Source of randomness, on the CPU.
    """
    n, height, width, _ = images.shape
    device = images.device
    if flip:
        mirrored = (torch.rand(n, generator=generator) < 0.5).to(device)
        images = torch.where(mirrored[:, None, None, None], images.flip(2), images)
    if shift:
        padded = torch.nn.functional.pad(images, (0, 0, shift, shift, shift, shift))
        top, left = torch.randint(0, 2 * shift + 1, (2, n), generator=generator).to(device)
        rows = top[:, None] + torch.arange(height, device=device)
        columns = left[:, None] + torch.arange(width, device=device)
        images = padded[torch.arange(n, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return images
