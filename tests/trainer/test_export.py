"""A model file gives torch's logits at every width."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from engines.errors import TrainingError
from engines.model import Model
from engines.widths import WidthRule, format_width, parse_grid
from tests.trainer import tiny
from trainer.checkpoint import Header
from trainer.export import export
from trainer.layers import Classifier, TriangularConv2d
from trainer.networks import AnyWidthNetwork
from trainer.norms import ActiveBatchNorm

TEST = tiny.images(40, seed=2)


def header(net: AnyWidthNetwork) -> Header:
    return Header(
        recipe=tiny.recipe(), labels=tiny.INFO.labels, image=net.image, mean=net.mean, std=net.std, epochs_done=5, versions={"torch": "0"}
    )


@pytest.mark.parametrize(
    ("name", "divisor"),
    [
        ("lenet3c1l", 1),
        ("lenet3c1l", 8),
        ("mixed", 1),
        ("mixed", 8),
        ("mobilenetv2", 1),
        ("mobilenetv2", 8),
        ("resnet18", 1),
        ("resnet50", 8),
    ],
)
def test_slices_give_torchs_logits(name: str, divisor: int, tmp_path: Path) -> None:
    net = tiny.with_statistics(tiny.network(name, divisor)).eval()
    model = export(net, header(net), tmp_path / "model.onnx", TEST)
    assert Model.read(tmp_path / "model.onnx").metadata == model.metadata
    for width in parse_grid("0.25,0.31,0.5,5/7,1"):
        for pad_to in (1, 16):
            data = model.slice(width, pad_to=pad_to).SerializeToString()
            (logits,) = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"image": TEST.images[:8].numpy()})
            with torch.inference_mode():
                expected = net.logits_at(TEST.images[:8], width).numpy()
            atol = 2e-5 * (1 + np.abs(expected).max())
            np.testing.assert_allclose(logits, expected, rtol=0, atol=atol, err_msg=f"{format_width(width)}, padded to {pad_to}")


def test_the_file_says_where_it_comes_from(tmp_path: Path) -> None:
    net = tiny.with_statistics(tiny.network("lenet3c1l")).eval()
    found = export(net, header(net), tmp_path / "model.onnx", TEST).metadata
    assert (found.name, found.labels, found.a_min, found.divisor) == ("tiny", ("a", "b", "c", "d"), "0.25", 1)
    assert found.curve is not None
    assert found.curve.data == "made-up squares test"
    assert len(found.curve.correct) == 76
    assert found.provenance["epochs"] == 5
    assert found.provenance["recipe"]["lr"] == 0.05  # type: ignore[index]
    assert found.provenance["data"]


def headed(*features: nn.Module, m: int = 8) -> AnyWidthNetwork:
    rule = WidthRule(parse_grid("0.25")[0])
    whole = nn.Sequential(
        TriangularConv2d(1, m, 3, rule=rule, image=True), ActiveBatchNorm(m), *features, nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return AnyWidthNetwork(whole, Classifier(m, 4), rule=rule, image=(16, 16, 1), mean=(0.5,), std=(0.3,)).eval()


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([nn.Softplus()], r"cannot export Softplus \(2\)"),
        ([nn.AdaptiveAvgPool2d(2)], "cannot export AdaptiveAvgPool2d"),
        ([Doubled()], "cannot export the operation .*sigmoid"),
        ([TriangularConv2d(8, 8, 1, rule=WidthRule(parse_grid("0.25")[0])), nn.ReLU()], "must be followed by one ActiveBatchNorm"),
        ([nn.MaxPool2d(2, ceil_mode=True)], "MaxPool2d"),
        ([nn.MaxPool2d(2, dilation=2)], "MaxPool2d"),
    ],
)
def test_a_part_that_cannot_be_exported_is_named(parts: list[nn.Module], message: str, tmp_path: Path) -> None:
    net = headed(*parts)
    with pytest.raises(TrainingError, match=message):
        export(net, header(net), tmp_path / "model.onnx", TEST)
    assert not (tmp_path / "model.onnx").exists()


def test_a_network_that_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    class Choosy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    net = headed(Choosy())
    with pytest.raises(TrainingError, match="cannot follow"):
        export(net, header(net), tmp_path / "model.onnx", TEST)


@pytest.mark.parametrize("kind", ["plain-bn", "s-net", "us-net"])
def test_a_baseline_has_no_model_file(kind: str, tmp_path: Path) -> None:
    net = tiny.network("lenet3c1l", kind=kind)
    with pytest.raises(TrainingError, match="a model file, which is cut to every width, needs a network"):
        export(net, header(net), tmp_path / "model.onnx", TEST)
