"""How the command line shows things: tables and bars for people, JSON for programs, errors as psql words them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pythiadb.errors import PythiaError
from pythiadb.vectors.codec import SparseVector

console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False)
UNFOLDED = 1_000_000  # characters a line: more than any table has
VECTOR_PREVIEW = 4  # numbers of a vector that a table shows


def cell(value: Any, *, vector_preview: int = VECTOR_PREVIEW) -> str:
    """Return one value as text; of a long vector only the beginning."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "t", False: "f"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, np.ndarray):
        shown = ", ".join(f"{x:.4g}" for x in value[:vector_preview])
        return f"[{shown}, … {len(value)} dimensions]" if len(value) > vector_preview else f"[{shown}]"
    if isinstance(value, SparseVector):
        return f"{len(value.indices)} of {value.dimensions} dimensions"
    if isinstance(value, dict | list):
        return orjson.dumps(value, default=str).decode()
    return str(value)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """Print rows as a table, numbers to the right; outside of a terminal as wide as it needs, as psql does, unless
    COLUMNS says how wide.
    """
    rows = list(rows)
    table = Table(title=title, title_justify="left", header_style="bold")
    for number, name in enumerate(columns):
        numeric = bool(rows) and all(_is_number(r[number]) or r[number] is None for r in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    if console.is_terminal or "COLUMNS" in os.environ:
        console.print(table)
    else:
        Console(file=console.file, width=UNFOLDED, highlight=False).print(table)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def print_json(value: Any) -> None:
    """Print a value as indented JSON; vectors as arrays."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    sys.stdout.write(orjson.dumps(value, default=str, option=options).decode() + "\n")


def print_error(error: psycopg.Error) -> None:
    """Print an error with its detail and hint, as psql does."""
    if isinstance(error, PythiaError):
        message, detail, hint = error.message, error.detail, error.hint
    else:
        diag = error.diag
        message, detail, hint = (
            diag.message_primary or str(error).strip(),
            diag.message_detail,
            diag.message_hint,
        )
    error_console.print(Text.assemble(("ERROR:  ", "bold red"), message), soft_wrap=True)
    for label, text in (("DETAIL", detail), ("HINT", hint)):
        if text:
            error_console.print(Text.assemble((f"{label}:  ", "bold"), text), soft_wrap=True)


def progress_bar() -> Progress:
    """Return a progress bar on standard error that disappears when done; none where no one looks."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=error_console,
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def size(bytes_: float) -> str:
    """Return a size as people read it."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(bytes_) < 1024:
            return f"{bytes_:.0f} {unit}" if unit == "bytes" else f"{bytes_:.1f} {unit}"
        bytes_ /= 1024
    return f"{bytes_:.1f} TB"
