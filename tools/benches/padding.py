"""Engines padded to the backend's own multiple against unpadded ones."""

from __future__ import annotations

from engines.widths import format_width, parse_grid
from tools.benches.measure import Figure, interleave, ratio, shown
from tools.benches.shipped import SUBJECT as SUBJECT
from tools.benches.shipped import shipped_bundle

WIDTHS = "0.25,0.5,0.75,1.0"


def run() -> list[Figure]:
    """Time of the padded engine over that of the unpadded one, at four widths."""
    figures = []
    with shipped_bundle() as padded, shipped_bundle(pad_to=1) as plain, padded.open() as padded_pool, plain.open() as plain_pool:
        for width in parse_grid(WIDTHS):
            a, b = padded.exit(width), plain.exit(width)
            medians = interleave(
                {"padded": lambda a=a: padded_pool.run(a), "plain": lambda b=b: plain_pool.run(b)},  # type: ignore[misc]
                rounds=200,
                timed=10,
            )
            value, line = ratio(f"width {format_width(width)}, padded to {padded.manifest.padding}", medians["padded"], medians["plain"])
            print(line)
            figures.append(shown(f"padded against unpadded, width {format_width(width)}", value))
    return figures
