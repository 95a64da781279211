"""What every command line here shares: one line for a user's mistake, exit code 2, no traceback."""

from __future__ import annotations

import sys

try:
    import typer as typer
    from rich.console import Console as Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Table as Table
    from rich.text import Text as Text
except ModuleNotFoundError as missing:
    # An environment that only runs bundles is meant to be small; it gets a line, too.
    print(f'error: the tools need {missing.name}: pip install "any-width-networks[tools]"', file=sys.stderr)
    sys.exit(2)

from engines.errors import AwnError

# What is printed holds names from files: nothing in it is markup.
console = Console(stderr=True, highlight=False, markup=False)


# Packages that only some of the work needs.
_OPTIONAL = ("matplotlib", "onnxruntime", "safetensors", "torch", "torchvision")


def command_line(help_text: str) -> typer.Typer:
    """A typer application with this project's habits."""
    return typer.Typer(help=help_text, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def progress_bar(*, counted: bool = False) -> Progress:
    """A progress line on stderr with what is left; `counted` shows how many of how many instead of a share.

    Each task may carry a `detail`.
    """
    amount = MofNCompleteColumn() if counted else TextColumn("{task.percentage:3.0f} %")
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        amount,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        console=console,
    )


def run(app: typer.Typer) -> None:
    """Run an application as a program: errors of ours are one line on stderr and exit code 2, Ctrl-C is 130."""
    try:
        app()
    except AwnError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if error.name not in _OPTIONAL:
            raise
        print(
            f"error: this needs {error.name}: pip install {error.name}, or all that training needs with the extra [train]", file=sys.stderr
        )
        sys.exit(2)
    except OSError as error:
        # A full disk or a directory that is not ours to write: the user's to mend, and nothing is half-written.
        place = f" {error.filename}" if error.filename else ""
        print(f"error: {error.strerror or error}{place}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; what is done is kept, and the same command goes on from there", file=sys.stderr)
        sys.exit(130)
