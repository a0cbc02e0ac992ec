"""What lies where in the directory of an embedded database.

shop/
  pgdata/      the PostgreSQL data directory; a base backup copies this and nothing else
  engine/      the engine's cache and status: may be deleted at any moment while nothing runs
  log/         postgresql.log, engine.log
  run/         unix sockets (mode 0700); elsewhere when the path is too long for a socket
  lock         held alone while the server is started or stopped
  users        held together by every process that uses the database
  keep-running exists when the server stays after its last user left
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pythiadb.errors import ClusterError
from pythiadb.postgres.account import Account

PORT = 5432  # names the socket file only: no TCP port is opened
SOCKET_PATH_BYTES = 107  # sockaddr_un.sun_path, less the closing zero
ENGINE_FOLDER = "pythia"  # the engine listens in this folder below PostgreSQL's socket folder


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one embedded database."""

    root: Path

    @property
    def pgdata(self) -> Path:
        return self.root / "pgdata"

    @property
    def engine(self) -> Path:
        return self.root / "engine"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def server_log(self) -> Path:
        return self.log / "postgresql.log"

    @property
    def engine_log(self) -> Path:
        return self.log / "engine.log"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def users(self) -> Path:
        return self.root / "users"

    @property
    def keep_running(self) -> Path:
        return self.root / "keep-running"

    @property
    def run(self) -> Path:
        """The folder of the sockets: `run/`, or a private folder of the temporary directory when that is too long."""
        longest = self.root / "run" / ENGINE_FOLDER / f".s.PGSQL.{PORT}"
        if len(os.fsencode(longest)) <= SOCKET_PATH_BYTES:
            return self.root / "run"
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"pythia-{digest}"

    @property
    def engine_run(self) -> Path:
        return self.run / ENGINE_FOLDER

    def create(self, account: Account) -> None:
        """Make the folders that are missing, private to `account`. Raises ClusterError when that is not allowed."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for folder in (self.pgdata, self.engine, self.log, self.run, self.engine_run):
                _private_folder(folder, account)
        except PermissionError as error:
            raise ClusterError(
                f'no permission to create the database directory "{self.root}"',
                detail=f"{error.strerror}: {error.filename}",
                hint="Choose a directory that you may write to.",
            ) from error
        except (FileExistsError, NotADirectoryError) as error:
            raise ClusterError(f'"{error.filename}" is not a directory') from error
        self._check_reachable(account)

    def _check_reachable(self, account: Account) -> None:
        """Raise ClusterError if the server's account cannot get to the directory (root's case only)."""
        if account.is_current:
            return
        for folder in [self.root, *self.root.parents]:
            info = folder.stat()
            if info.st_uid != account.uid and not info.st_mode & stat.S_IXOTH:
                raise ClusterError(
                    f'the database directory "{self.root}" cannot be reached by the system user "{account.name}"',
                    detail=f'PostgreSQL does not run as root, and "{folder}" is closed to other users.',
                    hint="Choose another directory, or run as an ordinary user.",
                )


def _private_folder(folder: Path, account: Account) -> None:
    """Make `folder` with mode 0700, owned by `account`; refuse one that belongs to somebody else."""
    try:
        folder.mkdir(mode=0o700)
        account.own(folder)
    except FileExistsError:
        info = folder.lstat()
        if not stat.S_ISDIR(info.st_mode):
            raise
        if info.st_uid not in (account.uid, os.geteuid()):
            raise ClusterError(
                f'"{folder}" belongs to another user',
                hint=f"Use the database as the user with id {info.st_uid}, or choose another directory.",
            ) from None
        if info.st_uid != account.uid:
            account.own(folder)
