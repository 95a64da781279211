"""A control loop at a fixed rate whose budget changes while it runs.

    python examples/robot_loop.py --seconds 12

The images are real MNIST test images; the budgets are taken from this device's own profile, so that each phase asks for something else:
plenty, a little less than the widest engine takes, half of it, and less than the fastest takes.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np

import sdk

IMAGES = Path(__file__).parent / "data" / "mnist-test-500.npz"


def main() -> None:
    """Run the loop and print what it did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", help="directory of the bundle (default: the one that tools/build_engines.py wrote)")
    parser.add_argument("--hz", type=float, default=100, help="rate of the loop (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=16, help="how long to run (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/robot_loop.csv"), help="a line a frame (default: %(default)s)")
    options = parser.parse_args()

    with np.load(IMAGES) as file:
        images, labels = file["images"], file["labels"]
    with sdk.AdaptiveClassifier(options.bundle) as classifier:
        rows = run(classifier, images, labels, options.hz, options.seconds)
        profile = classifier.profile
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("frame", "budget_ms", "width", "latency_ms", "met", "right"), *rows])
    met, right = (sum(row[column] for row in rows) / len(rows) for column in (4, 5))
    print(f"\n{len(rows)} frames: {100 * met:.1f} % within the budget, {100 * right:.2f} % right, {len(profile.points)} networks")
    print(f"files written: {options.out}")


def run(classifier: sdk.AdaptiveClassifier, images: np.ndarray, labels: np.ndarray, hz: float, seconds: float) -> list[tuple]:
    """The loop: a frame, a budget, an answer, and sleep until the next."""
    points = classifier.frontier.points
    slowest, fastest = points[-1].latency_ms, points[0].latency_ms
    phases = [("plenty", 8.0), ("tight", 3 * slowest), ("tighter", 1.5 * (slowest + fastest) / 2), ("hopeless", fastest / 2)]
    rows: list[tuple] = []
    start = time.monotonic()
    for frame in range(int(hz * seconds)):
        name, budget_ms = phases[int(frame / (hz * seconds) * len(phases))]
        classifier.budget = budget_ms
        prediction = classifier(images[frame % len(images)])
        right = prediction.index == labels[frame % len(labels)]
        rows.append((frame, budget_ms, prediction.width, prediction.latency_ms, prediction.budget_met, bool(right)))
        if frame % max(1, round(hz / 2)) == 0:
            accuracy = 100 * sum(row[5] for row in rows) / len(rows)
            print(
                f"{frame / hz:5.1f} s  {name:8}  budget {budget_ms:6.3f} ms  width {prediction.width:.2f}  "
                f"latency {prediction.latency_ms:6.3f} ms  {accuracy:6.2f} % right so far  ({prediction.reason})",
                flush=True,
            )
        time.sleep(max(0.0, start + (frame + 1) / hz - time.monotonic()))
    return rows


if __name__ == "__main__":
    main()
