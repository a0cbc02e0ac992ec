"""Starting an engine beside a server: an embedded one, or one that `pythia install` prepared."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from pythiadb.engine.settings import Settings
from pythiadb.engine.supervisor import EngineConfig, Supervisor
from pythiadb.errors import EngineUnavailable
from pythiadb.postgres.account import owner_of, server_account
from pythiadb.postgres.cluster import Guardian
from pythiadb.postgres.instance import Instance, find_instance
from pythiadb.postgres.layout import ENGINE_FOLDER, PORT
from pythiadb.postgres.server import Server

DEFAULT_FOLDER = Path("/var/lib/pythia")  # of the engine of a prepared server


def run(
    data: Path | None,
    dsn: str | None,
    folder: Path,
    settings: Settings,
    on_listening: Callable[[], None] | None = None,
) -> None:
    """Serve an embedded database (`data`) or a prepared server (`dsn`, with cache, status and log in `folder`) until the end.

    Raises EngineUnavailable when the instance is on another machine or has no unix socket.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s[%(process)d] %(levelname)s: %(message)s"
    )
    if data is not None:
        supervisor = _embedded(data.expanduser().resolve(), settings)
    else:
        supervisor = Supervisor(engine_config(find_instance(str(dsn)), str(dsn), folder, settings))
    supervisor.run(on_listening)


def _embedded(root: Path, settings: Settings) -> Supervisor:
    """Return the engine of the embedded database in `root`, which is its guardian too."""
    server = Server.at(root)
    layout = server.layout
    config = EngineConfig(
        run=layout.engine_run, folder=layout.engine, events=layout.log / "engine.jsonl", conninfo=server.conninfo(),
        port=PORT, account=server.account, settings=settings,
    )  # fmt: skip
    return Supervisor(config, Guardian(server))


def engine_config(instance: Instance, conninfo: str, folder: Path, settings: Settings) -> EngineConfig:
    """Return where the engine of a server lives: in the folder "pythia" beside the server's own socket."""
    server_socket = instance.socket_folder / f".s.PGSQL.{instance.port}"
    try:
        account = owner_of(server_socket)
    except FileNotFoundError:
        raise EngineUnavailable(
            f'the server\'s socket "{server_socket}" is not on this machine',
            hint="Run the engine on the machine, and in the container, of the PostgreSQL server.",
        ) from None
    if os.geteuid() not in (0, account.uid):
        raise EngineUnavailable(
            f'the engine must run as the server\'s user "{account.name}" or as root',
            detail=f"This process runs as {server_account().name}.",
        )
    run = instance.socket_folder / ENGINE_FOLDER
    for path in (run, folder):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        account.own(path)
    return EngineConfig(run, folder, folder / "engine.jsonl", conninfo, instance.port, account, settings)
