"""What a run leaves behind when it has ended."""

from __future__ import annotations

from pathlib import Path

from engines.metadata import Curve
from engines.widths import format_width, parse_grid
from trainer.curve import measure_curve, write_curve
from trainer.export import CURVE_STEP, check_export, export
from trainer.loop import Run


def check(run: Run) -> None:
    """Refuse a network that could not be exported, before time is spent on training it.

    Raises:
        TrainingError: the network has a part that cannot be exported; the message names it.
    """
    if run.kept.prefix:
        check_export(run.kept)


def finish(run: Run) -> tuple[Path, Curve]:
    """Measure the width-accuracy curve of a trained network and write `curve.csv`; an any-width network is exported as well.

    Returns:
        The file to use the network by, which is the model file `NAME.onnx` of an any-width network and else its weights; the curve.

    Raises:
        TrainingError: the network has a part that cannot be exported.
    """
    network = run.kept
    if network.prefix:
        path = run.out / f"{run.recipe.name}.onnx"
        curve = export(network, run.header, path, run.test_images).metadata.curve
        assert curve is not None
    else:
        path = run.out / "weights.safetensors"
        grid = parse_grid(f"{format_width(network.rule.a_min)}:1.0:{CURVE_STEP}")
        curve = measure_curve(network, run.test_images, grid, data=f"{run.test_images.source} test")
    write_curve(run.out / "curve.csv", curve)
    return path, curve
