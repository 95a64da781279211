"""What every multi-width network is: normalisation, features, a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn

from engines.errors import TrainingError
from engines.widths import WidthRule
from trainer.layers import Classifier, DepthwiseConv2d, SlicedConv2d, TriangularLinear, WidthLayer, set_width
from trainer.norms import ActiveBatchNorm, WidthBatchNorm

# Layers of torch's own that mix channels or have a fixed number of them, and those here that are built on them.
_FOREIGN = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
_OURS = (WidthLayer, DepthwiseConv2d, ActiveBatchNorm)


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

    Raises:
        TrainingError: the features have a layer of torch's own that does not follow the width; the message names it.

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
        _refuse_what_no_width_reaches(features)
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
        """A width of each different sub-network, ascending: the narrowest one, but 1 for the network itself.

        With the prefix property the logits of a width hang on how many features the classifier reads and on nothing else: two widths
        that agree in that are one function, though hidden channels that nothing reads may come between them.
        """
        *narrower, _ = self.rule.distinct([self.classifier.channels] if self.prefix else self._dimensions())
        return (*narrower, Fraction(1))

    def variant(self, width: Fraction) -> tuple[int, ...]:
        """What tells sub-networks apart: equal at two widths if they compute the same."""
        norms = [layer for layer in self.features.modules() if isinstance(layer, WidthBatchNorm)]
        sets = {norm.set_of(width) for norm in norms}
        return (*(self.rule.active(m, width) for m in sorted(set(self._dimensions()))), *sorted(sets))

    def _extract(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.mixed and self.training):
            features = self.features(self.normalise(images))
        return features.to(self.classifier.weight.dtype)

    def _dimensions(self) -> list[int]:
        layers = (SlicedConv2d, TriangularLinear)
        return [module.weight.shape[0] for module in self.features.modules() if isinstance(module, layers)]


def _refuse_what_no_width_reaches(features: nn.Module) -> None:
    """Refuse layers that would be the same at every width, before they fail at a narrow one or break the prefix property unseen."""
    for name, layer in features.named_modules():
        if isinstance(layer, _FOREIGN) and not isinstance(layer, _OURS):
            raise TrainingError(
                f"layer {name} is torch's own {type(layer).__name__}, which does not follow the width: take one of the layers in "
                f"trainer.layers, and ActiveBatchNorm from trainer.norms"
            )
