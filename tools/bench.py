#!/usr/bin/env python3
"""Show speed and memory: each bench measures, prints, and ends with one line of JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Annotated

from engines.errors import AwnError
from engines.files import write_atomically
from sdk.device import describe_device
from tools.benches.measure import Bench, Figure
from tools.cli import command_line, run, typer

# Name to module; a bench loads what it needs (torch, say) only when it runs.
BENCHES = {
    "build": "tools.benches.build",
    "curve": "tools.benches.curve",
    "memory": "tools.benches.memory",
    "overhead": "tools.benches.overhead",
    "padding": "tools.benches.padding",
    "switch": "tools.benches.switch",
    "train-step": "tools.benches.train_step",
}
RESULTS = Path(__file__).parent / "bench_results"

app = command_line("Show speed and memory.")


@app.command(epilog="Example: python tools/bench.py overhead --save")
def bench(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(BENCHES)}.")],
    save: Annotated[bool, typer.Option(help=f"Write the figures as CSV into {RESULTS.parent.name}/{RESULTS.name}/.")] = False,
) -> None:
    """Run a bench. The last line of its output is one JSON object with the figures, their limits and whether they hold.

    Run it on a quiet machine; runs of what is compared are interleaved in one process.
    """
    if name not in BENCHES:
        raise AwnError(f"no bench is named {name!r}; there are: {', '.join(BENCHES)}")
    module: Bench = import_module(BENCHES[name])
    figures = module.run()
    for figure in figures:
        limit = "" if figure.limit is None else f"   limit {figure.limit:g}   {'holds' if figure.holds else 'DOES NOT HOLD'}"
        print(f"{figure.name:60} {figure.value:10.4g}{limit}")
    if save:
        _save(name, module.SUBJECT, figures)
    print(json.dumps({"bench": name, "figures": [figure._asdict() for figure in figures]}))


def _save(name: str, subject: str, figures: list[Figure]) -> None:
    device = describe_device()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("bench", "figure", "value", "limit", "holds", "subject", "processor", "architecture", "cores", "date"))
    date = datetime.now(timezone.utc).date().isoformat()
    for figure in figures:
        writer.writerow((name, *figure, subject, *device.values(), date))
    parts = "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-") for part in (name, subject, device["processor"]))
    path = RESULTS / f"{parts}.csv"
    write_atomically(path, text.getvalue().encode())
    print(f"written: {path}")


def main() -> None:
    """Entry point."""
    run(app)


if __name__ == "__main__":
    main()
