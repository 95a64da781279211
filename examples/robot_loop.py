"""A control loop at a fixed rate whose budget changes while it runs.

    python examples/robot_loop.py --seconds 12

The images are real MNIST test images. The loop first sees what the fastest and the most accurate point take at its own pace (an engine
takes longer after a pause than in a row). Then it asks for plenty, for a little more than the most accurate point takes, for half the
way to the fastest, and for less than the fastest takes.
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

    if options.hz <= 0 or options.seconds <= 0:
        parser.error("--hz and --seconds must be above 0")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with np.load(IMAGES) as file:
        images, labels = file["images"], file["labels"]
    try:
        with sdk.AdaptiveClassifier(options.bundle) as classifier:
            rows = run(classifier, images, labels, options.hz, options.seconds)
    except sdk.AwnError as error:
        parser.exit(2, f"error: {error}\n")
    with options.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("frame", "phase", "budget_ms", "width", "latency_ms", "met", "right"), *rows])
    print("\nphase       budget ms  frames  in budget   right  widths")
    for phase in dict.fromkeys(row[1] for row in rows):
        own = [row for row in rows if row[1] == phase]
        met, right = (100 * sum(row[column] for row in own) / len(own) for column in (5, 6))
        widths = " ".join(f"{width:.2f}" for width in sorted({row[3] for row in own}))
        print(f"{phase:10} {own[0][2]:10.3f} {len(own):7} {met:8.1f} % {right:6.1f} %  {widths}")
    print(f"files written: {options.out} (a line a frame)")


def rehearse(classifier: sdk.AdaptiveClassifier, image: np.ndarray, hz: float) -> tuple[float, float]:
    """What nine of ten frames take at the loop's pace, in ms: at the fastest point and at the most accurate one."""
    taken = []
    for point in (classifier.frontier.points[0], classifier.frontier.points[-1]):
        classifier.pin(point.width)
        latencies = []
        for _ in range(20):
            latencies.append(classifier(image).latency_ms)
            time.sleep(1 / hz)
        taken.append(float(np.percentile(latencies, 90)))
    classifier.pin(None)
    return taken[0], taken[1]


def run(classifier: sdk.AdaptiveClassifier, images: np.ndarray, labels: np.ndarray, hz: float, seconds: float) -> list[tuple[object, ...]]:
    """The loop: a frame, a budget, an answer, and sleep until the next."""
    fast, accurate = rehearse(classifier, images[0], hz)
    phases = [("plenty", max(8.0, 4 * accurate)), ("enough", 1.5 * accurate), ("tight", (fast + accurate) / 2), ("hopeless", fast / 4)]
    print(
        f"At {hz:g} frames a second the fastest point takes {fast:.2f} ms, the most accurate {accurate:.2f} ms: more than in the profile,\n"
        f"since an engine takes longer after a pause than in a row. Four phases, {seconds / 4:g} s each:\n"
        f"  plenty    {phases[0][1]:.2f} ms: the most accurate point\n"
        f"  enough    {phases[1][1]:.2f} ms, half as much again as that takes: the same, with less room\n"
        f"  tight     {phases[2][1]:.2f} ms, half the way to the fastest: a narrower one\n"
        f"  hopeless  {phases[3][1]:.2f} ms: cannot be met; the fastest answer comes all the same\n"
    )
    rows: list[tuple[object, ...]] = []
    start = time.monotonic()
    for frame in range(int(hz * seconds)):
        name, budget_ms = phases[int(frame / (hz * seconds) * len(phases))]
        classifier.budget = budget_ms
        prediction = classifier(images[frame % len(images)])
        right = prediction.index == labels[frame % len(labels)]
        rows.append((frame, name, budget_ms, prediction.width, prediction.latency_ms, prediction.budget_met, bool(right)))
        if frame % max(1, round(hz / 2)) == 0:
            accuracy = 100 * sum(row[6] for row in rows) / len(rows)
            print(
                f"{frame / hz:5.1f} s  {name:8}  budget {budget_ms:6.3f} ms  width {prediction.width:.2f}  "
                f"latency {prediction.latency_ms:6.3f} ms  {accuracy:6.2f} % right so far  ({prediction.reason})",
                flush=True,
            )
        try:
            time.sleep(max(0.0, start + (frame + 1) / hz - time.monotonic()))
        except KeyboardInterrupt:
            break
    return rows


if __name__ == "__main__":
    main()
