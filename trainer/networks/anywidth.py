"""What every multi-width network is: normalisation, features, a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn

from engines.errors import TrainingError
from engines.widths import WidthRule
from trainer.layers import Classifier, SlicedConv2d, TriangularLinear, WidthLayer, set_width
from trainer.norms import WidthBatchNorm


class AnyWidthNetwork(nn.Module):
    """An image classifier that runs at any width.

    Args:
        features: Maps normalised images (N, C, H, W) to flat features (N, active(m) * repeat); made of the layers in `trainer.layers`
            and `trainer.norms` and of operations that act channel by channel.
        classifier: Maps features to logits.
        rule: The width rule that every layer was made with.
        image: Height, width and channels of the input.
        mean: Mean of each image channel, for pixels in 0 to 1.
        std: Standard deviation of each image channel, for pixels in 0 to 1.

    Attributes:
        mixed: Compute the features in mixed precision (bfloat16) while training; weights, batch statistics, classifier and losses stay
            as they are, and so does evaluation.

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
        self.mixed = False
        self.register_buffer("scale", torch.tensor([1 / (255 * s) for s in std]), persistent=False)
        self.register_buffer("shift", torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (N, H, W, C) to zero mean and unit variance, (N, C, H, W)."""
        return (images.to(self.scale.dtype) * self.scale + self.shift).permute(0, 3, 1, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Logits at the width set last: (N, classes)."""
        return self.classifier(self._extract(images))

    @property
    def prefix(self) -> bool:
        """Whether the features at a width are the leading channels of those at every larger one."""
        return not self._without_prefix()

    def require_prefix(self, purpose: str) -> None:
        """Refuse what only a network with the prefix property can do.

        Raises:
            TrainingError: a layer breaks the property; the message names it.
        """
        without = self._without_prefix()
        if without:
            raise TrainingError(
                f"{purpose} needs a network whose narrow features are the leading channels of its wide ones; {without[0]} breaks that: "
                f"train it with step = 'algorithm-1', which takes a pass a width, or make it an awn"
            )

    def _without_prefix(self) -> list[str]:
        layers = ((name, layer) for name, layer in self.features.named_modules() if isinstance(layer, WidthLayer))
        return [f"layer {name} ({layer.no_prefix})" for name, layer in layers if layer.no_prefix]

    def exits(self, images: Tensor, widths: Sequence[Fraction]) -> Tensor:
        """Logits at several widths from one pass at full width.

        Args:
            images: uint8, (N, H, W, C).
            widths: Any widths that the rule allows, in any order.

        Returns:
            (len(widths), N, classes), in the order of `widths`.

        Raises:
            TrainingError: the network lacks the prefix property.
            WidthError: the rule does not allow a width.
        """
        self.require_prefix("one pass for several widths")
        for width in widths:
            self.rule.check(width)
        set_width(self, Fraction(1))
        active = [self.rule.active(self.classifier.channels, width) for width in widths]
        counts = sorted(set(active))
        logits = self.classifier.exits(self._extract(images), counts)
        if counts == active:
            return logits
        place = {k: i for i, k in enumerate(counts)}
        return logits[[place[k] for k in active]]

    def logits_at(self, images: Tensor, width: Fraction) -> Tensor:
        """Logits at one width, with a pass of its own: uint8 (N, H, W, C) to (N, classes)."""
        set_width(self, width)
        return self(images)

    def distinct_widths(self) -> tuple[Fraction, ...]:
        """The narrowest width of each different sub-network, ascending.

        With the prefix property the logits of a width hang on how many features the classifier reads and on nothing else: two widths
        that agree in that are one function, though hidden channels that nothing reads may come between them.
        """
        return self.rule.distinct([self.classifier.channels] if self.prefix else self._dimensions())

    def variant(self, width: Fraction) -> tuple[int, ...]:
        """What tells sub-networks apart: equal at two widths if they compute the same."""
        norms = [layer for layer in self.features.modules() if isinstance(layer, WidthBatchNorm)]
        sets = {next((i for i, known in enumerate(norm.widths) if known >= width), 0) for norm in norms}
        return (*(self.rule.active(m, width) for m in sorted(set(self._dimensions()))), *sorted(sets))

    def _extract(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.mixed and self.training):
            features = self.features(self.normalise(images))
        return features.to(self.classifier.weight.dtype)

    def _dimensions(self) -> list[int]:
        layers = (SlicedConv2d, TriangularLinear)
        return [module.weight.shape[0] for module in self.features.modules() if isinstance(module, layers)]
