#!/usr/bin/env python3
"""Train a network by a recipe and export the model file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tools.cli import command_line, console, progress_bar, run, typer

if TYPE_CHECKING:
    from engines.metadata import Curve
    from trainer import loop
    from trainer.board import Board
    from trainer.log import Epoch

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
    tensorboard: Annotated[bool, typer.Option(help="Write loss and accuracies for TensorBoard too.")] = False,
    precision: Annotated[str | None, typer.Option(help="float32 or bfloat16 (mixed) instead of the recipe's.")] = None,
) -> None:
    """Train a network by a recipe and export the model file.

    Writes into --out: last.safetensors (to resume from), weights.safetensors, log.csv, curve.csv with the accuracy of each width, and
    for an any-width network NAME.onnx, the model file.
    """
    from trainer import data, loop, processes
    from trainer import recipe as recipes
    from trainer.board import Board

    plan = recipes.changed(recipes.read(recipe), epochs=epochs, precision=precision)
    where = processes.start(device)
    train_images, test_images = (
        data.load(plan.data, root, train=part, download=download, size=plan.size).to(where) for part in (True, False)
    )
    training = loop.Run(plan, train_images, test_images, out or Path("runs") / plan.name)
    if resume:
        training.resume()
    if processes.rank() != 0:
        training.train()
        processes.stop()
        return
    board = Board(training.out) if tensorboard else None
    path, curve = complete(training, board)
    if board is not None:
        board.close()
    processes.stop()
    console.print(f"{path}: area under the width-accuracy curve {100 * curve.area():.2f} % on {curve.data}")


def complete(training: loop.Run, board: Board | None = None) -> tuple[Path, Curve]:
    """Train to the end of the recipe with a progress line, and write what a run leaves behind."""
    from trainer.finish import check, finish

    check(training)
    plan = training.recipe
    with progress_bar() as progress:
        task = progress.add_task(plan.name, total=plan.epochs, completed=len(training.epochs), detail="")

        def on_progress(at: loop.Progress) -> None:
            progress.update(task, completed=at.epoch - 1 + at.step / at.steps, detail=f"loss {at.loss:.4f}")

        def on_epoch(done: Epoch) -> None:
            shares = "  ".join(f"{width}: {100 * share:.2f} %" for width, share in done.accuracy.items())
            if board is not None:
                board.add(done)
            progress.console.print(f"epoch {done.epoch}/{plan.epochs}  loss {done.loss:.4f}  {shares}  {done.seconds:.0f} s")

        training.train(on_progress=on_progress, on_epoch=on_epoch)
    return finish(training)


def main() -> None:
    """Entry point."""
    run(app)


if __name__ == "__main__":
    main()
