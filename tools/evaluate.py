#!/usr/bin/env python3
"""Count the right answers of every engine of a bundle on labelled images."""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from engines.backends import Pool
from engines.bundle import Bundle
from engines.errors import InputError
from engines.files import write_atomically
from engines.metadata import Curve
from engines.widths import format_width, parse_grid
from tools.cli import Console, Table, Text, command_line, progress_bar, run, typer

BATCH = 250
SHOWN = "0.25,0.5,0.75,1.0"

app = command_line("Count the right answers of every engine of a bundle on labelled images.")


@app.command(
    epilog="Example: python tools/evaluate.py --data mnist --root data --weights engines/zoo/lenet3c1l-mnist.safetensors",
)
def evaluate(
    bundle: Annotated[Path | None, typer.Option(help="Directory of the bundle; as for sdk.AdaptiveClassifier if not given.")] = None,
    images: Annotated[Path | None, typer.Option(help="An .npz file with `images` (uint8, N, H, W, C) and `labels`.")] = None,
    data: Annotated[str | None, typer.Option(help="Or a data set of the trainer, its test images (needs torchvision).")] = None,
    root: Annotated[Path, typer.Option(help="Directory of the data sets.")] = Path("data"),
    weights: Annotated[Path | None, typer.Option(help="Trained weights; the network in torch is compared image by image.")] = None,
    show: Annotated[str | None, typer.Option(help="Widths to print, a grid; 0.25,0.5,0.75,1.0 if not given. All are evaluated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the counts of every width into this CSV file.")] = None,
) -> None:
    """Count the right answers of every engine of a bundle on labelled images, and the area under the curve.

    The counts stand beside those of the curve in the model file and, with --weights, those of the network in torch.
    """
    if weights is not None:
        import torch  # noqa: F401  (a missing one is said before the time is spent)
    source = Bundle(bundle)
    shown = [width for width in parse_grid(show or SHOWN) if show or width in source.widths]
    for width in shown:
        source.exit(width)
    pictures, labels, name = _load(images, data, root)
    if pictures.shape[1:] != source.manifest.image:
        raise InputError(f"{name} has images of {pictures.shape[1:]}, the engines of {source.path} read {source.manifest.image}")
    answers: dict[int, NDArray[np.int64]] = {}
    with source.open(max_batch=BATCH) as pool, progress_bar(counted=True) as progress:
        task = progress.add_task("networks", total=len(source.exits), detail="")
        for exit in range(len(source.exits)):
            answers[exit] = classify(pool, exit, pictures)
            progress.advance(task)
    by_width = {width: answers[source.exit(width)] for width in source.widths}
    torch_answers = _torch_answers(weights, pictures, list(by_width)) if weights is not None else {}
    correct = {width: int((found == labels).sum()) for width, found in by_width.items()}
    rows = []
    for width, entry in source.widths.items():
        stored = round(entry.accuracy * len(labels)) if entry.accuracy is not None and source.manifest.accuracy_data == name else None
        found = torch_answers.get(width)
        torch_correct = None if found is None else int((found == labels).sum())
        differ = None if found is None else int((found != by_width[width]).sum())
        rows.append((format_width(width), correct[width], len(labels), stored, torch_correct, differ))
    columns = ("width", "engine right", "images", "curve in the model file", "torch right", "images on which torch differs")
    title = Text(f"{source.manifest.name}, {source.manifest.backend} {source.manifest.precision}, on {name}")
    # A column that nothing was measured for is left out.
    filled = [i for i in range(len(columns)) if any(row[i] is not None for row in rows)]
    table = Table(*(columns[i] for i in filled), "accuracy %", title=title)
    for row in rows:
        if Fraction(row[0]) in shown:
            table.add_row(*(str(row[i]) for i in filled), f"{100 * row[1] / len(labels):.2f}")
    Console().print(table)
    if out is not None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([columns, *rows])
        write_atomically(out, text.getvalue().encode())
    curve = Curve(data=name, images=len(labels), correct={format_width(width): count for width, count in correct.items()})
    print(f"area under the width-accuracy curve over {len(rows)} widths: {100 * curve.area():.2f} %")
    for kind, position in (("the curve in the model file", 3), ("torch", 4)):
        pairs = [(row[1], row[position]) for row in rows if row[position] is not None]
        if pairs:
            print(f"counts equal to {kind}: {sum(a == b for a, b in pairs)} of {len(pairs)} widths")
    if torch_answers:
        print(f"images on which torch and the engines differ: {sum(row[5] or 0 for row in rows)} of {len(rows) * len(labels)}")


def classify(pool: Pool, exit: int, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The class that an exit gives each image: uint8 (N, H, W, C) to (N,)."""
    found = []
    most = len(pool.images)
    for start in range(0, len(images), most):
        part = images[start : start + most]
        pool.images[: len(part)] = part
        pool.run(exit, len(part))
        found.append(pool.logits[: len(part)].argmax(1))
    return np.concatenate(found)


def read_images(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Labelled images from an .npz file: uint8 (N, H, W, C) and (N,).

    Raises:
        InputError: it is missing, or does not hold that.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            pictures, labels = np.asarray(file["images"]), np.asarray(file["labels"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"cannot read labelled images from {path}: {error}") from None
    right = pictures.ndim == 4 and pictures.dtype == np.uint8 and len(pictures) and np.issubdtype(labels.dtype, np.integer)
    if not right or labels.shape != (len(pictures),):
        found = f"{pictures.dtype} {pictures.shape} and {labels.dtype} {labels.shape}"
        raise InputError(f"{path} must hold `images` uint8 (N, H, W, C) and `labels`, integers (N,); got {found}")
    return pictures, labels


def _load(path: Path | None, data: str | None, root: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64], str]:
    if (path is None) == (data is None):
        raise InputError("name either --images FILE.npz or --data NAME")
    if path is not None:
        return (*read_images(path), path.name)
    from trainer.data import load

    assert data is not None
    loaded = load(data, root, train=False)
    return loaded.images.numpy(), loaded.labels.numpy(), f"{data} test"


def _torch_answers(weights: Path, images: NDArray[np.uint8], widths: list[Fraction]) -> dict[Fraction, NDArray[np.int64]]:
    """What the trained network answers in torch, all widths from one pass."""
    import torch

    from trainer.checkpoint import load_network

    network, _ = load_network(weights)
    with torch.inference_mode():
        batches = torch.from_numpy(images).split(BATCH)
        answers = torch.cat([network.exits(batch, widths).argmax(2) for batch in batches], dim=1)
    return dict(zip(widths, answers.numpy(), strict=True))


def main() -> None:
    """Entry point."""
    run(app)


if __name__ == "__main__":
    main()
