"""The width-accuracy curve from one pass over the images against a pass a width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import torch

from engines.widths import parse_grid
from tools.benches.measure import Figure, at_least, interleave, ratio, shown
from trainer.curve import measure_curve
from trainer.data import Images
from trainer.networks import AnyWidthNetwork, build_network

SUBJECT = f"torch {torch.__version__}"
GRID = parse_grid("0.25:1.0:0.01")
LIMIT = 25


def run() -> list[Figure]:
    """Time of the right answers of 76 widths on a batch of images."""
    torch.manual_seed(0)
    lenet = build_network("lenet3c1l", classes=10, image=(28, 28, 1), mean=(0.13,), std=(0.31,))
    mobile = build_network("mobilenetv2", classes=10, image=(32, 32, 3), mean=(0.5,) * 3, std=(0.25,) * 3, a_min="0.25")
    return [*_bench("LeNet-3C1L", lenet, batch=100, rounds=3), *_bench("MobileNetV2", mobile, batch=2, rounds=2)]


def _bench(name: str, network: AnyWidthNetwork, *, batch: int, rounds: int) -> list[Figure]:
    network.eval()
    images = Images(torch.randint(0, 256, (batch, *network.image), dtype=torch.uint8), torch.randint(0, 10, (batch,)))
    different = list({network.variant(width): width for width in GRID}.values())

    @torch.inference_mode()
    def pass_by_pass(widths: Sequence[Fraction]) -> None:
        for width in widths:
            int((network.logits_at(images.images, width).argmax(1) == images.labels).sum())

    actions: dict[str, Callable[[], object]] = {
        "one pass": lambda: measure_curve(network, images, GRID, data="random pixels"),
        "a pass a width": lambda: pass_by_pass(GRID),
    }
    if len(different) < len(GRID):
        actions["a pass a network"] = lambda: pass_by_pass(different)
    medians = interleave(actions, rounds=rounds, warm=0, timed=1)
    value, line = ratio(f"{name}, {len(GRID)} widths, a pass a width over one pass", medians["a pass a width"], medians["one pass"])
    print(f"{line}   batch {batch}, {torch.get_num_threads()} threads")
    figures = [at_least(f"{name}: the curve of {len(GRID)} widths, a pass a width over one pass", value, LIMIT)]
    if "a pass a network" in medians:
        sparing, line = ratio(f"{name}, its {len(different)} different networks", medians["a pass a network"], medians["one pass"])
        print(line)
        figures.append(shown(f"{name}: a pass for each of its {len(different)} different networks over one pass", sparing))
    return figures
