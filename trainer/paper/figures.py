"""The figures of the experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import TrainingError
from engines.widths import parse_width
from trainer.paper.cells import WIDTHS, Cell
from trainer.paper.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Results = Mapping[Cell, Result]


def draw(name: str, path: Path, cells: Sequence[Cell], results: Results) -> None:
    """Draw a figure of an experiment; cells that are missing are left out and named in the title.

    Args:
        name: table1, table2, figure4 or figure6.
        path: Where; SVG or PNG by its ending.
        cells: The experiment's cells.
        results: Those that are filled; at least one.
    """
    pyplot = _pyplot()
    rows = list(dict.fromkeys(cell.row for cell in cells if cell in results))
    panels = rows if name == "table2" else [""]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5.2 * len(panels), 3.8), layout="constrained", squeeze=False)
    for panel, axis in zip(panels, axes[0], strict=True):
        here = [cell for cell in cells if not panel or cell.row == panel]
        if name == "table1":
            _table1(axis, here, results)
        elif name == "figure4":
            _figure4(axis, here, results)
        else:
            _curves(axis, here, results)
        done = [results[cell] for cell in here if cell in results]
        title = {"table1": "LeNet-3C1L, MNIST"}.get(name, here[0].row)
        missing = [cell.column if name != "table1" else cell.row for cell in here if cell not in results]
        axis.set_title(f"{title}\n{done[0].curve.data}" + (f"\nmissing: {', '.join(missing)}" if missing else ""), fontsize=8)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    _save(figure, path)


def draw_tracking(path: Path, lines: Mapping[str, Sequence[Sequence[str]]], layer: str) -> None:
    """Figure 2: means above, variances below, a column for each network.

    Args:
        path: Where.
        lines: For each network, lines under `trainer.paper.tracking.HEADER`.
        layer: The batch norm to show.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(2, len(lines), figsize=(4 * len(lines), 5), layout="constrained", squeeze=False, sharex=True)
    for column, (name, tracked) in enumerate(lines.items()):
        for row, statistic in enumerate(("mean", "variance")):
            axis = axes[row, column]
            chosen = [line for line in tracked if line[1] == layer and line[3] == statistic]
            for width in dict.fromkeys(line[4] for line in chosen):
                points = [(int(line[0]), float(line[5])) for line in chosen if line[4] == width]
                style: dict[str, Any] = {"color": "black", "linestyle": ":"} if width == "shared" else {}
                axis.plot(*zip(*points, strict=True), label=width, linewidth=1, **style)
            axis.set_ylabel(statistic)
            axis.grid(alpha=0.3)
        axes[0, column].set_title(name, fontsize=9)
        axes[1, column].set_xlabel("training step")
    axes[0, 0].legend(title="width", fontsize=7)
    _save(figure, path)


def _table1(axis: Axes, cells: Sequence[Cell], results: Results) -> None:
    for colour, cell in enumerate(cells):
        x = [float(parse_width(width)) for width in WIDTHS]
        axis.plot(x, [cell.paper[width] for width in WIDTHS], "o--", color=f"C{colour}", alpha=0.5, label=f"{cell.row}, paper")
        if cell in results:
            ours = [results[cell].value(width) for width in WIDTHS]
            axis.plot(x, ours, "s-", color=f"C{colour}", label=f"{cell.row}, {_epochs(results[cell])}")
    axis.set_xlabel("width")
    axis.set_ylabel("test accuracy, %")


def _curves(axis: Axes, cells: Sequence[Cell], results: Results) -> None:
    for cell in cells:
        if cell in results:
            result = results[cell]
            points = sorted((float(parse_width(width)), 100 * count / result.curve.images) for width, count in result.curve.correct.items())
            paper = f", paper {cell.paper['area']:.2f}" if cell.paper else ""
            label = f"{cell.column}: {result.value('area'):.2f}{paper} ({_epochs(result)})"
            axis.plot(*zip(*points, strict=True), label=label, linewidth=1.2)
    axis.set_xlabel("width")
    axis.set_ylabel("test accuracy, %")


def _figure4(axis: Axes, cells: Sequence[Cell], results: Results) -> None:
    done = [cell for cell in cells if cell in results]
    axis.plot(
        [cell.column for cell in done],
        [results[cell].value("area") for cell in done],
        "o-",
        label=f"one pass a step, {_epochs(results[done[0]])}",
    )
    axis.set_xlabel("trained widths")
    axis.set_ylabel("area under the width-accuracy curve, %")


def _epochs(result: Result) -> str:
    return f"{result.epochs} of {result.paper_epochs} epochs" + (", bfloat16" if result.precision == "bfloat16" else "")


def _pyplot() -> Any:
    try:
        import matplotlib as mpl
    except ImportError:
        raise TrainingError("a figure needs matplotlib: pip install matplotlib") from None
    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "any-width-networks", "font.size": 9})
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    _pyplot().close(figure)
