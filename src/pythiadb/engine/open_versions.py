"""The versions of vector indexes that a process has open."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from pythiadb.engine.index_files import IndexFiles
from pythiadb.engine.vector_memory import Decisions, read_decisions
from pythiadb.errors import CorruptedIndex, OutOfMemory
from pythiadb.index.version import IndexVersion


class OpenVersions:
    """At most `most` open versions, the least recently used closed first; versions of one index share their segments.

    `budget`: bytes under which the keeper decides what may be opened, see vector_memory.py.
    """

    def __init__(self, files: IndexFiles, most: int, budget: int) -> None:
        self._files = files
        self._most = most
        self._budget = budget
        self._open: OrderedDict[str, IndexVersion] = OrderedDict()
        self._newest: dict[int, IndexVersion] = {}  # by index
        self._lock = threading.Lock()

    def newest(self, wanted: Sequence[tuple[int, str]]) -> IndexVersion | None:
        """Return the first of some versions ([number, token]) if it is open; cheap."""
        found = self._open.get(wanted[0][1])
        if found is not None:
            self._open.move_to_end(found.token)
        return found

    def get(self, wanted: Sequence[tuple[int, str]]) -> IndexVersion | None:
        """Return the first of some versions whose files are here and whole; blocks.

        None where the keeper has refused one, or has not decided yet.
        """
        decisions = self._decisions()
        if decisions is None or decisions.refusal(wanted) is not None:
            return None
        for _, token in wanted:
            try:
                return self.open(token)
            except CorruptedIndex:
                self._files.remove_version(token)  # the keeper makes a new one
            except FileNotFoundError:
                continue
        return None

    def refusal(self, wanted: Sequence[tuple[int, str]]) -> OutOfMemory | None:
        """Tell why some versions may not be opened, if it is for want of memory."""
        decisions = self._decisions()
        return None if decisions is None else decisions.refusal(wanted)

    def _decisions(self) -> Decisions | None:
        decisions = read_decisions(self._files.memory)
        return decisions if decisions is not None and decisions.budget == self._budget else None

    def open(self, token: str) -> IndexVersion:
        """Open a version, checking files that are not open yet; blocks. Raises CorruptedIndex, FileNotFoundError."""
        with self._lock:
            found = self._open.get(token)
            if found is None:
                if not self._files.has_version(token):
                    raise FileNotFoundError(token)
                found = self._files.open(token, list(self._newest.values()))
                self._open[token] = found
                self._newest[found.definition.index_id] = found
                while len(self._open) > self._most:
                    _, closed = self._open.popitem(last=False)
                    if self._newest.get(closed.definition.index_id) is closed:
                        del self._newest[closed.definition.index_id]
            return found

    def all(self) -> list[IndexVersion]:
        """Return the open versions."""
        return list(self._open.values())
