"""Figure 2: batch statistics of each width while training, beside the ones that a shared batch norm keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

from torch import Tensor, nn

from trainer.augment import shift_and_flip
from trainer.data import Images
from trainer.loop import Run
from trainer.norms import ActiveBatchNorm, WidthBatchNorm
from trainer.step import algorithm_1, choose_widths

HEADER = ("step", "layer", "channel", "statistic", "width", "value")
MOMENTUM = 0.1  # that of the batch norms


@dataclass
class Tracker:
    """Running means and variances of what each batch norm receives, a width at a time.

    Attributes:
        width: The width that runs now.
        tracked: (mean, variance) of the leading channels by layer and width.
    """

    width: Fraction = Fraction(1)
    tracked: dict[tuple[str, Fraction], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def watch(self, network: nn.Module) -> None:
        """Look at every batch norm of a network from now on."""
        for name, layer in network.named_modules():
            if isinstance(layer, ActiveBatchNorm | WidthBatchNorm):
                layer.register_forward_pre_hook(self._hook(name))

    def spread(self, layer: str) -> float:
        """The largest distance between two widths' statistics of a channel that both have, in units of its standard deviation at the
        full one (for variances: as a share of its variance there).
        """
        full_mean, full_var = self.tracked[layer, Fraction(1)]
        apart = 0.0
        for (name, _), (mean, var) in self.tracked.items():
            if name == layer:
                k = len(mean)
                apart = max(apart, float(((mean - full_mean[:k]).abs() / full_var[:k].sqrt()).max()))
                apart = max(apart, float(((var - full_var[:k]).abs() / full_var[:k]).max()))
        return apart

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            (x,) = inputs
            dims = [0, *range(2, x.ndim)]
            # Double, so that what is seen is the network's doing and not a sum's rounding.
            mean, var = x.detach().double().mean(dims), x.detach().double().var(dims)
            before = self.tracked.get((name, self.width))
            if before is not None:
                mean, var = before[0].lerp(mean, MOMENTUM), before[1].lerp(var, MOMENTUM)
            self.tracked[name, self.width] = mean, var

        return hook


def track(
    run: Run,
    train: Images,
    *,
    steps: int,
    every: int = 10,
    channel: int = 0,
    on_step: Callable[[int], None] = lambda _: None,
) -> tuple[list[tuple[str, ...]], dict[str, float]]:
    """Train for some steps with a pass a width and note the statistics of one channel of each layer.

    Args:
        run: A run whose recipe has fixed widths.
        train: Training images.
        steps: How many steps.
        every: Note every so many.
        channel: Which channel; one that the narrowest width has.
        on_step: Told of each step.

    Returns:
        Lines under `HEADER`, where the width "shared" is what a batch norm for all widths keeps; and for each layer how far widths
        are apart at the end (`Tracker.spread`).
    """
    network, recipe = run.network.train(), run.recipe
    tracker = Tracker()
    tracker.watch(network)
    widths = choose_widths(network, recipe.widths, run.generator)
    shared = {name: norm for name, norm in network.named_modules() if isinstance(norm, ActiveBatchNorm)}
    lines: list[tuple[str, ...]] = []
    step = 0
    while step < steps:
        for images, labels in train.batches(recipe.batch, generator=run.generator):
            images = shift_and_flip(images, shift=recipe.shift, flip=recipe.flip, generator=run.generator)
            run.optimiser.zero_grad(set_to_none=True)
            for width in widths:
                tracker.width = width
                algorithm_1(network, images, labels, [width])
            run.optimiser.step()
            step += 1
            if step % every == 0:
                for (layer, width), (mean, var) in tracker.tracked.items():
                    values = {"mean": mean, "variance": var}
                    lines += [(str(step), layer, str(channel), name, str(float(width)), f"{v[channel]:.9g}") for name, v in values.items()]
                for layer, norm in shared.items():
                    assert norm.running_mean is not None
                    assert norm.running_var is not None
                    kept = {"mean": norm.running_mean, "variance": norm.running_var}
                    lines += [(str(step), layer, str(channel), name, "shared", f"{v[channel]:.9g}") for name, v in kept.items()]
            on_step(step)
            if step == steps:
                break
    layers = sorted({layer for layer, _ in tracker.tracked})
    return lines, {layer: tracker.spread(layer) for layer in layers}
