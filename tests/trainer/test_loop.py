"""The training loop: resumable, honest about trouble, and true to the mask."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import msgspec
import pytest
import torch

from engines.errors import TrainingError
from tests.trainer import tiny
from trainer import checkpoint, loop
from trainer.data import Images
from trainer.layers import TriangularConv2d
from trainer.log import Epoch
from trainer.loop import Run, four_widths, learning_rate
from trainer.networks import AnyWidthNetwork
from trainer.norms import WidthBatchNorm
from trainer.recipe import Recipe, Widths

TRAIN, TEST = tiny.images(64), tiny.images(40, seed=1)
FIXED = Widths(choose="fixed", step="algorithm-1")


def run(recipe: Recipe, out: Path, *, train: Images = TRAIN) -> Run:
    return Run(recipe, train, TEST, out)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(path / "weights.safetensors")[0]


class Stopped(Exception):
    """The plug is pulled."""


def stop_after(epochs: int) -> object:
    def on_epoch(done: Epoch) -> None:
        if done.epoch == epochs:
            raise Stopped

    return on_epoch


MODERN: dict[str, object] = {"ema": 0.9, "warmup": 1.0, "nesterov": True, "weight_decay": 1e-2, "distil": 0.3, "decay_all": False}


@pytest.mark.parametrize(
    "recipe",
    [
        tiny.recipe(epochs=3, **MODERN),
        tiny.recipe(epochs=3, schedule="steps", widths=Widths(choose="random", loss="mean"), precision="bfloat16"),
        tiny.recipe(epochs=3, momentum=0.0, widths=Widths(choose="random", step="algorithm-1")),
        tiny.recipe(epochs=3, kind="s-net", widths=FIXED),
        tiny.recipe(epochs=3, kind="us-net", ema=0.9, widths=Widths(choose="random", step="algorithm-1")),
    ],
    ids=["modern", "mixed-precision", "no-momentum", "s-net", "us-net"],
)
def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(recipe: Recipe, tmp_path: Path) -> None:
    whole = run(recipe, tmp_path / "whole")
    whole.train()
    for epochs in (1, 2):
        broken = run(recipe, tmp_path / "broken")
        if epochs > 1:
            broken.resume()
        with pytest.raises(Stopped):
            broken.train(on_epoch=stop_after(epochs))  # type: ignore[arg-type]
    again = run(recipe, tmp_path / "broken")
    again.resume()
    assert len(again.epochs) == 2
    again.train()
    expected, got = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], tensor) for name, tensor in got.items())
    drop = [(epoch.epoch, epoch.loss, epoch.lr, epoch.accuracy) for epoch in again.epochs]
    assert drop == [(epoch.epoch, epoch.loss, epoch.lr, epoch.accuracy) for epoch in whole.epochs]


def test_a_finished_run_resumes_to_its_end(tmp_path: Path) -> None:
    recipe = tiny.recipe(epochs=1)
    run(recipe, tmp_path).train()
    before = weights(tmp_path)
    again = run(recipe, tmp_path)
    again.resume()
    again.train()
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(tmp_path).items())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_masked_weights_stay_exactly_zero(precision: str, tmp_path: Path) -> None:
    recipe = tiny.recipe(weight_decay=0.1, momentum=0.9, ema=0.8, precision=precision, distil=0.5)
    first = run(recipe, tmp_path)
    with pytest.raises(Stopped):
        first.train(on_epoch=stop_after(1))  # type: ignore[arg-type]
    training = run(recipe, tmp_path)
    training.resume()
    training.train()
    assert training.kept is not training.network
    for network in (training.network, training.kept):
        layers = [layer for layer in network.modules() if isinstance(layer, TriangularConv2d)]
        assert len(layers) == 3
        for layer in layers:
            beyond = (layer.mask == 0).expand_as(layer.weight)
            assert not layer.weight[beyond].any()
            if network is training.network:
                assert not training.optimiser.state[layer.weight]["momentum_buffer"][beyond].any()


def test_training_learns_and_writes_its_log(tmp_path: Path) -> None:
    recipe = tiny.recipe(epochs=4, shift=0, flip=False)
    training = run(recipe, tmp_path, train=tiny.images(320))
    seen = []
    training.train(on_progress=seen.append)
    assert [progress.step for progress in seen[:20]] == list(range(1, 21))
    assert training.epochs[-1].loss < 0.5 * training.epochs[0].loss
    assert training.epochs[-1].accuracy["1.0"] > 0.9
    header, *rows = (tmp_path / "log.csv").read_text().splitlines()
    assert header == "epoch,loss,lr,seconds,accuracy@0.25,accuracy@0.5,accuracy@0.75,accuracy@1.0"
    assert [row.split(",")[0] for row in rows] == ["1", "2", "3", "4"]
    network, found = checkpoint.load_network(tmp_path / "weights.safetensors")
    assert found.epochs_done == 4
    assert found.data == "made-up squares"
    assert found.labels == tiny.INFO.labels
    assert not network.training


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    training = run(tiny.recipe(epochs=3), tmp_path)
    with pytest.raises(Stopped):
        training.train(on_epoch=stop_after(1))  # type: ignore[arg-type]
    good = (tmp_path / "last.safetensors").read_bytes()
    with torch.no_grad():
        training.network.classifier.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"the loss became nan in epoch 2, step 1: lower lr .*last\.safetensors after epoch 1"):
        training.train()
    assert (tmp_path / "last.safetensors").read_bytes() == good
    assert not (tmp_path / "weights.safetensors").exists()


def test_the_message_names_no_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    training = run(tiny.recipe(), tmp_path)
    with torch.no_grad():
        training.network.classifier.bias.fill_(float("inf"))
    with pytest.raises(TrainingError, match="there is no checkpoint yet"):
        training.train()


@pytest.mark.parametrize("left", ["last.safetensors", "weights.safetensors"])
def test_a_run_is_not_trained_over(left: str, tmp_path: Path) -> None:
    run(tiny.recipe(epochs=1), tmp_path).train()
    for name in {"last.safetensors", "weights.safetensors"} - {left}:
        (tmp_path / name).unlink()
    before = (tmp_path / left).read_bytes()
    with pytest.raises(TrainingError, match=rf"holds a run already \({left}\): pass --resume .*another --out"):
        run(tiny.recipe(epochs=1), tmp_path).train()
    assert (tmp_path / left).read_bytes() == before


def test_a_place_that_cannot_be_written_to_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(TrainingError, match="cannot be written to"):
        run(tiny.recipe(), tmp_path).train(on_progress=lambda _: pytest.fail("trained"))
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        run(tiny.recipe(), tmp_path / "file").train(on_progress=lambda _: pytest.fail("trained"))


def test_resuming_clears_what_a_killed_run_left_half_written(tmp_path: Path) -> None:
    run(tiny.recipe(epochs=1), tmp_path).train()
    part = tmp_path / ".last.safetensors.abc.part"
    part.write_bytes(b"half")
    run(tiny.recipe(epochs=1), tmp_path).resume()
    assert not part.exists()


def test_training_and_test_images_of_different_shapes_are_refused(tmp_path: Path) -> None:
    test = Images(TEST.images[:, :12], TEST.labels, TEST.info)
    with pytest.raises(TrainingError, match="training images are 16x16x1 and test images 12x16x1"):
        Run(tiny.recipe(), TRAIN, test, tmp_path)


def test_resuming_another_recipe_is_refused(tmp_path: Path) -> None:
    run(tiny.recipe(epochs=1), tmp_path).train()
    with pytest.raises(TrainingError, match="another recipe"):
        run(tiny.recipe(epochs=2), tmp_path).resume()


def test_resuming_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no checkpoint at"):
        run(tiny.recipe(), tmp_path).resume()


@pytest.mark.parametrize("damage", ["", "epoch,loss\nx", "gone"])
def test_a_log_that_does_not_fit_the_checkpoint_is_refused(damage: str, tmp_path: Path) -> None:
    run(tiny.recipe(epochs=1), tmp_path).train()
    if damage == "gone":
        (tmp_path / "log.csv").unlink()
    else:
        (tmp_path / "log.csv").write_text(damage)
    with pytest.raises(TrainingError, match=r"log\.csv"):
        run(tiny.recipe(epochs=1), tmp_path).resume()


def test_weights_alone_cannot_be_resumed_from(tmp_path: Path) -> None:
    run(tiny.recipe(epochs=1), tmp_path).train()
    (tmp_path / "weights.safetensors").replace(tmp_path / "last.safetensors")
    with pytest.raises(TrainingError, match="weights alone"):
        run(tiny.recipe(epochs=1), tmp_path).resume()


def test_fewer_images_than_a_batch_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="10 training images are fewer than one batch of 16"):
        run(tiny.recipe(), tmp_path, train=tiny.images(10)).train()


@pytest.mark.parametrize("kind", ["plain-bn", "s-net", "us-net"])
def test_a_baseline_cannot_be_trained_in_one_pass(kind: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"with step = 'one-pass' needs .*algorithm-1"):
        run(tiny.recipe(kind=kind), tmp_path)


def test_an_s_net_trains_the_widths_it_keeps_statistics_for(tmp_path: Path) -> None:
    for widths in (Widths(choose="random", step="algorithm-1"), msgspec.structs.replace(FIXED, grid="0.25,1")):
        with pytest.raises(TrainingError, match=r"0\.25,0\.5,0\.75,1\.0 alone"):
            run(tiny.recipe(kind="s-net", widths=widths), tmp_path)


def test_a_us_net_is_kept_with_gathered_statistics(tmp_path: Path) -> None:
    run(tiny.recipe(epochs=1, kind="us-net", ema=0.5, widths=Widths(choose="random", step="algorithm-1")), tmp_path).train()
    network, _ = checkpoint.load_network(tmp_path / "weights.safetensors")
    norms = [norm for norm in network.modules() if isinstance(norm, WidthBatchNorm)]
    assert norms
    assert all((norm.running_mean[:, 0] != 0).all() for norm in norms)


def test_decay_can_leave_batch_norm_and_biases_out(tmp_path: Path) -> None:
    for decay_all, groups in ((True, 1), (False, 2)):
        training = run(tiny.recipe(weight_decay=0.1, decay_all=decay_all), tmp_path)
        assert len(training.optimiser.param_groups) == groups
        plain = training.optimiser.param_groups[-1]
        assert plain["weight_decay"] == (0.1 if decay_all else 0.0)
    assert {parameter.ndim for parameter in plain["params"]} == {1}


def test_switchable_scales_are_not_decayed_as_weights(tmp_path: Path) -> None:
    training = run(tiny.recipe(weight_decay=0.1, decay_all=False, kind="s-net", widths=FIXED), tmp_path)
    decayed = {id(parameter) for parameter in training.optimiser.param_groups[0]["params"]}
    norms = [norm for norm in training.network.modules() if isinstance(norm, WidthBatchNorm)]
    assert norms
    assert not any(id(norm.weight) in decayed or id(norm.bias) in decayed for norm in norms)


@pytest.mark.parametrize(
    ("a_min", "expected"),
    [("0.25", "0.25 0.5 0.75 1"), ("0.35", "0.35 0.5 0.75 1"), ("0.5", "0.5 0.75 1"), ("0.6", "0.6 0.75 1"), ("0.8", "0.8 1"), ("1", "1")],
)
def test_the_reported_widths_are_ones_that_the_network_runs_at(a_min: str, expected: str) -> None:
    assert four_widths(Fraction(a_min)) == tuple(map(Fraction, expected.split()))


def test_learning_rates() -> None:
    steps = tiny.recipe(schedule="steps", epochs=20, lr=0.01)
    assert [learning_rate(steps, at) for at in (0, 9.99, 10, 14.99, 15, 20)] == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4])
    cosine = tiny.recipe(epochs=11, warmup=1.0, lr=0.4)
    assert [learning_rate(cosine, at) for at in (0, 0.5, 1, 6, 11)] == pytest.approx([0, 0.2, 0.4, 0.2, 0])
    warm = tiny.recipe(schedule="linear", epochs=10, lr=0.1)
    assert [learning_rate(warm, at) for at in (0, 2.5, 10)] == pytest.approx([0.1, 0.075, 0])


def test_kept_weights_are_the_averaged_ones(tmp_path: Path) -> None:
    training = run(tiny.recipe(epochs=1, ema=0.99), tmp_path)
    training.train()
    assert isinstance(training.kept, AnyWidthNetwork)
    kept, last = training.kept.classifier.weight, training.network.classifier.weight
    assert not torch.equal(kept, last)
    assert torch.equal(weights(tmp_path)["classifier.weight"], kept)
