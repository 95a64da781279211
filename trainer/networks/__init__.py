"""The networks that recipes can name."""

from __future__ import annotations

from collections.abc import Callable

from engines.errors import AwnError, TrainingError
from trainer.networks.anywidth import AnyWidthNetwork
from trainer.networks.lenet import lenet3c1l
from trainer.networks.mobilenet import mobilenetv2
from trainer.networks.resnet import resnet18, resnet50

NETWORKS: dict[str, Callable[..., AnyWidthNetwork]] = {
    "lenet3c1l": lenet3c1l,
    "mobilenetv2": mobilenetv2,
    "resnet18": resnet18,
    "resnet50": resnet50,
}


def build_network(name: str, **arguments: object) -> AnyWidthNetwork:
    """Make a network by its name in a recipe.

    Raises:
        TrainingError: no network has the name, or it does not take the arguments.
    """
    if name not in NETWORKS:
        raise TrainingError(f"no network is named {name!r}; there are: {', '.join(sorted(NETWORKS))}")
    try:
        return NETWORKS[name](**arguments)
    except AwnError:
        raise
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:  # whatever a recipe's TOML can make of an argument
        raise TrainingError(f"the network {name} does not take these arguments: {error}") from None


__all__ = ["NETWORKS", "AnyWidthNetwork", "build_network"]
