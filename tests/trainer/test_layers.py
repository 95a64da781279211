"""The prefix property: what is computed at a width is the leading part of what is computed at every larger one."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import WidthError
from engines.widths import WidthRule, parse_grid
from tests.trainer import tiny
from trainer.layers import Classifier, SlicedConv2d, TriangularConv2d, TriangularLinear, WidthLayer, set_width
from trainer.networks import AnyWidthNetwork

NETS = [("lenet3c1l", 1), ("lenet3c1l", 8), ("mixed", 1), ("mixed", 8), ("mobilenetv2", 1), ("resnet18", 1)]


def features(net: AnyWidthNetwork, width: Fraction) -> torch.Tensor:
    set_width(net, width)
    with torch.no_grad():
        return net.features(net.normalise(tiny.images(4).images))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "divisor"), NETS)
def test_features_at_a_width_lead_those_at_every_larger_one(name: str, divisor: int, training: bool) -> None:
    net = tiny.with_statistics(tiny.network(name, divisor).double()).train(training)
    full = features(net, Fraction(1))
    for width in parse_grid("0.25,0.3,5/7"):
        narrow = features(net, width)
        assert narrow.shape[1] == net.rule.active(net.classifier.channels, width) * net.classifier.repeat
        torch.testing.assert_close(narrow, full[:, : narrow.shape[1]], rtol=0, atol=1e-12 * (1 + float(full.abs().max())))


@given(
    inputs=st.integers(1, 6),
    outputs=st.integers(1, 6),
    divisor=st.sampled_from([1, 2, 8]),
    a_min=st.fractions(Fraction(1, 10), 1, max_denominator=50),
    draw=st.fractions(0, 1, max_denominator=200),
)
def test_no_triangular_row_reads_what_a_narrower_width_lacks(
    inputs: int, outputs: int, divisor: int, a_min: Fraction, draw: Fraction
) -> None:
    rule = WidthRule(a_min, divisor)
    m_in, m_out = inputs * divisor, outputs * divisor
    width = a_min + draw * (1 - a_min)
    conv, linear = TriangularConv2d(m_in, m_out, 1, rule=rule), TriangularLinear(m_in, m_out, rule=rule)
    k_in, k_out = rule.active(m_in, width), rule.active(m_out, width)
    assert not conv.weight[:k_out, k_in:].any()
    assert not linear.weight[:k_out, k_in:].any()
    # Each row still reads something, and the rows of the narrowest width are dense.
    assert conv.mask.flatten(1).any(1).all()
    narrowest = rule.active(m_out, a_min)
    assert linear.mask[:narrowest, : rule.active(m_in, a_min)].all()


def test_initialisation_follows_each_rows_own_fan_in() -> None:
    torch.manual_seed(0)
    layer = TriangularConv2d(256, 256, 3, rule=WidthRule(Fraction(1, 8)))
    variance = layer.weight.detach().flatten(1).square().sum(1)  # He: the squares of a row add up to 2
    torch.testing.assert_close(variance, torch.full((256,), 2.0), rtol=0.35, atol=0)


def test_a_sliced_convolution_reads_all_that_is_active() -> None:
    rule = WidthRule(Fraction(1, 4))
    layer = SlicedConv2d(8, 8, 3, rule=rule)
    x = torch.rand(2, 4, 5, 5)
    layer.at(Fraction(1, 2))
    torch.testing.assert_close(layer(x), torch.nn.functional.conv2d(x, layer.weight[:4, :4]))
    assert layer.no_prefix
    assert not SlicedConv2d(3, 8, 3, rule=rule, image=True).no_prefix


def test_the_classifier_adds_what_new_channels_contribute() -> None:
    torch.manual_seed(0)
    classifier = Classifier(6, 3, repeat=4).double()
    x = torch.rand(5, 24, dtype=torch.float64)
    together = classifier.exits(x, [2, 3, 6])
    for logits, k in zip(together, (2, 3, 6), strict=True):
        torch.testing.assert_close(logits, classifier(x[:, : 4 * k]), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("width", [Fraction(1, 5), Fraction(6, 5)])
def test_a_width_that_the_rule_forbids_is_refused(width: Fraction) -> None:
    with pytest.raises(WidthError, match="outside"):
        set_width(tiny.network("mixed"), width)


def test_a_layer_says_how_to_run_at_a_width() -> None:
    with pytest.raises(NotImplementedError):
        WidthLayer().at(Fraction(1))
