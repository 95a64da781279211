"""The one-pass training step against the paper's Algorithm 1."""

from __future__ import annotations

import torch

from engines.widths import parse_grid
from tools.benches.measure import Figure, at_least, interleave, ratio
from trainer.networks import build_network
from trainer.step import algorithm_1, one_pass

SUBJECT = f"torch {torch.__version__}"
BATCH = 128
LIMIT = 1.7


def run() -> list[Figure]:
    """Time of a step with four widths, forward and backward, without the optimiser, which is the same for both."""
    torch.manual_seed(0)
    network = build_network("lenet3c1l", classes=10, image=(28, 28, 1), mean=(0.13,), std=(0.31,)).train()
    images = torch.randint(0, 256, (BATCH, 28, 28, 1), dtype=torch.uint8)
    labels = torch.randint(0, 10, (BATCH,))
    widths = parse_grid("0.25,0.5,0.75,1.0")

    def step(kind: object) -> None:
        network.zero_grad(set_to_none=True)
        kind(network, images, labels, widths)  # type: ignore[operator]

    medians = interleave({"algorithm-1": lambda: step(algorithm_1), "one-pass": lambda: step(one_pass)}, rounds=20, warm=1, timed=5)
    value, line = ratio(
        f"LeNet-3C1L, {len(widths)} widths, batch {BATCH}, {torch.get_num_threads()} threads, Algorithm 1 over one pass",
        medians["algorithm-1"],
        medians["one-pass"],
    )
    print(line)
    return [at_least("LeNet-3C1L: Algorithm 1 over one pass, time of a step with 4 widths", value, LIMIT)]
