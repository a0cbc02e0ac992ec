"""`pythia engine run | status | restart`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pythiadb.cli.display import console, print_json, print_table, size
from pythiadb.cli.target import Target, current_target, data_directory, data_option, target_options
from pythiadb.engine.run import DEFAULT_FOLDER
from pythiadb.engine.run import run as serve
from pythiadb.engine.settings import load
from pythiadb.postgres import cluster
from pythiadb.postgres.server import Server


@click.group()
def engine() -> None:
    """The process beside the server that runs the models."""


@engine.command()
@click.option(
    "--set", "overrides", multiple=True, metavar="NAME=VALUE", help="An engine setting; see the reference."
)
@click.option(
    "--folder", type=click.Path(path_type=Path), default=DEFAULT_FOLDER, show_default=True,
    help="Cache, status and log of the engine of a prepared server.",
)  # fmt: skip
@target_options
def run(overrides: tuple[str, ...], folder: Path) -> None:
    """Run the engine in the foreground until SIGTERM. Embedded databases start theirs by themselves."""
    target = current_target()
    serve(target.data, target.dsn, folder, load(dict(pair.partition("=")[::2] for pair in overrides)))


@engine.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@target_options
def status(as_json: bool) -> None:
    """Show workers, open models, calls, latency and memory."""
    with current_target().connect(autocommit=True) as connection:
        row = connection.execute("SELECT pythia.engine_status(), current_setting('port')").fetchone()
        assert row is not None
        names = dict(connection.execute("SELECT package, relation::text FROM pythia.model").fetchall())
    report: dict[str, Any] = row[0]
    if as_json:
        print_json(report)
        return
    workers = report["workers"]
    print_table(
        ["workers", *(str(w["pid"]) for w in workers)],
        [[name, *map(show, workers)] for name, show in FACTS.items()],
    )
    print_table(
        ["worker", "model", "size", "weights", "loaded in", "calls", "rows"],
        [
            (str(w["pid"]), names.get(m["package"], m["package"][:12]), size(m["bytes"]),
             "shared" if m["mapped"] else "private", f"{m['load_seconds']} s", m["calls"], m["rows"])
            for w in workers for m in w["models"]
        ],
        title="open models",
    )  # fmt: skip


FACTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "up": lambda w: f"{time.time() - w['started']:.0f} s",
    "memory": lambda w: size(w["memory_bytes"]),
    "connections": lambda w: w["connections"],
    "calls": lambda w: w["calls"],
    "errors": lambda w: w["errors"],
    "rows": lambda w: w["rows"],
    "rows waiting": lambda w: w["queued_rows"],
    "runs": lambda w: w["runs"],
    "busy": lambda w: f"{w['busy_seconds']:.1f} s",
    "latency p50": lambda w: f"{w['p50_ms']:.2f} ms",
    "latency p99": lambda w: f"{w['p99_ms']:.2f} ms",
}  # what `pythia engine status` shows of a worker, a row each


@engine.command()
@data_option
def restart() -> None:
    """Stop and start the engine of an embedded database; sessions go on with the new one."""
    data = data_directory()
    server = Server.at(data.expanduser().resolve())
    with Target(data, None).connect(autocommit=True):
        cluster.stop_engine(server.layout)
        cluster.ensure_running(server)
        console.print(f"engine runs with pid {cluster.engine_pid(server.layout)}")
