"""The one-pass training step against the paper's Algorithm 1: at four widths, and at all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import torch

from engines.widths import parse_grid
from tools.benches.measure import Figure, at_least, interleave, ratio
from trainer.networks import AnyWidthNetwork, build_network
from trainer.step import algorithm_1, one_pass

SUBJECT = f"torch {torch.__version__}"
FOUR_LIMIT, ALL_LIMIT = 1.8, 20
SAMPLE = 6  # of a large network's widths a pass each is timed at so many, evenly spaced, and the rest is taken to cost the same


def run() -> list[Figure]:
    """Time of a step, forward and backward, without the optimiser, which is the same for both."""
    torch.manual_seed(0)
    lenet = build_network("lenet3c1l", classes=10, image=(28, 28, 1), mean=(0.13,), std=(0.31,))
    # Units of 8 channels, as in this project's own recipe.
    mobile = build_network("mobilenetv2", classes=10, image=(32, 32, 3), mean=(0.5,) * 3, std=(0.25,) * 3, divisor=8)
    return [
        *_bench("LeNet-3C1L", lenet.train(), "0.25,0.5,0.75,1.0", batch=64, rounds=5),
        *_bench("MobileNetV2", mobile.train(), "0.35,0.5,0.75,1.0", batch=4, rounds=3),
    ]


def _bench(name: str, network: AnyWidthNetwork, grid: str, *, batch: int, rounds: int) -> list[Figure]:
    images = torch.randint(0, 256, (batch, *network.image), dtype=torch.uint8)
    labels = torch.randint(0, 10, (batch,))
    four, every = parse_grid(grid), network.distinct_widths()
    sample = every if len(every) <= 6 * SAMPLE else tuple(every[i * (len(every) - 1) // (SAMPLE - 1)] for i in range(SAMPLE))

    def step(kind: Callable[..., object], widths: Sequence[Fraction]) -> Callable[[], None]:
        def action() -> None:
            network.zero_grad(set_to_none=True)
            kind(network, images, labels, widths)

        return action

    at_four = {"algorithm-1": step(algorithm_1, four), "one-pass": step(one_pass, four)}
    at_all = {"algorithm-1": step(algorithm_1, sample), "one-pass": step(one_pass, every)}
    medians = interleave(at_four, rounds=rounds, warm=1, timed=1)
    of_four, line = ratio(f"{name}, 4 widths, Algorithm 1 over one pass", medians["algorithm-1"], medians["one-pass"])
    print(f"{line}   batch {batch}, {torch.get_num_threads()} threads")
    medians = interleave(at_all, rounds=3, warm=0, timed=1)
    whole = medians["algorithm-1"] * (len(every) / len(sample))
    of_all, line = ratio(f"{name}, all {len(every)} different widths, a pass a width over one pass", whole, medians["one-pass"])
    print(f"{line}   a pass a width timed at {len(sample)} of them")
    return [
        at_least(f"{name}: Algorithm 1 over one pass, time of a step with 4 widths", of_four, FOUR_LIMIT),
        at_least(f"{name}: a pass a width over one pass, time of a step with all {len(every)} widths", of_all, ALL_LIMIT),
    ]
