"""Batch norm over active channels, and with statistics a width."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from engines.errors import TrainingError
from engines.widths import parse_grid
from tests.trainer import tiny
from trainer.data import Images
from trainer.layers import set_width
from trainer.norms import ActiveBatchNorm, WidthBatchNorm
from trainer.statistics import gather_statistics

QUARTERS = parse_grid("0.25:1.0:0.25")


def test_active_batch_norm_normalises_the_channels_that_are_there() -> None:
    norm = ActiveBatchNorm(6).double()
    x = torch.randn(8, 4, 3, 3, dtype=torch.float64) * 3 + 1
    y = norm(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean[:4], 0.1 * x.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var[:4], 0.9 + 0.1 * x.var((0, 2, 3)))
    assert not norm.running_mean[4:].any()  # the channels that were not there have learnt nothing
    assert norm.running_var[4:].tolist() == [1.0, 1.0]
    norm.eval()
    expected = (x - norm.running_mean[:4, None, None]) / (norm.running_var[:4, None, None] + norm.eps).sqrt()
    torch.testing.assert_close(norm(x), expected)


def test_active_batch_norm_takes_flat_features() -> None:
    norm = ActiveBatchNorm(6)
    assert norm(torch.randn(8, 3)).shape == (8, 3)


@pytest.mark.parametrize(
    ("width", "used"), [("0.25", 0), ("0.26", 1), ("0.3", 1), ("0.5", 1), ("0.51", 2), ("0.75", 2), ("0.8", 3), ("1", 3)]
)
def test_between_trained_widths_the_next_larger_statistics_are_used(width: str, used: int) -> None:
    norm = WidthBatchNorm(8, QUARTERS, shared=False)
    norm.at(Fraction(width))
    assert norm.set == used


def test_a_switchable_norm_keeps_all_four_apart() -> None:
    norm = WidthBatchNorm(4, QUARTERS, shared=False)
    norm.at(Fraction(1, 2))
    norm(torch.randn(16, 2, 3, 3) + 5).sum().backward()
    assert norm.running_mean[1, :2].min() > 0.3
    assert not norm.running_mean[[0, 2, 3]].any()
    assert norm.weight.grad is not None
    assert norm.bias.grad is not None
    assert norm.bias.grad[1, :2].all()
    assert not norm.bias.grad[[0, 2, 3]].any()


def test_a_us_net_norm_shares_scale_and_shift_and_tracks_nothing_while_training() -> None:
    norm = WidthBatchNorm(4, QUARTERS, shared=True)
    assert norm.weight.shape == (1, 4)
    norm.at(Fraction(1, 2))
    norm(torch.randn(16, 2, 3, 3) + 5)
    assert not norm.running_mean.any()


def test_gathered_statistics_are_means_over_batches_of_each_width() -> None:
    net = tiny.network("lenet3c1l", kind="us-net").double()
    data = tiny.images(40)
    widths = parse_grid("0.25,0.6,1")
    gather_statistics(net, data, widths, batch=10)
    assert net.training
    norms = [module for module in net.modules() if isinstance(module, WidthBatchNorm)]
    assert all(norm.widths == widths and norm.gathered is None for norm in norms)
    for i, width in enumerate(widths):
        set_width(net, width)
        conv = net.features[0]
        seen = [conv(net.normalise(x)) for x, _ in data.batches(10, generator=torch.Generator().manual_seed(0))]
        k = seen[0].shape[1]
        mean = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
        var = torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0)
        torch.testing.assert_close(norms[0].running_mean[i, :k], mean.detach())
        torch.testing.assert_close(norms[0].running_var[i, :k], var.detach())


def test_gathering_looks_at_so_many_batches_and_copes_with_few_images() -> None:
    net = tiny.network("lenet3c1l", kind="us-net")
    gather_statistics(net, tiny.images(7), batch=500)
    assert all(norm.running_mean.any() for norm in net.modules() if isinstance(norm, WidthBatchNorm))
    once = tiny.network("lenet3c1l", kind="us-net")
    gather_statistics(once, tiny.images(40), batch=10, batches=1)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:10]
    data = tiny.images(40)
    again = tiny.network("lenet3c1l", kind="us-net")
    gather_statistics(again, Images(data.images[order], data.labels[order]), batch=10)
    for a, b in zip(once.state_dict().values(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)


def test_gathering_leaves_tracked_statistics_alone() -> None:
    net = tiny.network("lenet3c1l", kind="s-net")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    gather_statistics(net, tiny.images(20))
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_switchable_statistics_cannot_be_given_to_other_widths() -> None:
    norm = WidthBatchNorm(4, QUARTERS, shared=False)
    with pytest.raises(TrainingError, match="4 trained widths"):
        norm.set_statistics(parse_grid("0.25,1"))
