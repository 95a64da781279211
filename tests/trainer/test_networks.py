"""The networks and their kinds."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn

from engines.errors import TrainingError, WidthError
from engines.widths import WidthRule, parse_grid
from tests.trainer import tiny
from trainer.layers import Classifier, SlicedConv2d, TriangularConv2d
from trainer.networks import AnyWidthNetwork, build_network
from trainer.networks.kinds import evenly_spaced, layers
from trainer.norms import WidthBatchNorm

NAMES = ["lenet3c1l", "mobilenetv2", "resnet18", "resnet50"]
CIFAR: dict[str, object] = {"classes": 10, "image": (32, 32, 3), "mean": (0.5,) * 3, "std": (0.3,) * 3}


@pytest.mark.parametrize("name", NAMES)
def test_an_awn_alone_has_the_prefix_property(name: str) -> None:
    assert tiny.network(name).prefix
    for kind in ("plain-bn", "s-net", "us-net"):
        net = tiny.network(name, kind=kind)
        assert not net.prefix
        with pytest.raises(TrainingError, match="asked"):
            net.require_prefix("what is asked")
        with pytest.raises(TrainingError, match="one pass for several widths needs"):
            net.exits(tiny.images(2).images, parse_grid("0.5,1"))


@pytest.mark.parametrize("kind", ["awn", "plain-bn", "s-net", "us-net"])
@pytest.mark.parametrize("name", NAMES)
def test_every_kind_runs_and_learns_at_every_width(name: str, kind: str) -> None:
    net = tiny.network(name, kind=kind)
    x = tiny.images(4)
    for width in parse_grid("0.25:1.0:0.25"):
        logits = net.logits_at(x.images, width)
        assert logits.shape == (4, 4)
        torch.nn.functional.cross_entropy(logits, x.labels).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize(
    ("name", "arguments", "parameters"),
    [
        # torchvision's counts: the standard forms are theirs.
        ("mobilenetv2", {"image": (224, 224, 3), "classes": 1000}, 3_504_872),
        ("resnet18", {"image": (224, 224, 3), "classes": 1000}, 11_689_512),
        ("resnet50", {"image": (224, 224, 3), "classes": 1000}, 25_557_032),
        # Three convolutions of 32, their batch norms, 16 x 32 features to 10 classes.
        ("lenet3c1l", {"image": (28, 28, 1), "mean": (0.1,), "std": (0.3,)}, 9 * 32 + 9 * 32**2 + 25 * 32**2 + 3 * 64 + 16 * 32 * 10 + 10),
    ],
)
def test_unmasked_networks_have_the_published_size(name: str, arguments: dict[str, object], parameters: int) -> None:
    with torch.device("meta"):
        net = build_network(name, kind="plain-bn", **(CIFAR | arguments))
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


def test_an_awn_has_about_as_many_active_weights_as_the_network_it_is_widened_from() -> None:
    awn, plain = (build_network("mobilenetv2", kind=kind, **CIFAR) for kind in ("awn", "plain-bn"))
    used = sum(int(m.mask.sum()) * m.kernel_size[0] ** 2 for m in awn.modules() if isinstance(m, TriangularConv2d))
    whole = sum(m.weight.numel() for m in plain.modules() if isinstance(m, SlicedConv2d))
    assert 0.95 < used / whole < 1.15


@pytest.mark.parametrize("divisor", [8, 16])
def test_channels_come_in_units_of_the_divisor(divisor: int) -> None:
    with torch.device("cpu"):
        net = build_network("mobilenetv2", divisor=divisor, **CIFAR)
    channels = [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert all(m % divisor == 0 for m in channels)
    assert net.classifier.channels == {8: 1808, 16: 1808}[divisor]


def test_small_images_keep_their_resolution_longer() -> None:
    net = build_network("mobilenetv2", width=0.1, **CIFAR)
    x = torch.zeros(1, 3, 32, 32)
    for module in net.features[:-2]:
        x = module(x)
    assert x.shape[2:] == (4, 4)


def test_variants_tell_sub_networks_apart() -> None:
    net = tiny.network("lenet3c1l", kind="s-net")  # 24 channels; statistics at four quarters
    same, other, statistics = net.variant(Fraction("0.30")), net.variant(Fraction("0.35")), net.variant(Fraction("0.25"))
    assert same == net.variant(Fraction("0.31"))
    assert len({same, other, statistics}) == 3
    # 0.495 and 0.505 both have 12 channels, on either side of a set of statistics.
    assert net.variant(Fraction("0.495")) != net.variant(Fraction("0.505"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "slim"}, "no kind of network is named 'slim'; there are: awn, plain-bn, s-net, us-net"),
        ({"kind": "s-net", "statistics": "0.25,0.5"}, "must end with 1"),
        ({"kind": "us-net", "statistics": 0}, "at least one width"),
        ({"statistics": 0.25, "kind": "s-net"}, "does not take these arguments"),
        ({"channels": float("inf")}, "does not take these arguments"),
        ({"colour": "red"}, "lenet3c1l does not take these arguments: .*colour"),
        ({"image": (12, 12, 1)}, "at least 14x14, got 12x12"),
    ],
)
def test_arguments_that_make_no_network(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        build_network("lenet3c1l", **(CIFAR | arguments))


def test_a_name_that_no_network_has() -> None:
    with pytest.raises(TrainingError, match="'lenet'; there are: lenet3c1l, mobilenetv2, resnet18, resnet50"):
        build_network("lenet")


def test_statistics_below_the_narrowest_width() -> None:
    with pytest.raises(WidthError, match="outside"):
        layers("s-net", a_min="0.5", divisor=1, statistics="0.25,1")


def test_evenly_spaced_widths_include_both_ends() -> None:
    assert evenly_spaced(Fraction(1, 4), 4) == parse_grid("0.25:1.0:0.25")
    assert evenly_spaced(Fraction(1, 4), 10) == parse_grid("0.25:1.0:1/12")
    assert evenly_spaced(Fraction(1, 4), 1) == (Fraction(1),)


def test_mixed_precision_is_for_training_alone() -> None:
    net = tiny.with_statistics(tiny.network("lenet3c1l"))
    x = tiny.images(16).images
    exact = net(x)
    net.mixed = True
    assert net(x).dtype == torch.float32
    assert 0 < (net(x) - exact).abs().max() < 0.5
    net.eval()
    answers = net(x)
    net.mixed = False
    assert torch.equal(net(x), answers)
    assert isinstance(tiny.network("lenet3c1l", kind="s-net").features[1], WidthBatchNorm)


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(8, 8, 1), nn.ConvTranspose2d(8, 8, 1), nn.Linear(8, 8), nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.LayerNorm(8)]
)
def test_a_layer_that_does_not_follow_the_width_is_refused_when_the_network_is_made(layer: nn.Module) -> None:
    features = nn.Sequential(nn.Sequential(layer), nn.ReLU())
    with pytest.raises(TrainingError, match=rf"layer 0\.0 is torch's own {type(layer).__name__}, .* take one of the layers in"):
        AnyWidthNetwork(features, Classifier(8, 4), rule=WidthRule(Fraction(1, 4)), image=(16, 16, 1), mean=(0.5,), std=(0.3,))
