"""What every any-width network is: normalisation, features with the prefix property, a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn

from engines.widths import WidthRule
from trainer.layers import Classifier, TriangularConv2d, TriangularLinear, set_width


class AnyWidthNetwork(nn.Module):
    """An image classifier that runs at any width.

    Args:
        features: Maps normalised images (N, C, H, W) to flat features (N, active(m) * repeat); made of the layers in `trainer.layers`
            and of operations that act channel by channel.
        classifier: Maps features to logits.
        rule: The width rule that every layer was made with.
        image: Height, width and channels of the input.
        mean: Mean of each image channel, for pixels in 0 to 1.
        std: Standard deviation of each image channel, for pixels in 0 to 1.

    Shape:
        uint8 (N, H, W, C) to logits (N, classes).
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        features: nn.Module,
        classifier: Classifier,
        *,
        rule: WidthRule,
        image: tuple[int, int, int],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.features, self.classifier = features, classifier
        self.rule, self.image = rule, image
        self.mean, self.std = tuple(mean), tuple(std)
        self.register_buffer("scale", torch.tensor([1 / (255 * s) for s in std]), persistent=False)
        self.register_buffer("shift", torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (N, H, W, C) to zero mean and unit variance, (N, C, H, W)."""
        return (images.to(self.scale.dtype) * self.scale + self.shift).permute(0, 3, 1, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Logits at the width set last: (N, classes)."""
        return self.classifier(self.features(self.normalise(images)))

    def exits(self, images: Tensor, widths: Sequence[Fraction]) -> Tensor:
        """Logits at several widths from one pass at full width.

        Args:
            images: uint8, (N, H, W, C).
            widths: Any widths that the rule allows, in any order.

        Returns:
            (len(widths), N, classes), in the order of `widths`.
        """
        for width in widths:
            self.rule.check(width)
        set_width(self, Fraction(1))
        active = [self.rule.active(self.classifier.channels, width) for width in widths]
        counts = sorted(set(active))
        logits = self.classifier.exits(self.features(self.normalise(images)), counts)
        if counts == active:
            return logits
        return logits[[counts.index(k) for k in active]]

    def distinct_widths(self) -> tuple[Fraction, ...]:
        """The narrowest width of each different sub-network, ascending."""
        layers = (TriangularConv2d, TriangularLinear)
        channels = [module.weight.shape[0] for module in self.features.modules() if isinstance(module, layers)]
        return self.rule.distinct(channels)
