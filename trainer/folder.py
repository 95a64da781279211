"""Image folders: `<class>/*.jpg` decoded once into memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.errors import TrainingError

SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WebP", ".bmp": "BMP", ".ppm": "PPM"}


def classes(place: Path) -> tuple[str, ...]:
    """The classes of a folder, which are its directories in alphabetical order, but for hidden ones.

    Raises:
        TrainingError: there are none.
    """
    names = tuple(sorted(entry.name for entry in place.iterdir() if entry.is_dir() and entry.name[0] != ".")) if place.is_dir() else ()
    if not names:
        raise TrainingError(f"{place} has no directories; an image folder has one for each class: {place}/<class>/*.jpg")
    return names


def read(place: Path, labels: tuple[str, ...], size: int) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Decode every image below a folder.

    Args:
        place: The folder.
        labels: Its classes, in the order of the labels.
        size: Scale the shorter side to this and take the middle; 0 takes images as they are, which must then agree in size.

    Returns:
        Images, uint8 (N, H, W, C); labels, int64 (N,); the file formats that were seen. One channel if every image is grey, else 3.

    Raises:
        TrainingError: a class has no images, one cannot be read, their sizes differ, or a class is not in `labels`.
    """
    strange = set(classes(place)) - set(labels)
    if strange:
        raise TrainingError(f"{place} has classes that the training images do not have: {', '.join(sorted(strange))}")
    files = [(file, index) for index, label in enumerate(labels) for file in _images(place / label)]
    # Decoding lets go of the interpreter lock.
    with ThreadPoolExecutor() as pool:
        pictures = list(pool.map(lambda file: _decode(file[0], size), files))
    shapes = {picture.shape[:2] for picture in pictures}
    if len(shapes) > 1:
        some = ", ".join(f"{height}x{width}" for height, width in sorted(shapes)[:4])
        raise TrainingError(f"the images at {place} have {len(shapes)} different sizes ({some}, ...): set size in the recipe")
    if len({picture.ndim for picture in pictures}) > 1:
        pictures = [picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, 2) for picture in pictures]
    stacked = np.stack(pictures)
    images = torch.from_numpy(stacked if stacked.ndim == 4 else stacked[..., None])
    formats = tuple(sorted({SUFFIXES[file.suffix.lower()] for file, _ in files}))
    return images, torch.tensor([index for _, index in files]), formats


def _images(place: Path) -> list[Path]:
    if not place.is_dir():
        return []
    files = sorted(file for file in place.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise TrainingError(f"there are no images in {place}; formats are {', '.join(sorted(SUFFIXES))}")
    return files


def _decode(file: Path, size: int) -> NDArray[np.uint8]:
    try:
        from PIL import Image
    except ImportError:
        raise TrainingError("an image folder needs Pillow, which is not installed: pip install pillow") from None
    try:
        with Image.open(file) as opened:
            image = opened if opened.mode in ("L", "RGB") else opened.convert("RGB")
            if size:
                scale = size / min(image.size)
                image = image.resize(
                    (max(size, round(image.width * scale)), max(size, round(image.height * scale))), Image.Resampling.BILINEAR
                )
                left, top = (image.width - size) // 2, (image.height - size) // 2
                image = image.crop((left, top, left + size, top + size))
            return np.asarray(image, np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # a broken PNG is a SyntaxError to Pillow
        raise TrainingError(f"cannot read the image {file}: {error}") from None
