"""`pythia sql`: statements from the command line, a file, a pipe or the keyboard."""

from __future__ import annotations

import contextlib
import functools
import sys
from pathlib import Path
from typing import Any

import click
import psycopg

import pythiadb
from pythiadb.cli.display import console, error_console, print_error, print_json, print_table
from pythiadb.cli.progress import embedding_bar, execute_watched
from pythiadb.cli.target import Target, current_target, target_options
from pythiadb.sql import split_statements

HISTORY = Path("~/.pythia_history").expanduser()


@click.command()
@click.option("-c", "--command", "commands", multiple=True, help="Run this statement; may be repeated.")
@click.option("-f", "--file", "file", type=click.File(), help="Run the statements of a file.")
@click.option("--dialect", type=click.Choice(["postgres", "oracle"]), default="postgres", show_default=True)
@click.option(
    "--translate",
    "only_translate",
    is_flag=True,
    help="Print the PostgreSQL statements instead of running them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print results as JSON.")
@target_options
def sql(commands: tuple[str, ...], file: Any, dialect: str, only_translate: bool, as_json: bool) -> None:
    """Run AI SQL. Without -c or -f, read statements from standard input; each ends with a semicolon."""
    target = current_target()
    with target.connect(dialect=dialect, autocommit=True) as connection:
        shell = Shell(connection, target, as_json=as_json, only_translate=only_translate)
        if commands or file is not None:
            text = ";\n".join(commands) if commands else file.read()
            failed = not shell.run_script(text)
        elif sys.stdin.isatty():
            failed = False
            shell.interact()
        else:
            failed = not shell.run_script(sys.stdin.read())
    if failed:
        click.get_current_context().exit(1)


class Shell:
    """Runs statements on one connection and shows what they give."""

    def __init__(
        self, connection: pythiadb.Connection, target: Target, *, as_json: bool, only_translate: bool
    ) -> None:
        self._connection = connection
        self._target = target
        self._as_json = as_json
        self._only_translate = only_translate
        connection.add_notice_handler(self._show_notice)

    def run_script(self, text: str) -> bool:
        """Run all statements of a text; stop at the first error and return False."""
        for statement in split_statements(text, dialect=self._connection.dialect):
            try:
                self.run(statement)
            except psycopg.Error as error:
                print_error(error)
                return False
        return True

    def run(self, statement: str) -> None:
        """Run one statement and show its result."""
        if self._only_translate:
            translation = self._connection.translate(statement)
            console.print(";\n".join(translation.statements) + ";", markup=False, soft_wrap=True)
            for note in translation.batched:
                console.print(f"-- {note}", style="dim", soft_wrap=True)
            return
        watcher = functools.partial(self._target.connect, autocommit=True)
        cursor = execute_watched(self._connection, statement, watcher=watcher, report=embedding_bar())
        if cursor.description is None:
            if not self._as_json:
                console.print(cursor.statusmessage or "")
            return
        columns = [column.name for column in cursor.description]
        rows = cursor.fetchall()
        if self._as_json:
            print_json([dict(zip(columns, row, strict=True)) for row in rows])
        else:
            print_table(columns, rows)
            console.print(f"({len(rows)} row{'' if len(rows) == 1 else 's'})")

    def _show_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        """Show what the server says beside results: lines of DBMS_OUTPUT as they are, warnings as warnings."""
        text, severity = notice.message_primary or "", notice.severity_nonlocalized
        if severity == "NOTICE":
            (error_console if self._as_json else console).print(text, markup=False, soft_wrap=True)
        else:
            error_console.print(f"{severity}:  {text}", markup=False, soft_wrap=True)

    def interact(self) -> None:
        """Read statements from the keyboard until end of file or \\q."""
        readline = _history()
        console.print(
            f"pythia {pythiadb.__version__}, {self._connection.dialect} dialect. End statements with ; — \\q leaves."
        )
        buffer = ""
        while True:
            try:
                line = input("pythia=> " if not buffer else "pythia-> ")
            except KeyboardInterrupt:
                buffer = ""
                console.print()
                continue
            except EOFError:
                break
            if not buffer and line.strip() in ("\\q", "quit", "exit"):
                break
            buffer = f"{buffer}\n{line}" if buffer else line
            if line.rstrip().endswith((";", "/")):
                self.run_script(buffer.rstrip().rstrip("/"))
                buffer = ""
        if readline is not None:
            with contextlib.suppress(OSError):
                readline.write_history_file(HISTORY)


def _history() -> Any:
    """Turn on line editing where Python has it."""
    try:
        import readline
    except ImportError:
        return None
    with contextlib.suppress(OSError):
        readline.read_history_file(HISTORY)
    return readline
