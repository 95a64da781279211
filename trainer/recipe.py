"""Recipes: what to train, on what, and how, as TOML files.

A recipe may build on another with `base = "NAME"`, one that ships or a file beside it, and hold `[variants.X]` tables that change it: such
a one is named `FILE/X`.
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import msgspec

from engines.errors import TrainingError
from engines.widths import parse_grid

RECIPES = Path(__file__).parent / "recipes"


class Widths(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which widths a step trains, and how their losses join.

    Attributes:
        choose: "all" different sub-networks, the "fixed" widths of `grid`, or "random": a_min, 1 and `count` - 2 drawn between
            (paper, Algorithm 1).
        grid: The fixed widths, as a grid text.
        count: How many widths a random step has.
        loss: "sum" over the widths as in the paper, or their "mean", which keeps the learning rate apart from the number of widths.
        step: "one-pass", or "algorithm-1" with a pass a width.
    """

    choose: Literal["all", "fixed", "random"] = "all"
    grid: str = "0.25,0.5,0.75,1.0"
    count: int = 4
    loss: Literal["sum", "mean"] = "sum"
    step: Literal["one-pass", "algorithm-1"] = "one-pass"


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that determines a training run, besides the data themselves.

    Attributes:
        name: Name of the run and of the model file that comes of it.
        data: Data set, a key of `trainer.data.DATA` or an image folder.
        size: Height and width to bring the images to; 0 takes them as they are.
        network: Network, a key of `trainer.networks.NETWORKS`.
        arguments: Keyword arguments of the network.
        widths: Which widths a step trains.
        epochs: Passes over the training images.
        batch: Images a step.
        lr: Highest learning rate.
        schedule: "cosine" or "linear" to zero, or "steps": times `decay` at each fraction of the run in `milestones`.
        warmup: Epochs over which the learning rate rises from zero.
        momentum: Of SGD.
        nesterov: Nesterov's momentum.
        weight_decay: L2 penalty, on weights alone if `decay_all` is false.
        decay_all: Weight decay on batch norm and biases too.
        label_smoothing: Of the cross-entropy.
        distil: Self-distillation: the share of the full width's soft answers in what narrower widths learn from; 1 is US-Net's
            in-place distillation.
        ema: Decay a step of the averaged weights that are kept; 0 keeps the last weights.
        shift: Augmentation: pixels an image may move.
        flip: Augmentation: mirror half of the images.
        precision: "bfloat16" computes the features of a training step in mixed precision.
        seed: Of everything random.
    """

    name: str
    data: str
    size: int = 0
    network: str
    arguments: dict[str, object] = {}
    widths: Widths = Widths()
    epochs: int
    batch: int = 128
    lr: float
    schedule: Literal["cosine", "linear", "steps"] = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    decay: float = 0.1
    warmup: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_all: bool = True
    label_smoothing: float = 0.0
    distil: float = 0.0
    ema: float = 0.0
    shift: int = 0
    flip: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0

    def check(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            TrainingError: a figure is out of range; the message names it.
        """
        limits: dict[str, tuple[float, bool]] = {
            "epochs is at least 1": (self.epochs, self.epochs >= 1),
            "batch is at least 1": (self.batch, self.batch >= 1),
            "lr is a number above 0": (self.lr, 0 < self.lr < math.inf),
            "momentum is in [0, 1)": (self.momentum, 0 <= self.momentum < 1),
            "weight_decay is not below 0": (self.weight_decay, 0 <= self.weight_decay < math.inf),
            "warmup is in [0, epochs]": (self.warmup, 0 <= self.warmup <= self.epochs),
            "label_smoothing is in [0, 1]": (self.label_smoothing, 0 <= self.label_smoothing <= 1),
            "distil is in [0, 1]": (self.distil, 0 <= self.distil <= 1),
            "ema is in [0, 1)": (self.ema, 0 <= self.ema < 1),
            "shift is not below 0": (self.shift, self.shift >= 0),
            "size is not below 0": (self.size, self.size >= 0),
            "seed is in [0, 2^63)": (self.seed, 0 <= self.seed < 2**63),
            "widths.count is at least 2 (the narrowest and the full width)": (self.widths.count, self.widths.count >= 2),
            "nesterov needs a momentum above 0": (self.momentum, self.momentum > 0 or not self.nesterov),
        }
        for rule, (found, holds) in limits.items():
            if not holds:
                raise TrainingError(f"the recipe {self.name}: {rule}, got {found}")
        if self.distil and self.widths.choose == "fixed" and Fraction(1) not in parse_grid(self.widths.grid):
            raise TrainingError(f"the recipe {self.name}: distil needs width 1 among the fixed widths, got {self.widths.grid!r}")


def read(name: str) -> Recipe:
    """Read a recipe by the name of a shipped one, by path, or either with `/VARIANT` after it.

    Raises:
        TrainingError: there is no such file or variant, or a field is unknown, missing or of the wrong type.
    """
    table, variants, stem = _table(name, ())
    if table is None and "/" in name:
        file, _, variant = name.rpartition("/")
        table, variants, stem = _table(file, ())
        if table is not None:
            if variant not in variants:
                have = ", ".join(f"{file}/{known}" for known in variants) or "none"
                raise TrainingError(f"the recipe {file!r} has no variant {variant!r}; it has: {have}")
            table, variants, stem = _merged(table, variants[variant]), {}, f"{stem}-{variant}"
    if table is None:
        raise TrainingError(f"cannot read the recipe {name!r} (No such file or directory); shipped recipes: {', '.join(shipped())}")
    try:
        recipe = msgspec.convert({"name": stem} | table, Recipe)
    except msgspec.ValidationError as error:
        also = f"; it has variants, named {', '.join(f'{name}/{variant}' for variant in variants)}" if variants else ""
        raise TrainingError(f"the recipe {name} is not right: {error}{also}") from None
    recipe.check()
    return recipe


def changed(recipe: Recipe, **fields: object) -> Recipe:
    """A recipe with some fields replaced; None leaves a field as it is.

    Raises:
        TrainingError: a value is not right for its field.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        new = msgspec.convert(msgspec.to_builtins(recipe) | given, Recipe)
    except msgspec.ValidationError as error:
        raise TrainingError(f"the recipe {recipe.name} cannot be changed so: {error}") from None
    new.check()
    return new


def shipped() -> list[str]:
    """Names of the recipes that ship, with their variants."""
    names = []
    for file in sorted(RECIPES.glob("*.toml")):
        table, variants, _ = _table(file.stem, ())
        assert table is not None
        if "data" in table:
            names += [file.stem] if "network" in table else []  # else its variants bring one each
            names += [f"{file.stem}/{variant}" for variant in variants]
    return names


def _table(name: str, below: tuple[str, ...]) -> tuple[dict[str, Any] | None, dict[str, dict[str, Any]], str]:
    """A recipe's fields with those of its bases, its variants, and the name of its file; None where there is no file."""
    path = RECIPES / f"{name}.toml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        return None, {}, path.stem
    if name in below:
        raise TrainingError(f"the recipe {name!r} is its own base, by way of {', '.join(below)}")
    try:
        table: dict[str, Any] = msgspec.toml.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise TrainingError(f"the recipe {path} is not right: {error}") from None
    variants = table.pop("variants", {})
    base = table.pop("base", None)
    if not isinstance(variants, dict) or not all(isinstance(variant, dict) for variant in variants.values()):
        raise TrainingError(f"the recipe {path} is not right: variants are tables, [variants.NAME]")
    if base is not None:
        beside = path.parent / str(base)
        under, more, _ = _table(str(beside if beside.is_file() else base), (*below, name))
        if under is None:
            raise TrainingError(f"the recipe {path} has the base {base!r}, which is not there")
        under.pop("name", None)
        table, variants = _merged(under, table), _merged(more, variants)
    return table, variants, path.stem


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """One table over another, tables within them too."""
    tables = [key for key in under.keys() & over.keys() if isinstance(under[key], dict) and isinstance(over[key], dict)]
    both = {key: _merged(under[key], over[key]) for key in tables}
    return {**under, **over, **both}
