"""How the demonstration looks: steps, statements, tables, progress."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from rich import box
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from pythiadb.cli.progress import Report, embedding_bar

LINE_SECONDS = 3  # between two lines of progress where there is no terminal to draw a bar on
WHOLE = ("name", "area", "items", "distance")  # columns that are not cut

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


@contextmanager
def step(title: str, *, spinner: bool = True) -> Iterator[list[str]]:
    """Print one line when a step is done: its title, the facts that it has found out, how long it took."""
    started = time.perf_counter()
    facts: list[str] = []
    with console.status(title) if spinner else nullcontext():
        yield facts
    console.print(f"{': '.join([title, *facts])} [dim]({time.perf_counter() - started:.1f} s)[/]")


def show_sql(statement: str) -> None:
    """Print a statement in colours."""
    text = statement.strip() + ";"
    console.print(Syntax(text, "sql", theme="ansi_dark", background_color="default", word_wrap=True))


def show_table(columns: list[str], rows: list[tuple[object, ...]]) -> None:
    """Print rows as a table, one line each: documentation is cut where the line ends."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=name in WHOLE)
    for row in rows:
        cells = (f"{value:.3f}" if isinstance(value, float) else str(value) for value in row)
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells))
    console.print(table)


def progress() -> AbstractContextManager[Report]:
    """Show how many texts are embedded: a bar on a terminal, else a line every few seconds."""
    return embedding_bar() if sys.stderr.isatty() else nullcontext(_lines())


def _lines() -> Report:
    last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            print(f"embedding: {done:,} of {total:,}", file=sys.stderr, flush=True)

    return report


def shown(path: Path) -> str:
    """Return a path as one would type it here."""
    here = Path.cwd()
    return os.fspath(path.relative_to(here) if path.is_relative_to(here) else path)
