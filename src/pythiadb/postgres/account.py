"""The operating system account that owns the embedded server and runs the engine's workers.

PostgreSQL refuses to run as root. When the caller is root, a system account of our own runs the server; otherwise the
caller's own account does.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pythiadb.errors import ClusterError

SERVICE_ACCOUNT = "pythia"


@dataclass(frozen=True, slots=True)
class Account:
    """An operating system user: name, user id, group id."""

    name: str
    uid: int
    gid: int

    @property
    def is_current(self) -> bool:
        """True when this process already runs as the account."""
        return os.geteuid() == self.uid

    @property
    def child_identity(self) -> tuple[int | None, int | None, list[int] | None]:
        """User, group and extra groups for `subprocess`, to run a child as this account."""
        return (None, None, None) if self.is_current else (self.uid, self.gid, [])

    def own(self, *paths: Path) -> None:
        """Give the paths to this account; does nothing when it is the current one."""
        if not self.is_current:
            for path in paths:
                os.chown(path, self.uid, self.gid)

    def drop_privileges(self) -> None:
        """Become this account for good; everything that must be imported has to be imported before.

        The interpreter may lie in a folder that only root can read.
        """
        if not self.is_current:
            os.setgroups([])
            os.setgid(self.gid)
            os.setuid(self.uid)


def _from_passwd(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _create_service_account() -> None:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        raise ClusterError(
            "PostgreSQL cannot run as root and no service account can be created",
            detail="The program useradd was not found.",
            hint=f"Create a system user named {SERVICE_ACCOUNT}, or run as an ordinary user.",
        )
    subprocess.run(
        [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SERVICE_ACCOUNT],
        check=False,  # another process may have created it a moment ago: the look-up below decides
        capture_output=True,
    )


def server_account() -> Account:
    """Return the account that runs the server: the caller's, or the service account (created if need be) for root.

    Raises ClusterError when root cannot create it.
    """
    if os.geteuid() != 0:
        return _from_passwd(pwd.getpwuid(os.geteuid()))
    try:
        return _from_passwd(pwd.getpwnam(SERVICE_ACCOUNT))
    except KeyError:
        _create_service_account()
    try:
        return _from_passwd(pwd.getpwnam(SERVICE_ACCOUNT))
    except KeyError:
        raise ClusterError(f'could not create the system user "{SERVICE_ACCOUNT}"') from None


def owner_of(path: Path) -> Account:
    """Return the account that owns an existing path (the server's data directory tells who runs the server)."""
    return _from_passwd(pwd.getpwuid(path.stat().st_uid))
