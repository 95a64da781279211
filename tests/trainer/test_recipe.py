"""Recipes: shipped ones, bases, variants, and what is wrong with a bad one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from engines.errors import TrainingError
from engines.widths import parse_grid
from trainer import recipe
from trainer.checkpoint import Header
from trainer.data import info
from trainer.loop import _check

GOOD = 'data = "mnist"\nnetwork = "lenet3c1l"\nepochs = 3\nlr = 0.1\n'
SIZES = {"mnist": (28, 28, 1), "fashion-mnist": (28, 28, 1), "digits": (28, 28, 1), "cifar10": (32, 32, 3), "cifar100": (32, 32, 3)}


@pytest.mark.parametrize("name", recipe.shipped())
def test_every_shipped_recipe_can_be_trained(name: str) -> None:
    plan = recipe.read(name)
    assert plan.name == name.replace("/", "-")
    data = info(plan.data)
    header = Header(recipe=plan, labels=data.labels, image=SIZES[plan.data], mean=data.mean, std=data.std, epochs_done=0, versions={})
    _check(header.network(), plan)


def test_the_papers_training_details() -> None:
    fashion, cifar = recipe.read("paper-lenet3c1l-fashion-mnist/awn"), recipe.read("paper-lenet3c1l-cifar100/us-net")
    for plan in (fashion, cifar):
        assert (plan.lr, plan.momentum, plan.batch, plan.decay, plan.milestones) == (0.01, 0.9, 128, 0.1, (0.5, 0.75))
        assert (plan.widths.count, plan.widths.loss, plan.schedule) == (4, "sum", "steps")
    assert (fashion.epochs, fashion.weight_decay, cifar.epochs, cifar.weight_decay) == (20, 0, 100, 5e-4)
    assert fashion.widths.choose == "fixed"
    assert parse_grid(fashion.widths.grid) == tuple(Fraction(i, 4) for i in (1, 2, 3, 4))
    assert (cifar.widths.choose, cifar.widths.step, cifar.arguments["kind"]) == ("random", "algorithm-1", "us-net")
    awn = recipe.read("paper-mobilenetv2-cifar10/awn")
    assert (awn.epochs, awn.lr, awn.decay, awn.weight_decay) == (700, 0.02, 0.2, 0.001)
    assert [awn.epochs * share for share in awn.milestones] == pytest.approx([500, 600])
    random = recipe.read("paper-mobilenetv2-cifar100/awn-rs")
    assert (random.epochs, random.lr, random.decay, random.weight_decay) == (1050, 0.01, 0.1, 5e-4)
    assert [random.epochs * share for share in random.milestones] == pytest.approx([750, 900])
    slim = recipe.read("paper-mobilenetv2-cifar100/s-net")
    assert (slim.epochs, slim.lr, slim.schedule, slim.weight_decay) == (100, 0.1, "linear", 5e-4)


@pytest.mark.parametrize("count", [1, 2, 4, 8, 16])
def test_figure_4_trains_so_many_widths(count: int) -> None:
    widths = parse_grid(recipe.read(f"paper-lenet3c1l-cifar10/widths-{count}").widths.grid)
    assert len(widths) == count
    assert widths[-1] == 1


def test_a_recipe_by_path_with_base_and_variant(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'base = "lenet3c1l-mnist"\nepochs = 2\n[widths]\ncount = 7\n[variants.wide]\narguments = { channels = 64 }\n'
    )
    plain = recipe.read(str(tmp_path / "mine.toml"))
    assert (plain.name, plain.epochs, plain.widths.count, plain.widths.loss) == ("mine", 2, 7, "mean")
    wide = recipe.read(f"{tmp_path / 'mine.toml'}/wide")
    assert (wide.name, wide.arguments["channels"], wide.arguments["a_min"]) == ("mine-wide", 64, "0.25")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr = 'fast'\n" + GOOD.replace("lr = 0.1\n", ""), r"lr"),
        (GOOD + "speed = 3", "unknown field `speed`"),
        (GOOD.replace("epochs = 3", ""), "missing required field `epochs`"),
        (GOOD + "= 3", "is not right"),
        (GOOD.replace("3", "0"), "epochs is at least 1, got 0"),
        (GOOD.replace("0.1", "nan"), "lr is a number above 0, got nan"),
        (GOOD.replace("0.1", "inf"), "lr is a number above 0, got inf"),
        (GOOD + "momentum = 1.0", r"momentum is in \[0, 1\), got 1.0"),
        (GOOD + "batch = 0", "batch is at least 1, got 0"),
        (GOOD + "weight_decay = -1.0", "weight_decay is not below 0"),
        (GOOD + "warmup = 4", r"warmup is in \[0, epochs\], got 4"),
        (GOOD + "ema = 1.0", "ema is in"),
        (GOOD + f"seed = {2**63}", "seed is in"),
        (GOOD + "distil = 2", "distil is in"),
        (GOOD + "nesterov = true\nmomentum = 0.0", "nesterov needs a momentum"),
        (GOOD + "schedule = 'wave'", "wave"),
        (GOOD + "distil = 0.5\nwidths = { choose = 'fixed', grid = '0.25,0.5' }", "distil needs width 1"),
        (GOOD + "widths = { choose = 'random', count = 1 }", "widths.count is at least 2"),
        (GOOD + "base = 'nothing'", "has the base 'nothing', which is not there"),
        (GOOD + "variants = 3", "variants are tables"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(TrainingError, match=message):
        recipe.read(str(tmp_path / "bad.toml"))


def test_a_base_may_lie_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "common.toml").write_text(GOOD)
    (tmp_path / "mine.toml").write_text('base = "common.toml"\nepochs = 7\n')
    assert recipe.read(str(tmp_path / "mine.toml")).epochs == 7


def test_a_table_over_what_is_none_takes_its_place(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(GOOD + "arguments = 3\n[variants.a]\narguments = { channels = 4 }\n")
    assert recipe.read(f"{tmp_path / 'mine.toml'}/a").arguments == {"channels": 4}


def test_a_name_that_no_recipe_has_lists_those_that_ship() -> None:
    with pytest.raises(TrainingError, match=r"'lenet'.*paper-lenet3c1l-mnist/plain-bn"):
        recipe.read("lenet")


def test_a_variant_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(TrainingError, match=r"no variant 'awm'; it has: paper-lenet3c1l-mnist/awn"):
        recipe.read("paper-lenet3c1l-mnist/awm")


def test_a_base_alone_says_which_variants_it_has() -> None:
    with pytest.raises(TrainingError, match=r"missing required field.*paper-lenet3c1l/awn"):
        recipe.read("paper-lenet3c1l")


def test_a_recipe_that_is_its_own_base(tmp_path: Path) -> None:
    path = tmp_path / "loop.toml"
    path.write_text(f"base = '{path}'\n")
    with pytest.raises(TrainingError, match="its own base"):
        recipe.read(str(path))


def test_a_changed_recipe_is_checked() -> None:
    plan = recipe.read("lenet3c1l-mnist")
    assert recipe.changed(plan, epochs=3, precision=None).epochs == 3
    with pytest.raises(TrainingError, match="float16"):
        recipe.changed(plan, precision="float16")
    with pytest.raises(TrainingError, match="epochs is at least 1"):
        recipe.changed(plan, epochs=0)
