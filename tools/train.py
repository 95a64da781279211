#!/usr/bin/env python3
"""Train a network by a recipe and export the model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tools.cli import command_line, console, progress_bar, run

app = command_line("Train any-width networks.")


@app.command(
    epilog="Example: python tools/train.py --recipe lenet3c1l-mnist --root data --download --out runs/lenet3c1l-mnist",
)
def train(
    recipe: Annotated[str, typer.Option(help="Name of a shipped recipe (with /VARIANT), or path of a TOML file.")] = "lenet3c1l-mnist",
    root: Annotated[Path, typer.Option(help="Directory of the data sets: torchvision's, or NAME/{train,test}/<class>/*.jpg.")] = Path(
        "data"
    ),
    out: Annotated[Path | None, typer.Option(help="Directory of the run; runs/NAME if not given.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU if there is one.")] = "auto",
    download: Annotated[bool, typer.Option(help="Fetch the data set if it is missing.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint of the run.")] = False,
    epochs: Annotated[int | None, typer.Option(help="Train so many epochs instead of the recipe's.", min=1)] = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bfloat16 (mixed) instead of the recipe's.")] = None,
) -> None:
    """Train a network by a recipe and export the model file.

    Writes into --out: last.safetensors (to resume from), weights.safetensors, log.csv, curve.csv with the accuracy of each width, and
    for an any-width network NAME.onnx, the model file.
    """
    import torch

    from engines.widths import format_width, parse_grid
    from trainer import curve, data, export, loop
    from trainer import recipe as recipes

    plan = recipes.read(recipe)
    plan = recipes.changed(plan, epochs=epochs, precision=precision)
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    train_images = data.load(plan.data, root, train=True, download=download, size=plan.size).to(where)
    test_images = data.load(plan.data, root, train=False, download=download, size=plan.size).to(where)
    out = out or Path("runs") / plan.name
    training = loop.Run(plan, train_images, test_images, out)
    if resume:
        training.resume()
    with progress_bar() as progress:
        task = progress.add_task(plan.name, total=plan.epochs, completed=len(training.epochs), detail="")

        def on_progress(at: loop.Progress) -> None:
            progress.update(
                task,
                completed=at.epoch - 1 + at.step / at.steps,
                detail=f"loss {at.loss:.4f}",
            )

        def on_epoch(done: loop.Epoch) -> None:
            shares = "  ".join(f"{width}: {100 * share:.2f} %" for width, share in done.accuracy.items())
            progress.console.print(f"epoch {done.epoch}/{plan.epochs}  loss {done.loss:.4f}  {shares}  {done.seconds:.0f} s")

        training.train(on_progress=on_progress, on_epoch=on_epoch)
    kept = training.kept
    if kept.prefix:
        path = out / f"{plan.name}.onnx"
        measured = export.export(kept, training.header, path, test_images).metadata.curve
        assert measured is not None
    else:
        path = out / "weights.safetensors"
        grid = parse_grid(f"{format_width(kept.rule.a_min)}:1.0:{export.CURVE_STEP}")
        measured = curve.measure_curve(kept, test_images, grid, data=f"{test_images.source} test")
    curve.write_curve(out / "curve.csv", measured)
    console.print(f"{path}: area under the width-accuracy curve {100 * measured.area():.2f} % on {measured.data}")


def main() -> None:
    """Entry point."""
    run(app)


if __name__ == "__main__":
    main()
