"""The keeper's part of captured queries: it writes into the databases what the workers hand on, and prunes it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg

from pythiadb.engine.captures import Use, read, remove_unfinished, waiting
from pythiadb.engine.settings import Settings
from pythiadb.postgres.index_store import IndexStore
from pythiadb.postgres.query_store import QueryStore

PRUNE_SECONDS = 3600.0  # between looks for queries that have become too old

log = logging.getLogger("pythia.engine")


class Recorder:
    """Reads the files in `folder`. What cannot be written is given up: it is a sample."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder = folder
        self._settings = settings
        self._new: set[tuple[str, int]] = set()
        self._pruned = -PRUNE_SECONDS

    def record(self, stores: Mapping[str, IndexStore]) -> None:
        """Write what the workers have handed on, by the names of their databases."""
        for path in waiting(self._folder):
            try:
                uses = read(path)
            except ValueError as error:
                log.warning("captured queries are lost: %s", error)
                uses = []
            for use in uses:
                if use.dbname in stores:
                    self._write(stores[use.dbname], use)
            path.unlink(missing_ok=True)
        if time.monotonic() - self._pruned > PRUNE_SECONDS and stores:
            self._pruned = time.monotonic()
            remove_unfinished(self._folder)
            for store in stores.values():
                self._attempt(store, lambda queries: queries.prune())

    def take_news(self, dbname: str, index_id: int) -> bool:
        """Tell whether an index has got captured queries since this was last asked."""
        key = (dbname, index_id)
        is_new = key in self._new
        self._new.discard(key)
        return is_new

    def _write(self, store: IndexStore, use: Use) -> None:
        written = self._attempt(
            store, lambda queries: queries.record(use.index_id, use.searches, use.queries)
        )
        if written and use.queries:
            self._new.add((use.dbname, use.index_id))

    def _attempt(self, store: IndexStore, action: Callable[[QueryStore], None]) -> bool:
        try:
            action(query_store(store, self._settings))
        except psycopg.OperationalError:  # the server restarts, or the database is gone
            store.close()
            return False
        except psycopg.Error as error:
            log.warning("captured queries are lost: %s", error)
            return False
        return True


def query_store(store: IndexStore, settings: Settings) -> QueryStore:
    """Return the users' queries in a database, as they are to be kept."""
    return QueryStore(store.connection, settings.index_captured_queries, settings.index_captured_days)
