"""Recipes: what to train, on what, and how, as a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from engines.errors import TrainingError

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
        data: Data set, a key of `trainer.data.DATA`.
        network: Network, a key of `trainer.networks.NETWORKS`.
        arguments: Keyword arguments of the network.
        widths: Which widths a step trains.
        epochs: Passes over the training images.
        batch: Images a step.
        lr: Highest learning rate.
        schedule: "cosine" to zero, or "steps": times `decay` at each fraction of the run in `milestones`.
        warmup: Epochs over which the learning rate rises from zero.
        momentum: Of SGD.
        nesterov: Nesterov's momentum.
        weight_decay: L2 penalty, on weights of two and more dimensions alone if `decay_all` is false.
        decay_all: Weight decay on batch norm and biases too.
        label_smoothing: Of the cross-entropy.
        ema: Decay a step of the averaged weights that are kept; 0 keeps the last weights.
        shift: Augmentation: pixels an image may move.
        flip: Augmentation: mirror half of the images.
        seed: Of everything random.
    """

    name: str
    data: str
    network: str
    arguments: dict[str, object] = {}
    widths: Widths = Widths()
    epochs: int
    batch: int = 128
    lr: float
    schedule: Literal["cosine", "steps"] = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    decay: float = 0.1
    warmup: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_all: bool = True
    label_smoothing: float = 0.0
    ema: float = 0.0
    shift: int = 0
    flip: bool = False
    seed: int = 0


def read(name: str) -> Recipe:
    """Read a recipe by the name of a shipped one or by path.

    Raises:
        TrainingError: there is no such file, or a field is unknown, missing or of the wrong type.
    """
    path = RECIPES / f"{name}.toml"
    if not path.exists():
        path = Path(name)
    try:
        recipe: Recipe = msgspec.toml.decode(path.read_bytes(), type=Recipe)
    except OSError as error:
        shipped = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
        raise TrainingError(f"cannot read the recipe {name!r} ({error.strerror}); shipped recipes: {shipped}") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise TrainingError(f"the recipe {path} is not right: {error}") from None
    if recipe.epochs < 1 or recipe.batch < 1 or recipe.lr <= 0:
        raise TrainingError(f"the recipe {path} needs epochs, batch and lr above 0")
    if recipe.widths.choose == "random" and recipe.widths.count < 2:
        raise TrainingError(f"the recipe {path} needs widths.count of at least 2: the narrowest and the full width")
    return recipe
