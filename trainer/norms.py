"""Batch norm of multi-width networks: one set of statistics for all widths, or a set a width."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own habit)

from engines.errors import TrainingError
from trainer import processes
from trainer.layers import WidthLayer


def normalise(
    x: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    *,
    momentum: float,
    eps: float,
) -> Tensor:
    """Normalise with the statistics of the whole batch, on however many processes it lies, and move the running ones.

    Args:
        x: (N, k, ...), this process's part of the batch.
        mean: Running means (k,), moved in place; None to keep none.
        var: Running variances (k,), likewise.
        weight: Scales (k,).
        bias: Shifts (k,).
        momentum: Weight of this batch in the running statistics.
        eps: Added to the variance.
    """
    if processes.count() == 1:
        return F.batch_norm(x, mean, var, weight, bias, True, momentum, eps)
    dims, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
    wide = x.to(weight.dtype)  # sums of bfloat16 would lose too much
    size = processes.count() * x.numel() // x.shape[1]
    batch_mean = processes.total(wide.sum(dims)) / size
    centred = wide - batch_mean.view(shape)
    batch_var = processes.total(centred.square().sum(dims)) / size
    if mean is not None and var is not None:
        with torch.no_grad():
            mean.lerp_(batch_mean, momentum)
            var.lerp_(batch_var * size / max(size - 1, 1), momentum)
    return (centred * (weight / (batch_var + eps).sqrt()).view(shape) + bias.view(shape)).to(x.dtype)


class ActiveBatchNorm(nn.BatchNorm2d):
    """Plain batch norm over the channels that are there; takes (N, k, H, W) or (N, k).

    A channel of a triangular network has the same statistics at every width, so one set serves all widths (paper, section 4.1). In a
    network of ordinary convolutions the widths disagree about the statistics, and this is the paper's "Standard BN" (Table 1).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the leading k channels with their own statistics."""
        k = x.shape[1]
        mean, var = self.running_mean, self.running_var
        assert mean is not None
        assert var is not None
        assert self.momentum is not None
        kept, affine = (mean[:k], var[:k]), (self.weight[:k], self.bias[:k])
        if self.training:
            return normalise(x, *kept, *affine, momentum=self.momentum, eps=self.eps)
        return F.batch_norm(x, *kept, *affine, False, 0.0, self.eps)


class WidthBatchNorm(WidthLayer):
    """Batch norm with a set of statistics for each of some widths, over the channels that are there: (N, k, H, W) or (N, k).

    At a width between two of its own it uses the next larger one (paper, section 5.1).

    Args:
        channels: Channels m at full width.
        widths: The widths with statistics of their own; the last is 1.
        shared: One scale and shift for all widths and statistics gathered after training (US-Net), else all four apart and
            tracked while training (S-Net).
        eps: Added to the variance.
        momentum: Weight of a new batch in the running statistics.
    """

    no_prefix = "batch norm with statistics a width"
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        channels: int,
        widths: Sequence[Fraction],
        *,
        shared: bool,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.channels, self.shared, self.eps, self.momentum = channels, shared, eps, momentum
        affine = 1 if shared else len(widths)
        self.weight = nn.Parameter(torch.ones(affine, channels))
        self.bias = nn.Parameter(torch.zeros(affine, channels))
        self.set_statistics(widths)
        self.gathered: int | None = None

    def set_statistics(self, widths: Sequence[Fraction]) -> None:
        """Keep statistics for these widths from now on; what was known of others is dropped.

        Raises:
            TrainingError: scale and shift are kept for each width too, and these are not those widths.
        """
        widths = tuple(sorted(widths))
        if not self.shared and len(widths) != len(self.weight):
            raise TrainingError(
                f"this batch norm keeps scale and shift for its {len(self.weight)} trained widths: statistics cannot be gathered for "
                f"{len(widths)} others; a us-net can"
            )
        self.widths = widths
        self.set = len(widths) - 1
        self.register_buffer("running_mean", self.weight.new_zeros(len(widths), self.channels))
        self.register_buffer("running_var", self.weight.new_ones(len(widths), self.channels))

    def at(self, width: Fraction) -> None:
        """Use the statistics of a width, or of the next larger one, from now on."""
        self.set = self.set_of(width)

    def set_of(self, width: Fraction) -> int:
        """Which set of statistics serves a width: its own, or that of the next larger one (paper, section 5.1)."""
        return next((i for i, known in enumerate(self.widths) if known >= width), len(self.widths) - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the leading k channels with the statistics of the width."""
        k = x.shape[1]
        affine = 0 if self.shared else self.set
        weight, bias = self.weight[affine, :k], self.bias[affine, :k]
        mean, var = self.running_mean[self.set, :k], self.running_var[self.set, :k]
        if self.gathered is not None:
            # A momentum of 1/n makes the running statistics the mean over all batches so far.
            return F.batch_norm(x, mean, var, weight, bias, True, 1 / self.gathered, self.eps)
        if self.training:
            tracked = (None, None) if self.shared else (mean, var)
            return normalise(x, tracked[0], tracked[1], weight, bias, momentum=self.momentum, eps=self.eps)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, self.eps)
