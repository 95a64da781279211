#!/usr/bin/env python3
"""Build an engine for each width of a grid."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from engines.backends import NAMES, choose_backend
from engines.build import Built, build
from engines.bundle import default_path
from engines.model import DEFAULT_MODEL, Model
from engines.widths import format_width, parse_grid
from tools.cli import command_line, console, progress_bar, run, typer

app = command_line("Build an engine for each width of a grid.")


@app.command(
    epilog="Example: python tools/build_engines.py --widths 0.25:1.0:0.01 --model lenet3c1l-mnist --backend auto --out bundles/lenet",
)
def build_engines(
    widths: Annotated[str, typer.Option(help="start:stop:step with both ends included, or a list like 0.25,0.5,1.")] = "0.25:1.0:0.01",
    model: Annotated[str, typer.Option(help="Path of a model file, or the name of one that ships.")] = DEFAULT_MODEL,
    backend: Annotated[str, typer.Option(help=f"One of: {', '.join(NAMES)}.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32; what else there is depends on the backend.")] = "fp32",
    pad: Annotated[
        int | None, typer.Option(help="Pad hidden channels to a multiple of this; if not given, what suits the backend.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the bundle; $AWN_BUNDLE or the user's own place if not given.")] = None,
    jobs: Annotated[int, typer.Option(help="Engines built at a time.", min=1)] = min(4, os.cpu_count() or 1),
) -> None:
    """Build an engine for each width of a grid.

    Widths whose channel counts are equal once they are padded share an engine. A build that was stopped goes on where it was when the
    same command is run again, and rebuilds nothing that is whole.
    """
    grid = parse_grid(widths)
    network = Model.read(model)
    chosen, passed = choose_backend(backend)
    for line in passed:
        console.print(f"passed over {line}")
    out = out or default_path()
    reused: list[bool] = []
    progress = progress_bar(counted=True)
    task = progress.add_task(f"{network.metadata.name} for {chosen.name}", total=None, detail="")

    def on_engine(built: Built) -> None:
        # The line appears with the first engine: an error before that is the only thing that is said.
        progress.start()
        reused.append(built.reused)
        verb = "kept" if built.reused else f"{built.seconds:.2f} s"
        progress.update(task, total=built.total, completed=built.done, detail=f"width {format_width(built.width)} {verb}")

    try:
        bundle = build(network, grid, chosen, out, grid=widths, precision=precision, pad_to=pad, jobs=jobs, on_engine=on_engine)
    finally:
        if progress.live.is_started:
            progress.stop()
    m = bundle.manifest
    size = sum(engine.file.bytes for engine in m.engines) / 1e6
    print(
        f"{bundle.path}: {len(m.widths)} widths, {len(bundle.exits)} different networks, in {len(m.engines)} engines "
        f"({sum(reused)} kept from before), "
        f"{m.backend} {m.backend_version}, {m.precision}, padded to {m.padding}, {size:.1f} MB"
    )


def main() -> None:
    """Entry point."""
    run(app)


if __name__ == "__main__":
    main()
