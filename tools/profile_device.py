#!/usr/bin/env python3
"""Measure the latency of every engine of a bundle on this device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from engines.bundle import Bundle
from engines.errors import AwnError
from sdk.frontier import Frontier
from sdk.profile import SECONDS, Profile, measure_profile, profile_path, write_profile
from tools.cli import Console, Table, Text, command_line, progress_bar, run, typer
from tools.figure import FORMATS, draw_frontier

app = command_line("Measure the latency of every engine of a bundle on this device.")


@app.command(epilog="Example: python tools/profile_device.py --bundle bundles/lenet --time 10 --figure curve.svg")
def profile_device(
    bundle: Annotated[Path | None, typer.Option(help="Directory of the bundle; as for sdk.AdaptiveClassifier if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the profile; where the sdk looks for it if not given.")] = None,
    time: Annotated[float, typer.Option(help="Seconds to spend at most.", min=0.1)] = SECONDS,
    figure: Annotated[Path | None, typer.Option(help="Draw accuracy against latency into this file (needs matplotlib).")] = None,
) -> None:
    """Measure the latency of every engine of a bundle on this device, interleaved, and print the frontier."""
    if figure is not None and figure.suffix not in FORMATS:
        raise AwnError(f"a figure is written as {' or '.join(FORMATS)}, not {figure.suffix!r}")
    if figure is not None:
        import matplotlib  # noqa: F401  (a missing one is said before the time is spent)

        figure.parent.mkdir(parents=True, exist_ok=True)
    source = Bundle(bundle)
    out = out or profile_path(source)
    out.parent.mkdir(parents=True, exist_ok=True)  # before the time is spent
    with source.open() as pool, progress_bar() as progress:
        task = progress.add_task(f"{len(source.manifest.engines)} engines", total=1.0, detail="")
        profile = measure_profile(source, pool, seconds=time, on_round=lambda share: progress.update(task, completed=share))
    write_profile(out, profile)
    _print(profile)
    if figure is not None:
        draw_frontier(figure, profile, source)
    count = f"{len(source.manifest.engines)} engines ({len(profile.points)} networks)"
    print(f"{out}: {count}, {profile.rounds} rounds, p95 lies {100 * profile.spread:.0f} % above the median")


def _print(profile: Profile) -> None:
    table = Table(title=Text(f"the frontier of {profile.backend} on {profile.device['processor']}"))
    for column in ("width", "latency ms", "p95 ms", "accuracy %"):
        table.add_column(column, justify="right")
    for point in Frontier(profile.points).points:
        accuracy = "" if point.accuracy is None else f"{100 * point.accuracy:.2f}"
        table.add_row(point.width, f"{point.latency_ms:.3f}", f"{point.p95_ms:.3f}", accuracy)
    Console().print(table)


def main() -> None:
    """Entry point."""
    run(app)


if __name__ == "__main__":
    main()
