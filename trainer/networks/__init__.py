"""The networks that recipes can name."""

from __future__ import annotations

from collections.abc import Callable

from engines.errors import TrainingError
from trainer.networks.anywidth import AnyWidthNetwork
from trainer.networks.lenet import lenet3c1l

NETWORKS: dict[str, Callable[..., AnyWidthNetwork]] = {"lenet3c1l": lenet3c1l}


def build_network(name: str, **arguments: object) -> AnyWidthNetwork:
    """Make a network by its name in a recipe.

    Raises:
        TrainingError: no network has the name.
    """
    if name not in NETWORKS:
        raise TrainingError(f"no network is named {name!r}; there are: {', '.join(sorted(NETWORKS))}")
    return NETWORKS[name](**arguments)


__all__ = ["NETWORKS", "AnyWidthNetwork", "build_network"]
