#!/usr/bin/env python3
"""Run the paper's experiments, or take finished runs, and set the numbers side by side."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from enum import Enum
from functools import cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from engines.errors import TrainingError
from engines.files import write_atomically
from tools.cli import Table, command_line, console, progress_bar, run, typer

if TYPE_CHECKING:
    from trainer.data import Images
    from trainer.paper.cells import Cell
    from trainer.paper.results import Loader, Result

app = command_line("The paper's experiments.")


class Experiment(str, Enum):
    """What can be run."""

    TABLE1 = "table1"
    FIGURE2 = "figure2"
    TABLE2 = "table2"
    FIGURE4 = "figure4"
    FIGURE6 = "figure6"


@app.command(epilog="Example: python tools/paper.py table1 --root data --runs runs")
def paper(
    experiment: Annotated[Experiment, typer.Argument(help="Which table or figure.")],
    root: Annotated[Path, typer.Option(help="Directory of the data sets, as torchvision or image folders lay them out.")] = Path("data"),
    runs: Annotated[Path, typer.Option(help="Directory of the runs; finished ones are taken, broken off ones go on.")] = Path("runs"),
    out: Annotated[Path, typer.Option(help="Directory for the CSV and the figure.")] = Path("docs/paper"),
    train: Annotated[bool, typer.Option(help="Train what is missing; else show it as missing.")] = True,
    only: Annotated[str, typer.Option(help="Take only cells whose run has this in its name, for example cifar10.")] = "",
    epochs: Annotated[int | None, typer.Option(help="Train so many epochs instead of the recipe's.", min=1)] = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bfloat16 (mixed) instead of the recipe's.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU if there is one.")] = "auto",
    download: Annotated[bool, typer.Option(help="Fetch data sets that are missing.")] = False,
    steps: Annotated[int, typer.Option(help="figure2: training steps to look at.", min=10)] = 468,
) -> None:
    """Run an experiment of the paper cell by cell and set its number, ours and the difference side by side.

    Broken off, the same command goes on. Writes EXPERIMENT.csv and EXPERIMENT.svg.
    """
    from trainer import data
    from trainer.device import choose_device

    where = choose_device(device)

    @cache
    def load(name: str, training: bool) -> Images:
        return data.load(name, root, train=training, download=download).to(where)

    if experiment is Experiment.FIGURE2:
        _figure2(runs, out, load, steps)
        return
    from trainer.paper import cells, figures, results

    chosen = [cell for cell in cells.EXPERIMENTS[experiment.value]() if only in cell.run]
    if not chosen:
        raise TrainingError(f"no cell of {experiment.value} has {only!r} in the name of its run")
    found: dict[Cell, Result] = {}
    for cell in chosen:
        result = results.look_up(cell, runs, load)
        if result is None and train:
            _train(cell, runs, load, epochs, precision)
            result = results.look_up(cell, runs, load)
        if result is not None:
            found[cell] = result
    lines = results.rows(chosen, found)
    out.mkdir(parents=True, exist_ok=True)
    table = out / f"{experiment.value}.csv"
    write_atomically(table, results.to_csv(results.HEADER, lines))
    _show(experiment.value, ("row", "column", "measure", "paper", "ours", "difference", "epochs"), [_short(line) for line in lines])
    for source in sorted({result.curve.data for result in found.values()}):
        console.print(f"measured on: {source}")
    if found:
        figures.draw(experiment.value, out / f"{experiment.value}.svg", chosen, found)
    missing = sorted({cell.run for cell in chosen if cell not in found})
    console.print(f"{table}: {len(found)} of {len(chosen)} cells" + (f"; missing: {', '.join(missing)}" if missing else ""))


def _train(cell: Cell, runs: Path, load: Loader, epochs: int | None, precision: str | None) -> None:
    from tools.train import complete
    from trainer import checkpoint, loop
    from trainer import recipe as recipes

    plan = recipes.changed(recipes.read(cell.recipe), epochs=epochs, precision=precision)
    place = runs / cell.run
    begun = (place / "last.safetensors").exists()
    if begun:  # go on as it was begun, whatever length and precision were asked for then
        before = checkpoint.load(place / "last.safetensors")[1].recipe
        plan = recipes.changed(plan, epochs=before.epochs, precision=before.precision)
    training = loop.Run(plan, load(plan.data, True), load(plan.data, False), place)
    if begun:
        training.resume()
    complete(training)


def _figure2(runs: Path, out: Path, load: Loader, steps: int) -> None:
    from trainer import loop
    from trainer import recipe as recipes
    from trainer.paper import figures, results, tracking
    from trainer.paper.cells import table1

    tracked = {}
    for cell in table1():
        path = runs / cell.run / f"statistics-{steps}.csv"
        if not path.exists():
            train = load("mnist", True)
            training = loop.Run(recipes.read(cell.recipe), train, load("mnist", False), runs / cell.run)
            with progress_bar() as progress:
                task = progress.add_task(cell.row, total=steps, detail="")
                lines, spread = tracking.track(training, train, steps=steps, on_step=lambda _: progress.advance(task))  # noqa: B023
            lines += [(str(steps), layer, "all", "spread", "all", f"{apart:.3g}") for layer, apart in spread.items()]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, results.to_csv(tracking.HEADER, lines))
        tracked[cell.row] = [tuple(line) for line in csv.reader(StringIO(path.read_text()))][1:]
    out.mkdir(parents=True, exist_ok=True)
    whole = [(name, *line) for name, lines in tracked.items() for line in lines]
    write_atomically(out / "figure2.csv", results.to_csv(("network", *tracking.HEADER), whole))
    apart = [(name, line[1], line[5]) for name, lines in tracked.items() for line in lines if line[3] == "spread"]
    _show(
        "figure2: largest distance between widths, in standard deviations (means) or as a share (variances)",
        ("network", "layer", "distance"),
        apart,
    )
    # The first layer reads the image, which is there at every width: the second is the first where the networks differ.
    second = list(dict.fromkeys(line[1] for line in tracked["AWN"]))[1]
    figures.draw_tracking(out / "figure2.svg", tracked, second)
    console.print(f"{out / 'figure2.csv'}, figure2.svg: batch norm {second}")


def _short(line: Sequence[str]) -> Sequence[str]:
    """A line of the CSV as it fits on a screen."""
    *figures, epochs, paper_epochs, precision, _, _ = line
    return (*figures, f"{epochs} of {paper_epochs}{', bfloat16' if precision == 'bfloat16' else ''}" if paper_epochs else epochs)


def _show(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    table = Table(title=title)
    for name in header:
        table.add_column(name, justify="left" if name in ("row", "column", "data", "run", "network") else "right")
    for line in lines:
        table.add_row(*line)
    console.print(table)


def main() -> None:
    """Entry point."""
    run(app)


if __name__ == "__main__":
    main()
