"""How far the build of a vector index is, written where pythia.vector_index_status shows it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

import psycopg

from pythiadb.postgres.index_snapshot import Batch
from pythiadb.postgres.index_store import IndexStore, StoredIndex

PROGRESS_SECONDS = 0.5


class Dropped(Exception):
    """The index of a build is there no more."""


class BuildProgress:
    """Writes a build's progress to the database, not too often. Raises Dropped, which ends a build that nobody wants any more."""

    def __init__(self, store: IndexStore, index: StoredIndex) -> None:
        self._store = store
        self._index = index
        self._written = 0.0

    def __call__(self, stage: str, share: float) -> None:
        """Note that a share of a stage, 0 to 1, is done."""
        now = time.monotonic()
        if now - self._written > PROGRESS_SECONDS:
            self._written = now
            is_there = True
            with suppress(psycopg.Error):  # the build matters, not its picture
                is_there = self._store.set_progress(self._index, stage, share)
            if not is_there:
                raise Dropped


def counted(batches: Iterable[Batch], rows: int, progress: BuildProgress) -> Iterator[Batch]:
    """Yield batches, and tell how many of the rows have been read."""
    read = 0
    for batch in batches:
        progress("loading", min(read / max(rows, 1), 1.0))
        read += len(batch)
        yield batch
