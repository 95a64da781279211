"""What a call of the classifier costs beyond the run of the engine that it chose."""

from __future__ import annotations

import numpy as np

from sdk import AdaptiveClassifier
from sdk.profile import measure_profile
from tools.benches.measure import Figure, at_most, interleave, shown
from tools.benches.shipped import SUBJECT as SUBJECT
from tools.benches.shipped import shipped_bundle

LIMIT_US = 40.0


def run() -> list[Figure]:
    """Calls with a budget against bare runs of the same engine, interleaved."""
    with shipped_bundle() as bundle, bundle.open() as pool:
        profile = measure_profile(bundle, pool, seconds=2)
        image = np.random.default_rng(0).integers(0, 256, bundle.manifest.image, np.uint8)
        with AdaptiveClassifier(bundle, profile=profile) as classifier:
            actions: dict[str, object] = {}
            points = classifier.frontier.points
            for name, point in (("narrowest", points[0]), ("widest", points[-1])):
                # The governor decides each time; one that always answers the same keeps the engine the same for both sides.
                budget = 1e3 if name == "widest" else 1e-3
                assert classifier(image, budget=budget).width == float(point.width)
                actions[f"{name} call"] = lambda budget=budget: classifier(image, budget=budget)
                actions[f"{name} engine"] = lambda exit=point.exit: pool.run(exit)
            medians = interleave(actions, rounds=300, warm=3, timed=20)  # type: ignore[arg-type]
    figures: list[Figure] = []
    for name in ("narrowest", "widest"):
        call, engine = medians[f"{name} call"], medians[f"{name} engine"]
        extra = float(np.median(call - engine)) * 1e3
        low, high = np.percentile((call - engine) * 1e3, [25, 75])
        print(f"{name}: call {np.median(call) * 1e3:.1f} us, beyond its engine {extra:.1f} us [{low:.1f}, {high:.1f}]")
        figures += [at_most(f"us of a call beyond the engine run, {name} width", extra, LIMIT_US)]
        figures += [shown(f"us of the engine run, {name} width", float(np.median(engine)) * 1e3)]
    return figures
