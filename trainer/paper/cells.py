"""The cells of the paper's tables and figures: which recipe fills which, and what the paper has there."""

from __future__ import annotations

from dataclasses import dataclass, field

from trainer.paper.numbers import FIGURE_6, TABLE_1, TABLE_2


@dataclass(frozen=True, eq=False)  # by identity: a dictionary cannot be hashed
class Cell:
    """One trained network, looked at in one way.

    Attributes:
        row: Row of the table.
        column: Column of the table.
        recipe: The recipe that trains it; several cells may share a run.
        paper: What the paper has, in percent, by measure: a width, or "area". Empty where it has nothing.
        statistics: For a US-Net, at how many widths statistics are gathered.
    """

    row: str
    column: str
    recipe: str
    paper: dict[str, float] = field(default_factory=dict)
    statistics: int | None = None

    @property
    def run(self) -> str:
        """Name of its run and directory."""
        return self.recipe.replace("/", "-")


WIDTHS = ("1.0", "0.75", "0.5", "0.25")


def table1() -> list[Cell]:
    """Table 1: LeNet-3C1L on MNIST at four widths."""
    variants = {"Standard BN": "plain-bn", "Switchable BN": "s-net", "AWN": "awn"}
    return [Cell(row, "accuracy", f"paper-lenet3c1l-mnist/{variant}", TABLE_1[row]) for row, variant in variants.items()]


def table2() -> list[Cell]:
    """Table 2 and Figure 5: areas of all networks on all data sets, by the paper's recipes and by ours."""
    variants = {"AWN": "awn", "S-Net": "s-net", "AWN+RS": "awn-rs"}
    cells = []
    for (network, data), numbers in TABLE_2.items():
        row, base = f"{network} {data}", f"paper-{network}-{data}"
        cells += [Cell(row, column, f"{base}/{variant}", {"area": numbers[column]}) for column, variant in variants.items()]
        cells += [Cell(row, f"US-Net({n}w)", f"{base}/us-net", {"area": numbers[f"US-Net({n}w)"]}, n) for n in (4, 10, 20)]
        cells.append(Cell(row, "AWN, our recipe", f"{network}-{data}"))
    return cells


def figure4() -> list[Cell]:
    """Figure 4: area against the number of trained widths. The paper draws it without printing numbers."""
    counts = ("1", "2", "4", "8", "16", "all")
    return [Cell("lenet3c1l cifar10", count, f"paper-lenet3c1l-cifar10/widths-{count}") for count in counts]


def figure6() -> list[Cell]:
    """Figure 6: trained at full width alone, run at all."""
    return [Cell("lenet3c1l cifar10", name, f"paper-lenet3c1l-cifar10/{name}", {"area": area}) for name, area in FIGURE_6.items()]


EXPERIMENTS = {"table1": table1, "table2": table2, "figure4": figure4, "figure6": figure6}
