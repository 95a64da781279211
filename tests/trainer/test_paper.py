"""The paper's experiments: its numbers, and cells that are filled from runs and from nothing else."""

from __future__ import annotations

import csv
import os
from io import StringIO
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from engines.errors import TrainingError
from engines.widths import format_width, parse_grid
from tests.trainer import tiny
from tools import paper
from trainer import checkpoint, recipe
from trainer.data import DATA, Images
from trainer.loop import Run
from trainer.paper import figures, results, tracking
from trainer.paper.cells import EXPERIMENTS, Cell, figure6, table1, table2
from trainer.paper.numbers import COLUMNS, TABLE_1, TABLE_2
from trainer.recipe import Widths


def mnist_like(_: str, training: bool) -> Images:
    generator = torch.Generator().manual_seed(int(training))
    pixels = torch.randint(0, 256, (40, 28, 28, 1), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(40) % 10, DATA["mnist"], "random pixels")


def finished(cell: Cell, runs: Path, **fields: object) -> checkpoint.Header:
    """A run that has ended, without the training."""
    plan = recipe.changed(recipe.read(cell.recipe), **fields)
    data = DATA[plan.data]
    header = checkpoint.Header(
        recipe=plan,
        labels=data.labels,
        image=(28, 28, 1),
        mean=data.mean,
        std=data.std,
        epochs_done=plan.epochs,
        versions={},
        data="pixels",
    )
    torch.manual_seed(0)
    checkpoint.save(runs / cell.run / "weights.safetensors", header.network().state_dict(), header)
    return header


def fashion() -> dict[str, Cell]:
    return {cell.column: cell for cell in table2() if cell.row == "lenet3c1l fashion-mnist"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_cell_has_a_recipe(name: str) -> None:
    cells = EXPERIMENTS[name]()
    assert cells
    for cell in cells:
        assert recipe.read(cell.recipe).name == cell.run


def test_the_papers_numbers_are_where_they_belong() -> None:
    assert [list(numbers.values()) for numbers in TABLE_1.values()][2] == [98.97, 98.87, 98.82, 98.43]
    assert max(TABLE_2["mobilenetv2", "cifar10"].values()) == TABLE_2["mobilenetv2", "cifar10"]["US-Net(20w)"] == 92.09
    by_column = {(cell.row, cell.column): cell for cell in table2()}
    assert by_column["lenet3c1l cifar10", "AWN+RS"].paper == {"area": 73.75}
    assert by_column["lenet3c1l cifar10", "AWN+RS"].recipe == "paper-lenet3c1l-cifar10/awn-rs"
    assert by_column["mobilenetv2 cifar100", "US-Net(10w)"].statistics == 10
    assert len(by_column) == 5 * (len(COLUMNS) + 1)


def test_a_missing_run_is_missing(tmp_path: Path) -> None:
    cells = table1()
    assert all(results.look_up(cell, tmp_path, mnist_like) is None for cell in cells)
    lines = results.rows(cells, {})
    assert len(lines) == 12
    for line in lines:
        values = dict(zip(results.HEADER, line, strict=True))
        assert values["paper"]
        assert (values["ours"], values["difference"], values["epochs"]) == ("", "", "missing")


def test_a_finished_run_fills_its_cell(tmp_path: Path) -> None:
    cell = table1()[2]
    finished(cell, tmp_path, epochs=3, precision="bfloat16")
    result = results.look_up(cell, tmp_path, mnist_like)
    assert result is not None
    assert (result.epochs, result.paper_epochs, result.precision, result.data) == (3, 20, "bfloat16", "pixels")
    assert result.curve.data == "random pixels test"
    assert len(result.curve.correct) == 76
    line = dict(zip(results.HEADER, results.rows([cell], {cell: result})[1], strict=True))
    assert line["measure"] == "0.75"
    assert float(line["ours"]) == pytest.approx(100 * result.curve.correct["0.75"] / 40)
    assert float(line["difference"]) == pytest.approx(float(line["ours"]) - 98.87, abs=0.006)


def test_a_curve_is_measured_once_and_again_when_the_weights_are_new(tmp_path: Path) -> None:
    cell = table1()[2]
    finished(cell, tmp_path)
    first = results.look_up(cell, tmp_path, mnist_like)

    def never(name: str, training: bool) -> Images:
        raise AssertionError("data were loaded")

    assert results.look_up(cell, tmp_path, never).curve == first.curve  # type: ignore[union-attr]
    os.utime(tmp_path / cell.run / "curve.csv", (0, 0))
    with pytest.raises(AssertionError, match="data were loaded"):
        results.look_up(cell, tmp_path, never)


def test_a_us_net_is_measured_at_each_number_of_widths(tmp_path: Path) -> None:
    cells = fashion()
    finished(cells["US-Net(4w)"], tmp_path)
    curves = [results.look_up(cells[f"US-Net({n}w)"], tmp_path, mnist_like) for n in (4, 20)]
    assert all(curves)
    assert curves[0].curve != curves[1].curve  # type: ignore[union-attr]
    assert {path.name for path in (tmp_path / cells["US-Net(4w)"].run).glob("*.csv")} == {"curve-4w.csv", "curve-20w.csv"}


def test_a_run_of_another_recipe_does_not_fill_a_cell(tmp_path: Path) -> None:
    cell = table1()[2]
    finished(cell, tmp_path, lr=0.5)
    with pytest.raises(TrainingError, match="not of the recipe paper-lenet3c1l-mnist/awn as it is now"):
        results.look_up(cell, tmp_path, mnist_like)


@pytest.mark.parametrize("name", ["table1", "table2", "figure4", "figure6"])
def test_a_figure_shows_what_is_there_and_names_what_is_missing(name: str, tmp_path: Path) -> None:
    source = table1()[2]
    finished(source, tmp_path)
    result = results.look_up(source, tmp_path, mnist_like)
    assert result is not None
    cells = EXPERIMENTS[name]()
    figures.draw(name, tmp_path / "f.svg", cells, {cells[0]: results.Result(cells[0], result.curve, 20, 20, "float32", "pixels")})
    assert (tmp_path / "f.svg").stat().st_size > 5000


@pytest.mark.parametrize(("kind", "apart"), [("awn", False), ("plain-bn", True), ("s-net", True)])
def test_statistics_agree_between_widths_in_an_awn_alone(kind: str, apart: bool, tmp_path: Path) -> None:
    plan = tiny.recipe(kind=kind, widths=Widths(choose="fixed", step="algorithm-1"))
    train = tiny.images(64)
    lines, spread = tracking.track(Run(plan, train, train, tmp_path), train, steps=6, every=2)
    assert list(spread) == ["features.1", "features.4", "features.8"]
    assert spread["features.1"] < 1e-5  # reads the image, which is there at every width
    assert (max(spread.values()) > 0.1) is apart
    if not apart:
        assert max(spread.values()) < 1e-5  # the paper's finding, Figure 2 (c)
    widths = {line[4] for line in lines}
    assert widths == {"0.25", "0.5", "0.75", "1.0"} | (set() if kind == "s-net" else {"shared"})
    assert {line[0] for line in lines} == {"2", "4", "6"}
    figures.draw_tracking(tmp_path / "f.svg", {kind: lines}, "features.4")
    assert (tmp_path / "f.svg").stat().st_size > 5000


def test_the_shared_statistics_of_an_awn_are_those_of_each_width(tmp_path: Path) -> None:
    plan = tiny.recipe(widths=Widths(choose="fixed", step="algorithm-1"), lr=1e-9)
    train = tiny.images(64)
    lines, _ = tracking.track(Run(plan, train, train, tmp_path), train, steps=60, every=60)
    found = {(line[1], line[3], line[4]): float(line[5]) for line in lines}
    assert found["features.4", "mean", "shared"] == pytest.approx(found["features.4", "mean", "1.0"], rel=0.1, abs=0.02)


def test_the_tool_shows_missing_cells_and_fills_the_rest(tmp_path: Path) -> None:
    cell = figure6()[0]
    plan = recipe.read(cell.recipe)
    data = DATA[plan.data]
    header = checkpoint.Header(
        recipe=plan, labels=data.labels, image=(32, 32, 3), mean=data.mean, std=data.std, epochs_done=100, versions={}, data="pixels"
    )
    checkpoint.save(tmp_path / cell.run / "weights.safetensors", header.network().state_dict(), header)
    grid = ",".join(format_width(width) for width in parse_grid("0.25:1.0:0.25"))
    rows = "\n".join(f"{width},{i * 10},100,squares test" for i, width in enumerate(grid.split(",")))
    (tmp_path / cell.run / "curve.csv").write_text(f"width,correct,images,data\n{rows}\n")
    arguments = ["figure6", "--no-train", "--runs", str(tmp_path), "--out", str(tmp_path / "out")]
    outcome = CliRunner().invoke(paper.app, arguments)
    assert outcome.exit_code == 0, outcome.output
    lines = list(csv.DictReader(StringIO((tmp_path / "out/figure6.csv").read_text())))
    assert [(line["paper"], line["ours"], line["difference"], line["epochs"]) for line in lines] == [
        ("35.85", "15.00", "-20.85", "100"),
        ("20.51", "", "", "missing"),
    ]
    assert (tmp_path / "out/figure6.svg").exists()
