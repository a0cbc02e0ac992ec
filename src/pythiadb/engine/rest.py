"""When a job of a vector index that has failed is tried again."""

from __future__ import annotations

import time

from pythiadb.postgres.index_store import StoredIndex

REST_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)  # after the first failure in a row, the second, …; the last again


class Rest:
    """The failures of one index's jobs of a kind since one went well."""

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0  # on the monotonic clock
        self._of_machine = False
        self._noted = False

    def begin(self, error: Exception, *, noted: bool) -> None:
        """Rest after another failure; `noted`: it stands in the index's row, for whoever waits."""
        self._until = time.monotonic() + REST_SECONDS[min(self._failures, len(REST_SECONDS) - 1)]
        self._failures += 1
        self._of_machine = isinstance(error, OSError | MemoryError)
        self._noted = noted

    def is_over(self, index: StoredIndex) -> bool:
        """Tell whether it is time. Who asks for a build after the failure was told need not wait."""
        return time.monotonic() >= self._until or (self._noted and index.status == "BUILDING")

    def is_for(self, index: StoredIndex) -> bool:
        """Tell whether a build that failed is worth another one: the machine was at fault, not the rows."""
        return self._of_machine and index.status == "FAILED"
