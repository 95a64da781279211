"""A random width each call against the same width again and again."""

from __future__ import annotations

import random
import time

import numpy as np

from sdk import AdaptiveClassifier
from sdk.profile import measure_profile
from tools.benches.measure import Figure, at_most, shown
from tools.benches.shipped import SUBJECT as SUBJECT
from tools.benches.shipped import shipped_bundle

LIMIT = 1.3
ROUNDS, CALLS = 60, 76


def run() -> list[Figure]:
    """Blocks of calls at random widths and blocks at one width, in turn; each call is compared with others of its own width."""
    random_ms: dict[float, list[float]] = {}
    same_ms: dict[float, list[float]] = {}
    order = random.Random(0)
    with shipped_bundle() as bundle:
        with bundle.open() as pool:
            profile = measure_profile(bundle, pool, seconds=1)
        image = np.random.default_rng(0).integers(0, 256, bundle.manifest.image, np.uint8)
        with AdaptiveClassifier(bundle, profile=profile) as classifier:

            def timed(into: dict[float, list[float]], width: float) -> None:
                start = time.perf_counter_ns()
                classifier(image)
                into.setdefault(width, []).append((time.perf_counter_ns() - start) / 1e6)

            widths = [float(width) for width in classifier.widths]
            for _ in range(ROUNDS):
                for _ in range(CALLS):
                    width = order.choice(widths)
                    classifier.pin(width)
                    timed(random_ms, width)
                # The same number of calls, a few widths in a row each.
                for width in order.sample(widths, 8):
                    classifier.pin(width)
                    classifier(image)
                    for _ in range(CALLS // 8):
                        timed(same_ms, width)
    common = sorted(random_ms.keys() & same_ms.keys())
    ratios = np.array([np.median(random_ms[width]) / np.median(same_ms[width]) for width in common])
    everything = float(np.median(np.concatenate([random_ms[w] for w in common])) / np.median(np.concatenate([same_ms[w] for w in common])))
    low, middle, high = np.percentile(ratios, [5, 50, 95])
    print(f"a call at a random width against the same width, ratio of medians by width: {middle:.3f} [5 %: {low:.3f}, 95 %: {high:.3f}]")
    return [
        at_most("random against same width, median over widths of the ratio of medians", float(middle), LIMIT),
        shown("random against same width, ratio of the medians of all calls", everything),
    ]
