"""What became of a cell: read from a finished run, or measured from its weights once."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from engines.errors import TrainingError
from engines.metadata import Curve
from engines.widths import format_width, parse_grid, parse_width
from trainer import checkpoint, recipe
from trainer.curve import measure_curve, read_curve, write_curve
from trainer.data import Images
from trainer.networks.kinds import evenly_spaced
from trainer.paper.cells import Cell
from trainer.statistics import gather_statistics

STEP = "0.01"


@dataclass(frozen=True)
class Result:
    """A filled cell.

    Attributes:
        cell: Which.
        curve: The width-accuracy curve on the test images.
        epochs: How many epochs the run had.
        paper_epochs: How many the paper gave it, or our recipe asks for.
        precision: Of the training steps.
        data: What the training images were and where they were read from.
    """

    cell: Cell
    curve: Curve
    epochs: int
    paper_epochs: int
    precision: str
    data: str

    def value(self, measure: str) -> float:
        """Percent: the area, or the accuracy at a width."""
        return 100 * (self.curve.area() if measure == "area" else self.curve.accuracy(parse_width(measure)))


Loader = Callable[[str, bool], Images]


def look_up(cell: Cell, runs: Path, load: Loader) -> Result | None:
    """The result of a finished run, or None where there is none.

    The curve is measured once and kept beside the weights. Data are loaded when they are needed and not before.

    Args:
        cell: Which.
        runs: Directory of the runs, each in a directory with its name.
        load: Gives a data set by name, its training images if the second argument is true.

    Raises:
        TrainingError: the weights are damaged, or are not of the cell's recipe.
    """
    place = runs / cell.run
    weights = place / "weights.safetensors"
    if not weights.exists():
        return None
    plan = recipe.read(cell.recipe)
    tensors, header = checkpoint.load(weights)
    # A shorter run or one in mixed precision is still this cell, and is shown as what it is; anything else is another experiment.
    same = recipe.changed(plan, epochs=header.recipe.epochs, precision=header.recipe.precision)
    if same != header.recipe:
        raise TrainingError(f"{weights} is not of the recipe {cell.recipe} as it is now: move {place} away and train anew")
    path = place / (f"curve-{cell.statistics}w.csv" if cell.statistics else "curve.csv")
    if path.exists() and path.stat().st_mtime >= weights.stat().st_mtime:  # else it is of weights that were here before
        curve = read_curve(path)
    else:
        network = header.network()
        checkpoint.restore(network, tensors, weights)
        test = load(plan.data, False)
        if cell.statistics:
            gather_statistics(network, load(plan.data, True), evenly_spaced(network.rule.a_min, cell.statistics))
        grid = parse_grid(f"{format_width(network.rule.a_min)}:1.0:{STEP}")
        curve = measure_curve(network, test, grid, data=f"{test.source} test")
        write_curve(path, curve)
    return Result(cell, curve, header.epochs_done, plan.epochs, header.recipe.precision, header.data or plan.data)


HEADER = ("row", "column", "measure", "paper", "ours", "difference", "epochs", "paper_epochs", "precision", "data", "run")


def rows(cells: Iterable[Cell], results: dict[Cell, Result]) -> list[tuple[str, ...]]:
    """The lines of the experiment's CSV: a missing cell has no number of ours."""
    lines = []
    for cell in cells:
        result = results.get(cell)
        for measure in cell.paper or ("area",):
            paper = cell.paper.get(measure)
            ours = result.value(measure) if result is not None else None
            difference = ours - paper if ours is not None and paper is not None else None
            figures = ["" if number is None else f"{number:.2f}" for number in (paper, ours, difference)]
            facts = ("missing", "", "", "")
            if result is not None:
                facts = (str(result.epochs), str(result.paper_epochs), result.precision, result.curve.data)
            lines.append((cell.row, cell.column, measure, *figures, *facts, cell.run))
    return lines


def to_csv(header: Iterable[str], lines: Iterable[Iterable[str]]) -> bytes:
    """CSV as bytes."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue().encode()
