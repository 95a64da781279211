"""The curve of all widths equals a pass a width."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from engines.errors import TrainingError
from engines.widths import format_width, parse_grid
from tests.trainer import tiny
from trainer.curve import measure_curve, read_curve, write_curve
from trainer.networks import AnyWidthNetwork
from trainer.statistics import gather_statistics

GRID = parse_grid("0.25:1.0:0.01")


def pass_by_pass(net: AnyWidthNetwork) -> dict[str, int]:
    test = tiny.images(120, seed=1)
    net.eval()
    return {format_width(w): int((net.logits_at(test.images, w).argmax(1) == test.labels).sum()) for w in GRID}


@pytest.mark.parametrize(
    ("name", "divisor", "kind"),
    [("lenet3c1l", 1, "awn"), ("mixed", 8, "awn"), ("lenet3c1l", 1, "plain-bn"), ("lenet3c1l", 1, "s-net"), ("lenet3c1l", 1, "us-net")],
)
def test_the_curve_is_what_each_width_answers(name: str, divisor: int, kind: str) -> None:
    net = tiny.network(name, divisor, kind=kind)
    gather_statistics(net, tiny.images(60), parse_grid("0.25,0.495,0.6,1"), batch=20)
    tiny.with_statistics(net)
    curve = measure_curve(net, tiny.images(120, seed=1), GRID, data="squares", batch=50)
    assert net.training
    assert (curve.images, curve.data) == (120, "squares")
    expected = pass_by_pass(net)
    # In float32 a near-tie may fall either way between kernels of different sizes.
    assert max(abs(curve.correct[width] - count) for width, count in expected.items()) <= 1
    assert len(set(expected.values())) > 1


def test_the_network_is_left_at_full_width() -> None:
    for kind in ("awn", "s-net"):
        net = tiny.network("lenet3c1l", kind=kind)
        before = net.eval()(tiny.images().images)
        measure_curve(net, tiny.images(), [Fraction(1, 4)], data="")
        assert not net.training
        assert (net(tiny.images().images) == before).all()


def test_a_curve_comes_back_from_its_file(tmp_path: Path) -> None:
    curve = measure_curve(tiny.network("mixed"), tiny.images(50), GRID, data="squares, made up")
    write_curve(tmp_path / "curve.csv", curve)
    assert read_curve(tmp_path / "curve.csv") == curve


@pytest.mark.parametrize("text", ["", "width,correct\n0.5,3\n", "width,correct,images,data\n0.5,x,3,d\n"])
def test_a_damaged_curve_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "curve.csv").write_text(text)
    with pytest.raises(TrainingError, match="cannot read the curve"):
        read_curve(tmp_path / "curve.csv")
