"""How the demonstrations look: steps, statements, tables, curves, progress."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

import pythiadb
from pythiadb.cli.progress import Report, embedding_bar, execute_watched

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
    decimals = [_decimals(column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            f"{value:.{places}f}" if isinstance(value, float) else str(value)
            for value, places in zip(row, decimals, strict=True)
        )
        table.add_row(*map(_one_line, cells))
    console.print(table)


def show_pairs(titles: tuple[str, str], left: list[tuple[Any, ...]], right: list[tuple[Any, ...]]) -> None:
    """Print two lists of (source, candidate, distance) beside each other; both have the sources in the same order."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in ("", *titles):
        table.add_column(name)
        if name:
            table.add_column(no_wrap=True, width=len("0.000"))
    before = None
    for (source, one, near), (_, other, far) in zip(left, right, strict=True):
        if source != before is not None:
            table.add_section()
        cells = ("" if source == before else source, one, f"{near:.3f}", other, f"{far:.3f}")
        table.add_row(*map(_one_line, cells))
        before = source
    console.print(table)


def _one_line(text: str) -> Text:
    """Return text that is cut where its column ends."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def _decimals(values: Sequence[object]) -> int:
    """Return how many of three decimals the fractions of a column need: ratings none, distances all."""
    written = [f"{value:.3f}".rstrip("0") for value in values if isinstance(value, float)]
    return max((len(text.partition(".")[2]) for text in written), default=0)


def curve(values: Sequence[float], top: float) -> str:
    """Draw values from 0 to `top` as a line of bars."""
    bars = "▁▂▃▄▅▆▇█"
    return "".join(bars[min(len(bars) - 1, int(value / top * len(bars)))] for value in values)


def embed(title: str, db: pythiadb.Connection, directory: Path, statement: str) -> None:
    """Run a statement that embeds texts as one step, and show how far it is, which a second connection sees."""

    def second_connection() -> pythiadb.Connection:
        return pythiadb.connect(directory, autocommit=True)

    show_sql(statement)
    with step(title, spinner=False) as facts:
        cursor = execute_watched(db, statement, watcher=second_connection, report=_progress())
        facts.append(f"{cursor.rowcount:,} texts")


def _progress() -> AbstractContextManager[Report]:
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
