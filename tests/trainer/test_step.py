"""One pass at full width gives the gradients of the paper's Algorithm 1."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch

from engines.errors import TrainingError, WidthError
from engines.widths import parse_grid
from tests.trainer import tiny
from trainer.networks import AnyWidthNetwork
from trainer.recipe import Widths
from trainer.step import algorithm_1, choose_widths, one_pass


def gradients(net: AnyWidthNetwork) -> dict[str, torch.Tensor]:
    found = {name: parameter.grad.clone() for name, parameter in net.named_parameters() if parameter.grad is not None}
    net.zero_grad(set_to_none=True)
    return found


SMALL = [
    (name, divisor, choose, distil)
    for name, divisor in (("lenet3c1l", 1), ("lenet3c1l", 8), ("mixed", 1), ("mixed", 8))
    for choose in ("fixed", "random", "all")
    for distil in (0.0, 0.6)
]
LARGE = [(name, 1, "random", distil) for name in ("mobilenetv2", "resnet18", "resnet50") for distil in (0.0, 1.0)]


@pytest.mark.parametrize(("name", "divisor", "choose", "distil"), SMALL + LARGE)
def test_one_pass_equals_the_sum_over_widths(name: str, divisor: int, choose: str, distil: float) -> None:
    net = tiny.network(name, divisor).double()
    x = tiny.images(4)
    plan = Widths(choose=choose, count=4)  # type: ignore[arg-type]
    widths = choose_widths(net, plan, torch.Generator().manual_seed(1))
    settings = {"weight": 0.3, "label_smoothing": 0.1, "distil": distil}
    losses = algorithm_1(net, x.images, x.labels, widths, **settings)
    expected = gradients(net)
    at_once = one_pass(net, x.images, x.labels, widths, **settings)
    got = gradients(net)
    torch.testing.assert_close(at_once, losses, rtol=1e-12, atol=1e-12)
    assert got.keys() == expected.keys() == dict(net.named_parameters()).keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(got[key], gradient, rtol=1e-9, atol=1e-12, msg=lambda text, key=key: f"{key}: {text}")
    assert any(gradient.abs().max() > 1e-3 for gradient in expected.values())


def test_distillation_teaches_narrow_widths_and_leaves_the_full_one_alone() -> None:
    net = tiny.network("lenet3c1l").double()
    x = tiny.images()
    widths = parse_grid("0.25,1")
    plain = one_pass(net, x.images, x.labels, widths)
    taught = one_pass(net, x.images, x.labels, widths, distil=0.5)
    assert taught[1] == plain[1]
    assert taught[0] != plain[0]


def test_all_widths_learn_from_the_full_one() -> None:
    """The widths of a step that trains all must hold 1 itself, or nobody is the teacher."""
    net = tiny.network("lenet3c1l").double()
    x = tiny.images()
    widths = choose_widths(net, Widths(choose="all"), torch.Generator())
    plain = one_pass(net, x.images, x.labels, widths)
    taught = one_pass(net, x.images, x.labels, widths, distil=0.5)
    assert taught[-1] == plain[-1]
    assert (taught[:-1] != plain[:-1]).all()


@pytest.mark.parametrize("step", [one_pass, algorithm_1])
def test_distillation_without_the_full_width_is_refused(step: Callable[..., torch.Tensor]) -> None:
    x = tiny.images()
    with pytest.raises(TrainingError, match=r"distil = 0.5 needs width 1 .* got up to 0\.9"):
        step(tiny.network("lenet3c1l"), x.images, x.labels, parse_grid("0.25,0.9"), distil=0.5)


def test_a_network_without_the_prefix_property_is_refused_with_the_reason() -> None:
    net = tiny.network("lenet3c1l", kind="plain-bn")
    x = tiny.images()
    with pytest.raises(TrainingError, match=r"3 \(an ordinary convolution.*algorithm-1"):
        one_pass(net, x.images, x.labels, parse_grid("0.25,1"))


def test_random_widths_are_the_ends_and_draws_between_them() -> None:
    net = tiny.network("lenet3c1l")
    generator = torch.Generator().manual_seed(0)
    draws = [choose_widths(net, Widths(choose="random", count=4), generator) for _ in range(50)]
    for widths in draws:
        assert len(widths) == 4
        assert widths[0] == Fraction(1, 4)
        assert widths[-1] == 1
        assert list(widths) == sorted(widths)
    middle = [float(width) for widths in draws for width in widths[1:3]]
    assert 0.5 < sum(middle) / len(middle) < 0.75
    assert len(set(draws)) == 50


def test_a_fixed_width_below_the_narrowest_is_refused() -> None:
    net = tiny.network("lenet3c1l")
    x = tiny.images()
    with pytest.raises(WidthError, match="outside"):
        one_pass(net, x.images, x.labels, parse_grid("0.1,1"))


@pytest.mark.parametrize(("name", "divisor", "count"), [("lenet3c1l", 1, 26), ("lenet3c1l", 8, 4)])
def test_all_widths_are_the_different_sub_networks(name: str, divisor: int, count: int) -> None:
    net = tiny.network(name, divisor)
    widths = net.distinct_widths()
    assert len(widths) == count
    assert (widths[0], widths[-1]) == (net.rule.a_min, 1)
    active = {net.rule.active(net.classifier.channels, width) for width in widths}
    assert len(active) == count
    fine = {net.rule.active(net.classifier.channels, width) for width in parse_grid("0.25:1.0:0.001")}
    assert active == fine
