"""Where the engine keeps vector indexes: a cache that may be deleted at any moment.

    indexes/versions/<token>/    a version: its list of segments, the dead rows, what was measured
    indexes/segments/<name>/     a segment, used by one version or several
    indexes/databases/<name>     databases that have vector indexes; the keeper looks into these
    indexes/captured/<name>      queries of users on their way to the keeper, see captures.py
    indexes/memory.json          which indexes have their share of the memory, see vector_memory.py

A token is made at random for each version and stands in the version's row, so that a database that was restored never meets
files of another time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, unquote
from uuid import uuid4

from pythiadb.errors import CorruptedIndex
from pythiadb.index.container import MANIFEST, read_manifest, target_name
from pythiadb.index.version import IndexVersion, open_version


class IndexFiles:
    """The folders below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made_here: set[str] = set()  # segments begun by this process, while anything is under way

    @property
    def memory(self) -> Path:
        return self._root / "memory.json"

    @property
    def versions(self) -> Path:
        return self._made("versions")

    @property
    def segments(self) -> Path:
        return self._made("segments")

    @property
    def captured(self) -> Path:
        return self._root / "captured"

    def _made(self, name: str) -> Path:
        folder = self._root / name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def new_segment(self) -> Path:
        """Return where a segment may be made."""
        name = uuid4().hex
        self._made_here.add(name)
        return self.segments / name

    def has_version(self, token: str) -> bool:
        """Tell whether a version's files were here when last looked at."""
        return (self._root / "versions" / token / MANIFEST).exists()

    def open(self, token: str, others: Sequence[IndexVersion] = ()) -> IndexVersion:
        """Open a version; what is not shared with one of `others` is read and checked. Raises CorruptedIndex."""
        return open_version(
            self._root / "versions" / token, self._root / "segments", verify=True, others=others
        )

    def remove_version(self, token: str) -> None:
        """Delete a version that cannot be used."""
        shutil.rmtree(self._root / "versions" / token, ignore_errors=True)

    def watch(self, dbname: str) -> None:
        """Have the keeper look into a database."""
        (self._made("databases") / quote(dbname, safe="")).touch()

    def unwatch(self, dbname: str) -> None:
        """Say that a database has no vector indexes."""
        (self._root / "databases" / quote(dbname, safe="")).unlink(missing_ok=True)

    def watched(self) -> set[str]:
        """Return the databases to look into."""
        try:
            return {unquote(path.name) for path in (self._root / "databases").iterdir()}
        except FileNotFoundError:
            return set()

    def clean(self, tokens: set[str], retain_seconds: float, *, working: bool = False) -> None:
        """Delete what nobody needs. For the only process that writes here; `working`: some of its segments are not in a version yet.

        Versions among `tokens` are needed; others stay for so long after they were. Segments that no version holds, and drafts,
        are what a process that died has left.
        """
        if not working:
            self._made_here.clear()
        now = time.time()
        used: set[str] = set()
        for folder in self.versions.iterdir():
            if folder.name in tokens:
                _touch(folder, now)
            elif folder.name.startswith(".") or not _was_needed_lately(folder, now, retain_seconds):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            used |= _segments_of(folder)
        for folder in self.segments.iterdir():
            name = target_name(folder.name)
            if name not in used and name not in self._made_here:
                shutil.rmtree(folder, ignore_errors=True)


def _touch(folder: Path, now: float) -> None:
    """Note that a version is needed."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(folder, (now, now))


def _was_needed_lately(folder: Path, now: float, seconds: float) -> bool:
    """Tell whether a version was needed so short a time ago. A time to come says that the clock was set: nothing is known."""
    with contextlib.suppress(FileNotFoundError):
        return 0 <= now - folder.stat().st_mtime < seconds
    return False


def _segments_of(version: Path) -> set[str]:
    with contextlib.suppress(CorruptedIndex, KeyError):
        return {segment["name"] for segment in read_manifest(version, verify=False)["segments"]}
    return set()
