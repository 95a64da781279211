"""One training step over several widths: the paper's Algorithm 1, and the same gradients from one pass."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own habit)

from engines.errors import TrainingError
from engines.widths import format_width, parse_grid
from trainer.layers import set_width
from trainer.networks import AnyWidthNetwork
from trainer.recipe import Widths


def algorithm_1(
    network: AnyWidthNetwork,
    images: Tensor,
    labels: Tensor,
    widths: Sequence[Fraction],
    *,
    weight: float = 1.0,
    label_smoothing: float = 0.0,
    distil: float = 0.0,
) -> Tensor:
    """Accumulate the gradients of several widths with a pass each (paper, Algorithm 1, lines 10 to 16).

    Args:
        network: The network; its gradients are added to.
        images: uint8, (N, H, W, C).
        labels: int64, (N,).
        widths: The widths of this step; 1 among them if `distil` is not 0.
        weight: Factor on each width's loss.
        label_smoothing: Of the cross-entropy.
        distil: Share of the full width's answers, detached, in what the narrower widths learn from (US-Net's in-place
            distillation at 1).

    Returns:
        The mean loss of each width, (len(widths),), detached, before `weight`.

    Raises:
        TrainingError: `distil` is not 0, and the full width is not there to learn from.
    """
    _check_teacher(widths, distil)
    losses: dict[int, Tensor] = {}
    answers = None
    # The full width first: the others learn from its answers.
    for i in sorted(range(len(widths)), key=lambda i: widths[i], reverse=True):
        logits = network.logits_at(images, widths[i])
        if distil and widths[i] == 1:
            answers = logits.detach().softmax(1)
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        if answers is not None and widths[i] != 1:
            loss = (1 - distil) * loss + distil * F.cross_entropy(logits, answers)
        (loss * weight).backward()
        losses[i] = loss.detach()
    set_width(network, Fraction(1))
    return torch.stack([losses[i] for i in range(len(widths))])


def one_pass(
    network: AnyWidthNetwork,
    images: Tensor,
    labels: Tensor,
    widths: Sequence[Fraction],
    *,
    weight: float = 1.0,
    label_smoothing: float = 0.0,
    distil: float = 0.0,
) -> Tensor:
    """Accumulate the gradients of `algorithm_1` with one pass at full width.

    The features at every width are leading channels of the features at full width, in training mode too, since a channel's batch
    statistics are its own. So the sum over widths of the losses is a function of one set of features, and one backward pass gives
    the sum of the gradients. Arguments and result are those of `algorithm_1`.

    The running statistics of batch norm move once a step here, and once a pass there.

    Raises:
        TrainingError: the network lacks the prefix property, or the full width to learn from is missing.
    """
    _check_teacher(widths, distil)
    logits = network.exits(images, widths)
    count, n, classes = logits.shape
    flat = logits.reshape(count * n, classes)
    losses = _means(F.cross_entropy(flat, labels.repeat(count), label_smoothing=label_smoothing, reduction="none"), count)
    if distil:
        answers = logits[list(widths).index(Fraction(1))].detach().softmax(1)
        soft = _means(F.cross_entropy(flat, answers.repeat(count, 1), reduction="none"), count)
        share = torch.tensor([0.0 if width == 1 else distil for width in widths], dtype=soft.dtype, device=soft.device)
        losses = (1 - share) * losses + share * soft
    (losses.sum() * weight).backward()
    return losses.detach()


def _check_teacher(widths: Sequence[Fraction], distil: float) -> None:
    if distil and Fraction(1) not in widths:
        raise TrainingError(f"distil = {distil} needs width 1 among the widths of a step, got up to {format_width(max(widths))}")


def _means(each: Tensor, count: int) -> Tensor:
    """The mean of each of `count` stretches: (count * N,) to (count,)."""
    return each.view(count, -1).mean(1)


STEPS = {"one-pass": one_pass, "algorithm-1": algorithm_1}


def choose_widths(network: AnyWidthNetwork, widths: Widths, generator: torch.Generator) -> tuple[Fraction, ...]:
    """The widths that one step trains, ascending.

    Random ones are a_min, 1 and uniform draws between them (paper, Algorithm 1, line 9), in millionths so that they stay exact.

    Raises:
        WidthError: a fixed width is not allowed by the network's rule.
    """
    if widths.choose == "all":
        return network.distinct_widths()
    if widths.choose == "fixed":
        return parse_grid(widths.grid)
    a_min = network.rule.a_min
    draws = torch.rand(widths.count - 2, generator=generator, dtype=torch.float64).tolist()
    between = (a_min + Fraction(int(draw * 10**6), 10**6) * (1 - a_min) for draw in draws)
    return tuple(sorted([a_min, Fraction(1), *between]))
