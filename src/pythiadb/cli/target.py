"""Which database a command is about: `--data DIRECTORY` or `--dsn URL`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

import pythiadb
from pythiadb.postgres.session import is_connection_string

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Target:
    """A database directory or a server's connection string; exactly one of them."""

    data: Path | None
    dsn: str | None

    @property
    def database(self) -> Path | str:
        return self.data if self.data is not None else str(self.dsn)

    def connect(self, **options: Any) -> pythiadb.Connection:
        """Connect; a directory that holds no database is refused, only `start` makes one."""
        if self.data is not None and not (self.data / "pgdata").exists():
            raise click.UsageError(
                f'there is no database in "{self.data}". Run: pythia start --data {self.data}'
            )
        return pythiadb.connect(self.database, **options)


def _remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    ctx.meta[f"pythia.{parameter.name}"] = value
    return value


def data_option(command: F) -> F:
    """Add --data to a command about embedded databases; `data_directory` gives its value."""
    return click.option(
        "--data", envvar="PYTHIA_DATA", metavar="DIRECTORY", type=click.Path(path_type=Path), expose_value=False,
        callback=_remember, help="An embedded database.",
    )(command)  # fmt: skip


def target_options(command: F) -> F:
    """Add --data and --dsn to a command; `current_target` gives their values."""
    command = click.option(
        "--dsn", envvar="PYTHIA_DSN", metavar="URL", expose_value=False, callback=_remember,
        help="A prepared server, postgresql://…",
    )(command)  # fmt: skip
    return data_option(command)


def current_target() -> Target:
    """Return what the options of the running command name. Raises click.UsageError unless it is one."""
    meta = click.get_current_context().meta
    data, dsn = meta.get("pythia.data"), meta.get("pythia.dsn")
    if (data is None) == (dsn is None):
        raise click.UsageError("Give either --data DIRECTORY or --dsn URL.")
    if dsn is not None and not is_connection_string(dsn):
        raise click.UsageError(
            f'--dsn takes a URL, postgresql://…, not "{dsn}". A directory goes with --data.'
        )
    return Target(data, dsn)


def data_directory() -> Path:
    """Return the value of --data. Raises click.UsageError when it is missing."""
    data: Path | None = click.get_current_context().meta.get("pythia.data")
    if data is None:
        raise click.UsageError("Give --data DIRECTORY.")
    return data
