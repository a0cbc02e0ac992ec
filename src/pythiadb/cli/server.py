"""`pythia start | stop | status | install | upgrade | uninstall`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import psycopg

from pythiadb.cli.display import console, print_json, print_table
from pythiadb.cli.target import data_directory, data_option
from pythiadb.postgres import cluster
from pythiadb.postgres import install as schema
from pythiadb.postgres.server import Server


@click.command()
@data_option
def start() -> None:
    """Create and start an embedded database; it stays up until `pythia stop`."""
    server = cluster.join(data_directory(), keep_running=True)
    console.print(f"running: {server.layout.root}")
    console.print(f'connect: psql "{server.conninfo()}"', soft_wrap=True)
    cluster.leave(server)


@click.command()
@data_option
def stop() -> None:
    """Stop an embedded database and its engine, ending sessions that are left."""
    console.print("stopped" if cluster.stop(data_directory()) else "was not running")


def facts(root: Path) -> dict[str, Any]:
    """Return what is known of an embedded database without starting it."""
    server = Server.at(root.expanduser().resolve())
    found: dict[str, Any] = {
        "directory": str(server.layout.root),
        "exists": server.exists(),
        "server_pid": server.pid() if server.exists() else None,
        "engine_pid": cluster.engine_pid(server.layout) if server.layout.engine_run.exists() else None,
        "keep_running": server.layout.keep_running.exists(),
        "conninfo": server.conninfo(),
    }
    if found["server_pid"]:
        with psycopg.connect(server.conninfo(), autocommit=True) as connection:
            present = schema.installed(connection)
            found["schema_version"] = present.version if present else None
            row = connection.execute(
                "SELECT current_setting('server_version'), count(*) FROM pythia.model"
            ).fetchone()
            found["server_version"], found["models"] = row or (None, None)
    return found


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@data_option
def status(as_json: bool) -> None:
    """Show whether an embedded database and its engine run. Exit status 3 when they do not."""
    found = facts(data_directory())
    if as_json:
        print_json(found)
    else:
        print_table(["", ""], found.items())
    if not (found["server_pid"] and found["engine_pid"]):
        click.get_current_context().exit(3)


@click.command()
@click.argument("url")
def install(url: str) -> None:
    """Install the database objects into a server's database; needs a superuser once."""
    _install(url)


@click.command()
@click.argument("url")
def upgrade(url: str) -> None:
    """Bring the database objects of a server's database up to date."""
    _install(url)


def _install(url: str) -> None:
    done = schema.ensure(url)
    version = schema.latest_version()
    console.print(
        f"schema version {version} installed" if done else f"schema version {version} was there already"
    )
    console.print(f'Beside the server, as its user, run: pythia engine run --dsn "{url}"', soft_wrap=True)


@click.command()
@click.argument("url")
@click.option("--cascade", is_flag=True, help="Also drop views and columns that use it.")
def uninstall(url: str, cascade: bool) -> None:
    """Remove the database objects and all models; vector columns and the extensions stay."""
    with psycopg.connect(url, autocommit=True) as connection:
        schema.uninstall(connection, cascade=cascade)
    console.print("uninstalled")
