"""Which database a command is about: `--data DIRECTORY` or `--dsn URL`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

import pythiadb

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Target:
    """A database directory or a server's URL; exactly one of them."""

    data: Path | None
    dsn: str | None

    @property
    def database(self) -> str:
        return str(self.data) if self.data is not None else str(self.dsn)

    def connect(self, **options: Any) -> pythiadb.Connection:
        """Connect; a directory that holds no database is refused, only `start` makes one."""
        if self.data is not None and not (self.data / "pgdata").exists():
            raise click.UsageError(
                f'there is no database in "{self.data}". Run: pythia start --data {self.data}'
            )
        return pythiadb.connect(self.database, **options)


def target_options(command: F) -> F:
    """Add --data and --dsn to a command; they arrive as the argument `target`."""

    def callback(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        ctx.meta[f"pythia.{parameter.name}"] = value
        return value

    command = click.option(
        "--dsn",
        envvar="PYTHIA_DSN",
        metavar="URL",
        expose_value=False,
        callback=callback,
        help="A prepared server, postgresql://…",
    )(command)
    return click.option(
        "--data", envvar="PYTHIA_DATA", metavar="DIRECTORY", type=click.Path(path_type=Path), expose_value=False,
        callback=callback, help="An embedded database.",
    )(command)  # fmt: skip


def current_target() -> Target:
    """Return what the options of the running command name. Raises click.UsageError unless it is one."""
    meta = click.get_current_context().meta
    data, dsn = meta.get("pythia.data"), meta.get("pythia.dsn")
    if (data is None) == (dsn is None):
        raise click.UsageError("Give either --data DIRECTORY or --dsn URL.")
    return Target(data, dsn)


def data_directory() -> Path:
    """Return --data, for commands about embedded databases only."""
    target = current_target()
    if target.data is None:
        raise click.UsageError("This command is about an embedded database: give --data DIRECTORY.")
    return target.data
