"""Data sets as uint8 tensors in memory: torchvision's, scikit-learn's digits, any image folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own habit)

from engines.errors import TrainingError
from trainer import folder


@dataclass(frozen=True)
class DataInfo:
    """What is known of a data set.

    Attributes:
        kind: The class of `torchvision.datasets` that reads it; empty for one that torchvision does not read.
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


_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle caterpillar "
    "cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster "
    "house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree "
    "orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose "
    "sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone "
    "television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)

DATA: dict[str, DataInfo] = {
    "mnist": DataInfo("MNIST", "MNIST/raw/*-ubyte", tuple("0123456789"), (0.1307,), (0.3081,)),
    "fashion-mnist": DataInfo("FashionMNIST", "FashionMNIST/raw/*-ubyte", _FASHION, (0.2860,), (0.3530,)),
    "cifar10": DataInfo(
        "CIFAR10",
        "cifar-10-batches-py/*_batch*",
        tuple(_CIFAR10.split()),
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
    ),
    "cifar100": DataInfo(
        "CIFAR100",
        "cifar-100-python/{train,test,meta}",
        tuple(_CIFAR100.split()),
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
    ),
    "digits": DataInfo("", "(inside scikit-learn)", tuple("0123456789"), (0.3052,), (0.3251,)),
}


@dataclass(frozen=True)
class Images:
    """Labelled images in memory.

    Attributes:
        images: uint8, (N, H, W, C).
        labels: int64, (N,).
        info: What is known of the data set.
        source: What the images are and where they were read from, for the record.
    """

    images: Tensor
    labels: Tensor
    info: DataInfo | None = None
    source: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Images:
        """The same images on a device."""
        return Images(self.images.to(device), self.labels.to(device), self.info, self.source)

    def batches(self, size: int, *, generator: torch.Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through the images once: in a random order without the last odd batch if a generator is given, else in order."""
        if generator is None:
            yield from zip(self.images.split(size), self.labels.split(size), strict=True)
            return
        order = torch.randperm(len(self), generator=generator).to(self.labels.device)
        for rows in order[: len(self) // size * size].split(size):
            yield self.images[rows], self.labels[rows]


def info(name: str) -> DataInfo:
    """Facts about a data set with a name.

    Raises:
        TrainingError: no data set has the name.
    """
    if name not in DATA:
        raise TrainingError(f"no data set is named {name!r}; there are: {', '.join(sorted(DATA))}")
    return DATA[name]


def load(name: str, root: Path, *, train: bool, download: bool = False, size: int = 0) -> Images:
    """Read a data set whole.

    Args:
        name: A key of `DATA`, or an image folder under the root: `root/name/{train,test}/<class>/*.jpg` (or png, webp, bmp, ppm). A
            folder with the name of a key of `DATA` is read where torchvision's files are missing.
        root: The directory that torchvision reads from, and of image folders.
        train: The training images, else the test images.
        download: Fetch what is missing; needs a network.
        size: Height and width to bring the images to; 0 takes them as they are.

    Raises:
        TrainingError: the name is unknown, or the files are missing or damaged; the message says which go where.
    """
    if name == "digits":
        return _resized(_digits(train), size)
    place = root / name
    if place.is_dir():
        known = DATA.get(name)
        if known is None or not (root / known.folder.split("/")[0]).exists():
            return _from_folder(name, place, train=train, size=size, known=known)
    if name not in DATA:
        raise TrainingError(
            f"no data set is named {name!r}, and there is no image folder {place} with train/<class>/ and test/<class>/ in it; the known "
            f"ones are: {', '.join(sorted(DATA))}"
        )
    return _resized(_from_torchvision(name, root, train=train, download=download), size)


def _from_torchvision(name: str, root: Path, *, train: bool, download: bool) -> Images:
    from torchvision import datasets  # loads slowly, and most of this package does without

    known = DATA[name]
    try:
        raw = getattr(datasets, known.kind)(str(root), train=train, download=download)
    except (ValueError, AssertionError, EOFError) as error:  # what its readers stumble over
        raise TrainingError(f"the files of {name} at {root / known.folder} are damaged ({error}): fetch them again") from None
    except (RuntimeError, OSError) as error:
        raise TrainingError(
            f"{name} was not found under {root} ({error}); put its files at {root / known.folder}, or its images at "
            f"{root / name}/{{train,test}}/<class>/, name another directory with --root, or pass --download on a machine with a network"
        ) from None
    images = torch.as_tensor(raw.data)
    if images.ndim == 3:
        images = images[..., None]
    return Images(images.contiguous(), torch.as_tensor(raw.targets).long(), known, name)


def _from_folder(name: str, place: Path, *, train: bool, size: int, known: DataInfo | None) -> Images:
    part = "train" if train else "test"
    labels = folder.classes(place / "train")
    if known is not None and labels != known.labels:
        raise TrainingError(f"{place / 'train'} has {len(labels)} classes that are not those of {name}: expected {', '.join(known.labels)}")
    images, targets, formats = folder.read(place / part, labels, size)
    if known is None:
        mean, std = _mean_and_std(images if train else folder.read(place / "train", labels, size)[0])
        known = DataInfo("", f"{name}/{{train,test}}/<class>/*", labels, mean, std)
    if images.shape[3] == 1 and len(known.mean) == 3:  # grey test images of a network that is trained on colour
        images = images.repeat(1, 1, 1, 3)
    return Images(images, targets, known, f"{name} ({'/'.join(formats)} copies read from an image folder)")


def _mean_and_std(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel for pixels in 0 to 1, uint8 (N, H, W, C)."""
    # From counts: as floats the images of a large folder would fill the memory.
    levels = torch.arange(256, dtype=torch.float64) / 255
    shares = (
        torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(3)]).double() / images[..., 0].numel()
    )
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]).square()).sum(1)
    # A channel that is the same everywhere must still divide.
    return tuple(mean.tolist()), tuple(variance.sqrt().clamp_min(1 / 255).tolist())


def _digits(train: bool) -> Images:
    """The 1,797 digits of 8x8 pixels that scikit-learn brings, enlarged to 28x28; every fifth is a test image."""
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError:
        raise TrainingError("the data set digits comes with scikit-learn, which is not installed: pip install scikit-learn") from None
    raw = load_digits()
    test = torch.arange(len(raw.target)) % 5 == 0
    rows = ~test if train else test
    pixels = torch.as_tensor(raw.images, dtype=torch.float32)[rows, None] * (255 / 16)
    large = F.interpolate(pixels, (28, 28), mode="bilinear", align_corners=False).round().clamp(0, 255).to(torch.uint8)
    labels = torch.as_tensor(raw.target)[rows].long()
    return Images(large.permute(0, 2, 3, 1).contiguous(), labels, DATA["digits"], "digits (scikit-learn, enlarged to 28x28)")


def _resized(images: Images, size: int) -> Images:
    if not size or images.images.shape[1:3] == (size, size):
        return images
    pixels = images.images.permute(0, 3, 1, 2).float()
    pixels = F.interpolate(pixels, (size, size), mode="bilinear", align_corners=False, antialias=True)
    resized = pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return Images(resized, images.labels, images.info, images.source)
