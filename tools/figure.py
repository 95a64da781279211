"""The figure of a profile: accuracy against latency."""

from __future__ import annotations

from pathlib import Path

from engines.bundle import Bundle
from engines.errors import AwnError
from sdk.frontier import Frontier
from sdk.profile import Profile

FORMATS = (".svg", ".png")


def draw_frontier(path: Path, profile: Profile, bundle: Bundle) -> None:
    """Draw every network and the frontier, as SVG or PNG by the ending of the path.

    Raises:
        AwnError: the profile has no accuracies.
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    # The same file for the same profile.
    mpl.rcParams.update({"svg.hashsalt": "any-width-networks", "font.size": 9})
    from matplotlib import pyplot

    points = [point for point in profile.points if point.accuracy is not None]
    if not points:
        raise AwnError("the profile has no accuracies: the model file has no curve")
    frontier = [point for point in Frontier(points).points if point.accuracy is not None]
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    axes.scatter([p.latency_ms for p in points], [100 * (p.accuracy or 0) for p in points], s=14, color="#9aa5b1", label="a network")
    axes.step(
        [p.latency_ms for p in frontier],
        [100 * (p.accuracy or 0) for p in frontier],
        where="post",
        color="#1f6feb",
        marker="o",
        markersize=4,
        label="the frontier",
    )
    for point in frontier:
        last = point is frontier[-1] and len(frontier) > 1
        place = (point.latency_ms, 100 * (point.accuracy or 0))
        if point in (frontier[0], frontier[-1]) or len(frontier) <= 6:
            offset, side = ((-7, 5), "right") if last else ((7, 5), "left")
            axes.annotate(f"width {point.width}", place, textcoords="offset points", xytext=offset, ha=side, color="#1f6feb")
    axes.margins(0.06, 0.12)
    axes.set_xlabel(f"median latency of one image, ms ({profile.backend}, {profile.device['processor']})")
    axes.set_ylabel(f"accuracy, % ({bundle.manifest.accuracy_data})")
    axes.set_title(f"{bundle.manifest.name}: {len(bundle.manifest.widths)} widths, one set of weights")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
