"""The training loop."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import msgspec
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from engines.errors import TrainingError
from engines.files import remove_parts
from engines.widths import format_width, parse_grid
from trainer import checkpoint, processes
from trainer.augment import shift_and_flip
from trainer.curve import measure_curve
from trainer.data import Images, info
from trainer.log import Epoch, read_log, write_log
from trainer.networks import AnyWidthNetwork
from trainer.norms import WidthBatchNorm
from trainer.recipe import Recipe
from trainer.statistics import gather_statistics
from trainer.step import STEPS, choose_widths

REPORT_BATCHES = 4  # of 500 images, for the statistics of a US-Net at the end of an epoch


@dataclass(frozen=True)
class Progress:
    """Where a run stands within an epoch: step `step` of `steps`, with the mean loss so far."""

    epoch: int
    step: int
    steps: int
    loss: float


def four_widths(a_min: Fraction) -> tuple[Fraction, ...]:
    """The widths that a run reports: a_min, and of one half, three quarters and all those above it."""
    return tuple(sorted({a_min, *(width for width in (Fraction(1, 2), Fraction(3, 4), Fraction(1)) if width > a_min)}))


def learning_rate(recipe: Recipe, progress: float) -> float:
    """The learning rate when `progress` epochs lie behind."""
    if progress < recipe.warmup:
        return recipe.lr * progress / recipe.warmup
    if recipe.schedule == "linear":
        return recipe.lr * (1 - min(1.0, (progress - recipe.warmup) / max(recipe.epochs - recipe.warmup, 1e-9)))
    if recipe.schedule == "steps":
        return recipe.lr * recipe.decay ** sum(progress >= share * recipe.epochs for share in recipe.milestones)
    share = (progress - recipe.warmup) / max(recipe.epochs - recipe.warmup, 1e-9)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


class Run:
    """A training run: its network, optimiser, averaged weights and randomness.

    Args:
        recipe: What to do.
        train: Training images on the device to train on.
        test: Test images on the same device, for the reports; nothing is chosen by them.
        out: Directory of the run: `last.safetensors` to resume from, `weights.safetensors` at the end, `log.csv`.

    Raises:
        TrainingError: the recipe asks for what its network cannot do, or training and test images differ in shape.
    """

    def __init__(self, recipe: Recipe, train: Images, test: Images, out: Path) -> None:
        self.recipe, self.train_images, self.test_images, self.out = recipe, train, test, out
        recipe.check()
        data = train.info or info(recipe.data)
        _, height, width, channels = train.images.shape
        if test.images.shape[1:] != train.images.shape[1:]:
            shapes = ["x".join(map(str, images.images.shape[1:])) for images in (train, test)]
            raise TrainingError(
                f"training images are {shapes[0]} and test images {shapes[1]} (height, width, channels): set size in the recipe"
            )
        self.header = checkpoint.Header(
            recipe=recipe,
            labels=data.labels,
            image=(height, width, channels),
            mean=data.mean,
            std=data.std,
            epochs_done=0,
            data=train.source,
            versions={"python": platform.python_version(), "torch": version("torch")},
        )
        self.device = train.labels.device
        torch.manual_seed(recipe.seed)
        # The layout in which convolutions are fastest, on GPUs and (by a tenth) on CPUs; images come in it anyway.
        self.network = self.header.network().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.mixed = recipe.precision == "bfloat16"
        _check(self.network, recipe)
        self.averaged = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True) if recipe.ema else None
        self.optimiser = torch.optim.SGD(self._groups(), lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
        # One CPU generator for order, augmentation and widths: its state is all that a resumed run needs.
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.epochs: list[Epoch] = []

    @property
    def kept(self) -> AnyWidthNetwork:
        """The network whose weights are kept: the averaged one if the recipe asks for it."""
        network = self.averaged.module if self.averaged is not None else self.network
        assert isinstance(network, AnyWidthNetwork)
        return network

    def train(
        self,
        *,
        on_progress: Callable[[Progress], None] = lambda _: None,
        on_epoch: Callable[[Epoch], None] = lambda _: None,
    ) -> None:
        """Train to the end of the recipe, a checkpoint an epoch.

        Raises:
            TrainingError: the loss is no longer finite, and the last checkpoint is from before; or the directory holds another run or
                cannot be written to.
        """
        self._claim()
        widths = four_widths(self.network.rule.a_min)
        while len(self.epochs) < self.recipe.epochs:
            epoch = len(self.epochs)
            start = time.monotonic()
            loss = self._epoch(epoch, on_progress)
            seconds = time.monotonic() - start
            gather_statistics(self.kept, self.train_images, batches=REPORT_BATCHES)
            curve = measure_curve(self.kept, self.test_images, widths, data=self.test_images.source)
            lr = self.optimiser.param_groups[0]["lr"]
            accuracy = {width: curve.correct[width] / curve.images for width in map(format_width, widths)}
            self.epochs.append(Epoch(epoch + 1, loss, lr, seconds, accuracy))
            if processes.rank() == 0:
                self._save()
            on_epoch(self.epochs[-1])
        gather_statistics(self.kept, self.train_images)
        if processes.rank() != 0:
            return
        header = self._header()
        checkpoint.save(self.out / "weights.safetensors", self.kept.state_dict(), header)

    def resume(self) -> None:
        """Go on from the run's last checkpoint, to the same weights as without the break.

        Raises:
            TrainingError: there is none, or it is of another recipe.
        """
        path = self.out / "last.safetensors"
        remove_parts(self.out)
        tensors, header = checkpoint.load(path)
        if header.recipe != self.recipe:
            raise TrainingError(f"{path} is of another recipe than the one given: choose another --out, or train anew without --resume")
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = tensor.to(self.device)
        if "network" not in parts or "generator/state" not in tensors:
            raise TrainingError(f"{path} holds weights alone, without the state of the run: only last.safetensors can be resumed from")
        checkpoint.restore(self.network, parts["network"], path)
        if self.averaged is not None:
            checkpoint.restore(self.averaged, parts["averaged"], path)
        for name, parameter in self.network.named_parameters():
            if name in parts.get("momentum", {}):
                self.optimiser.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(parts["momentum"][name])
        self.generator.set_state(tensors["generator/state"])
        self.epochs = read_log(self.out / "log.csv")[: header.epochs_done]
        if len(self.epochs) != header.epochs_done:
            raise TrainingError(f"{self.out / 'log.csv'} has {len(self.epochs)} epochs, {path} has {header.epochs_done}: train anew")

    def _claim(self) -> None:
        """Before any time is spent: the directory can be written to, and holds no run that this one would replace."""
        for name in ("last.safetensors", "weights.safetensors"):
            if not self.epochs and (self.out / name).exists():
                raise TrainingError(f"{self.out} holds a run already ({name}): pass --resume to go on with it, or choose another --out")
        self.out.mkdir(parents=True, exist_ok=True)
        if not os.access(self.out, os.W_OK):
            raise TrainingError(f"{self.out} cannot be written to: choose another --out")

    def _epoch(self, epoch: int, on_progress: Callable[[Progress], None]) -> float:
        recipe, network = self.recipe, self.network
        network.train()
        steps = len(self.train_images) // recipe.batch
        if steps == 0:
            raise TrainingError(f"{len(self.train_images)} training images are fewer than one batch of {recipe.batch}")
        total = 0.0
        backward = STEPS[recipe.widths.step]
        batches = self.train_images.batches(recipe.batch, generator=self.generator)
        for step, (images, labels) in enumerate(batches):
            for group in self.optimiser.param_groups:
                group["lr"] = learning_rate(recipe, epoch + step / steps)
            # Every process draws for the whole batch, so that all draw the same, and then takes its share.
            images = shift_and_flip(images, shift=recipe.shift, flip=recipe.flip, generator=self.generator)
            widths = choose_widths(network, recipe.widths, self.generator)
            weight = 1.0 if recipe.widths.loss == "sum" else 1 / len(widths)
            images, labels = processes.share(images, labels)
            self.optimiser.zero_grad(set_to_none=True)
            losses = backward(
                network,
                images,
                labels,
                widths,
                weight=weight,
                label_smoothing=recipe.label_smoothing,
                distil=recipe.distil,
            )
            processes.average_gradients(network.parameters())
            loss = processes.total(losses.mean()).item() / processes.count()
            if not math.isfinite(loss):
                good = f"the last good checkpoint is {self.out / 'last.safetensors'} after epoch {epoch}" if epoch else ""
                raise TrainingError(
                    f"the loss became {loss} in epoch {epoch + 1}, step {step + 1}: lower lr (now {recipe.lr}) and train anew; "
                    f"{good or 'there is no checkpoint yet'}"
                )
            self.optimiser.step()
            if self.averaged is not None:
                self.averaged.update_parameters(network)
            total += loss
            on_progress(Progress(epoch + 1, step + 1, steps, total / (step + 1)))
        return total / steps

    def _groups(self) -> list[dict[str, object]]:
        decay = self.recipe.weight_decay
        if self.recipe.decay_all:
            return [{"params": list(self.network.parameters()), "weight_decay": decay}]
        norms = {id(p) for layer in self.network.modules() if isinstance(layer, WidthBatchNorm) for p in layer.parameters()}
        spared = [p for p in self.network.parameters() if p.ndim <= 1 or id(p) in norms]
        known = {id(p) for p in spared}
        return [
            {"params": [p for p in self.network.parameters() if id(p) not in known], "weight_decay": decay},
            {"params": spared, "weight_decay": 0.0},
        ]

    def _header(self) -> checkpoint.Header:
        return msgspec.structs.replace(self.header, epochs_done=len(self.epochs))

    def _save(self) -> None:
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        if self.averaged is not None:
            tensors |= {f"averaged/{name}": tensor for name, tensor in self.averaged.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            buffer = self.optimiser.state[parameter].get("momentum_buffer")
            if buffer is not None:  # a recipe may have no momentum
                tensors[f"momentum/{name}"] = buffer
        tensors["generator/state"] = self.generator.get_state()
        # The log first: a checkpoint never knows of more epochs than the log.
        write_log(self.out / "log.csv", self.epochs)
        checkpoint.save(self.out / "last.safetensors", tensors, self._header())


def _check(network: AnyWidthNetwork, recipe: Recipe) -> None:
    """Refuse a plan that the network cannot follow, before any time is spent on it."""
    if recipe.widths.step == "one-pass":
        network.require_prefix(f"the recipe {recipe.name} with step = 'one-pass'")
    for norm in network.modules():
        if not isinstance(norm, WidthBatchNorm) or norm.shared:
            continue
        if recipe.widths.choose != "fixed" or parse_grid(recipe.widths.grid) != norm.widths:
            known = ",".join(map(format_width, norm.widths))
            raise TrainingError(
                f"the recipe {recipe.name} trains {recipe.widths.choose} widths, but its s-net keeps batch statistics for {known} alone: "
                f"set choose = 'fixed' and grid = '{known}'"
            )
