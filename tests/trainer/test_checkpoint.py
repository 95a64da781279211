"""Checkpoints are whole or refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import safetensors.torch
import torch

from engines.errors import TrainingError
from tests.trainer import tiny
from trainer import checkpoint
from trainer.checkpoint import Header


def header(**fields: object) -> Header:
    whole: dict[str, object] = {
        "recipe": tiny.recipe(),
        "labels": tiny.INFO.labels,
        "image": (16, 16, 1),
        "mean": (0.5,),
        "std": (0.3,),
        "epochs_done": 2,
        "versions": {"torch": "0"},
    }
    return Header(**(whole | fields))  # type: ignore[arg-type]


def test_weights_come_back(tmp_path: Path) -> None:
    network = header().network()
    checkpoint.save(tmp_path / "w.safetensors", network.state_dict(), header())
    again, found = checkpoint.load_network(tmp_path / "w.safetensors")
    assert found == header()
    x = tiny.images().images
    assert torch.equal(again(x), network.eval()(x))


def test_a_checkpoint_of_the_first_release_is_read(tmp_path: Path) -> None:
    """Fields that came later have defaults: old files stay readable."""
    old = msgspec.to_builtins(header())
    del old["data"]
    for field in ("precision", "distil", "size"):
        del old["recipe"][field]
    del old["recipe"]["arguments"]["kind"]
    tensors = {name: tensor.contiguous() for name, tensor in header().network().state_dict().items()}
    safetensors.torch.save_file(tensors, tmp_path / "old.safetensors", metadata={"awn": msgspec.json.encode(old).decode()})
    network, found = checkpoint.load_network(tmp_path / "old.safetensors")
    assert network.prefix
    assert found.recipe.precision == "float32"


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x08" + b"\0" * 7 + b"{}      "])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"w\.safetensors is not a checkpoint of this trainer"):
        checkpoint.load(path)


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    checkpoint.save(path, header().network().state_dict(), header())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(TrainingError, match="is not a checkpoint"):
        checkpoint.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"there is no checkpoint at .*w\.safetensors"):
        checkpoint.load_network(tmp_path / "w.safetensors")


def test_a_newer_format_asks_for_an_update(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "w.safetensors", {}, header(format=99))
    with pytest.raises(TrainingError, match="has format 99; this version reads up to 1: update"):
        checkpoint.load(tmp_path / "w.safetensors")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    other = tiny.recipe(arguments={"channels": 16})
    checkpoint.save(tmp_path / "w.safetensors", header().network().state_dict(), header(recipe=other))
    with pytest.raises(TrainingError, match="do not fit the recipe's network"):
        checkpoint.load_network(tmp_path / "w.safetensors")


@pytest.mark.parametrize("taken", ["classes", "image", "mean", "std", "name"])
def test_arguments_that_the_data_say_are_refused(taken: str) -> None:
    with pytest.raises(TrainingError, match=f"the recipe tiny has {taken} among its arguments"):
        header(recipe=tiny.recipe(arguments={taken: 5})).network()
