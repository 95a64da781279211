"""Checkpoints in safetensors: the whole state of a run, or the weights alone."""

from __future__ import annotations

from pathlib import Path

import msgspec
import safetensors
import safetensors.torch
from torch import Tensor, nn

from engines.errors import TrainingError
from engines.files import write_atomically
from trainer.networks import AnyWidthNetwork, build_network
from trainer.recipe import Recipe

FORMAT = 1


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint says of itself.

    Attributes:
        recipe: The recipe of the run.
        labels: Class names.
        image: Height, width and channels of the input.
        mean: Mean of each channel of the training images.
        std: Standard deviation of each channel.
        epochs_done: Epochs that lie behind these weights.
        versions: Versions of the packages that made it.
        data: What the training images are and where they were read from.
        format: Version of this layout.
    """

    recipe: Recipe
    labels: tuple[str, ...]
    image: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    epochs_done: int
    versions: dict[str, str]
    data: str = ""
    format: int = FORMAT

    def network(self) -> AnyWidthNetwork:
        """The network of the recipe, freshly initialised.

        Raises:
            TrainingError: no network has the name, or it does not take the recipe's arguments.
        """
        facts: dict[str, object] = {"classes": len(self.labels), "image": self.image, "mean": self.mean, "std": self.std}
        taken = (facts.keys() | {"name"}) & self.recipe.arguments.keys()
        if taken:
            raise TrainingError(f"the recipe {self.recipe.name} has {', '.join(sorted(taken))} among its arguments; the data say those")
        return build_network(self.recipe.network, **facts, **self.recipe.arguments)


def save(path: Path, tensors: dict[str, Tensor], header: Header) -> None:
    """Write a checkpoint that is whole or not there."""
    data = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        metadata={"awn": msgspec.json.encode(header).decode()},
    )
    write_atomically(path, data)


def load(path: Path) -> tuple[dict[str, Tensor], Header]:
    """Read a checkpoint.

    Raises:
        TrainingError: it is missing, damaged, of a newer format, or not one of ours.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        header = msgspec.json.decode(metadata["awn"], type=Header)
    except FileNotFoundError:
        raise TrainingError(f"there is no checkpoint at {path}") from None
    except (OSError, safetensors.SafetensorError, KeyError, msgspec.DecodeError) as error:
        raise TrainingError(f"{path} is not a checkpoint of this trainer: {error}") from None
    if header.format > FORMAT:
        raise TrainingError(f"{path} has format {header.format}; this version reads up to {FORMAT}: update the trainer")
    return tensors, header


def load_network(path: Path) -> tuple[AnyWidthNetwork, Header]:
    """Read a file of weights alone and give the network with them, in evaluation mode.

    Raises:
        TrainingError: as `load`, or the weights are not those of the recipe's network.
    """
    tensors, header = load(path)
    network = header.network()
    restore(network, tensors, path)
    return network.eval(), header


def restore(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Put tensors into a module.

    Raises:
        TrainingError: names or shapes differ.
    """
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise TrainingError(f"the weights in {path} do not fit the recipe's network: {error}") from None
