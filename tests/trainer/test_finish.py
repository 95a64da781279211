"""What a run leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from engines.errors import TrainingError
from engines.model import Model
from tests.trainer import tiny
from trainer.board import Board
from trainer.curve import read_curve
from trainer.finish import check, finish
from trainer.log import Epoch
from trainer.loop import Run
from trainer.recipe import Widths


def test_an_any_width_network_leaves_a_model_file_and_its_curve(tmp_path: Path) -> None:
    run = Run(tiny.recipe(epochs=1), tiny.images(32), tiny.images(40, seed=1), tmp_path)
    run.train()
    path, curve = finish(run)
    assert path == tmp_path / "tiny.onnx"
    model = Model.read(path)
    assert model.metadata.curve == curve == read_curve(tmp_path / "curve.csv")
    assert model.metadata.provenance["data"] == "made-up squares"


def test_a_baseline_leaves_weights_and_its_curve(tmp_path: Path) -> None:
    recipe = tiny.recipe(epochs=1, kind="us-net", widths=Widths(choose="random", step="algorithm-1"))
    run = Run(recipe, tiny.images(32), tiny.images(40, seed=1), tmp_path)
    run.train()
    path, curve = finish(run)
    assert path == tmp_path / "weights.safetensors"
    assert len(curve.correct) == 76
    assert read_curve(tmp_path / "curve.csv") == curve
    assert not list(tmp_path.glob("*.onnx"))


def test_a_network_that_cannot_be_exported_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    run = Run(tiny.recipe(), tiny.images(32), tiny.images(40, seed=1), tmp_path)
    check(run)
    run.network.features.append(nn.Dropout())
    with pytest.raises(TrainingError, match="cannot export Dropout"):
        check(run)


EPOCH = Epoch(1, 0.5, 0.1, 2.0, {"0.25": 0.7, "1.0": 0.9})


def test_tensorboard_gets_the_figures_of_an_epoch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = Board(tmp_path)
    board.add(EPOCH)
    board.close()
    seen = EventAccumulator(str(tmp_path))
    seen.Reload()
    assert set(seen.Tags()["scalars"]) == {"loss", "lr", "seconds", "accuracy/0.25", "accuracy/1.0"}
    assert seen.Scalars("accuracy/1.0")[0].value == pytest.approx(0.9)


def test_without_tensorboard_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match="pip install tensorboard"):
        Board(tmp_path)
