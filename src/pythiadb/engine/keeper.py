"""The keeper: the engine's process that builds vector indexes and keeps them near their tables.

It asks every database again and again what there is to do, so that the database is its only queue: a definition without a
version is built, a journal is taken into a new version, many segments become one, a table that was rewritten is read anew.
What it was doing when it died is done again by the next one; what it had not published does not exist.

Building takes long and has a thread of its own, and so has measuring accuracy; refreshing does not wait for them.

A job that fails is tried again, after a rest that grows: a disk may have space again. Meanwhile the index's row says why.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg

from pythiadb.engine.config import WorkerConfig
from pythiadb.engine.events import EventLog
from pythiadb.engine.index_files import IndexFiles
from pythiadb.engine.index_jobs import Finish, IndexJobs, Shared
from pythiadb.engine.open_versions import OpenVersions
from pythiadb.engine.recorder import Recorder
from pythiadb.engine.rest import Rest
from pythiadb.engine.settings import Settings
from pythiadb.engine.vector_memory import VectorMemory
from pythiadb.errors import CorruptedIndex, OutOfMemory
from pythiadb.postgres.index_store import IndexStore, StoredIndex, databases
from pythiadb.postgres.locks import FileLock

DISCOVERY_SECONDS = 60.0  # between looks into databases that nobody has named, for a moment each
CLEAN_SECONDS = 30.0  # between removals of files that no version needs any more
MEASURING_NICENESS = 10  # nobody waits for it
LOST_SECONDS = 1.0  # pause after the server could not be reached
PREDECESSOR_SECONDS = 0.05  # between looks whether the keeper of an engine that died is still at work

log = logging.getLogger("pythia.engine")


@dataclass(frozen=True, slots=True)
class LongJob:
    """A job that has been begun in the builder's thread."""

    name: str
    started: float
    future: Future[Finish]


class Keeper:
    """One process' work; `control` is the channel to the supervisor, whose end means to stop."""

    def __init__(self, config: WorkerConfig, number: int, control: socket.socket) -> None:
        self._control = control
        self._conninfo = config.conninfo
        self._settings = Settings(**config.settings)
        self._events = EventLog(Path(config.log), self._settings.log_bytes, worker=number)
        self._lock = FileLock(Path(config.folder) / "keeper.lock")
        self._files = IndexFiles(Path(config.folder) / "indexes")
        budget = self._settings.vector_memory_bytes
        self._memory = VectorMemory(self._files.memory, budget)
        versions = OpenVersions(self._files, self._settings.max_index_versions, budget)
        self._shared = Shared(self._files, versions, self._memory, self._settings)
        self._recorder = Recorder(self._files.captured, self._settings)
        self._stores: dict[str, IndexStore] = {}
        self._discovered = -DISCOVERY_SECONDS
        self._knows_all = False  # whether every database has told whether it has indexes
        self._cleaned = -CLEAN_SECONDS
        self._needs_space = False  # something could not be written
        self._builder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="build")
        self._measurer = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="measure", initializer=_yield_to_others
        )
        self._long: dict[tuple[str, int], LongJob] = {}
        self._rests: dict[tuple[str, int, str], Rest] = {}

    def run(self) -> None:
        """Work until the supervisor has gone or says stop."""
        self._events.write("keeper.start")
        pause = PREDECESSOR_SECONDS
        while not self._told_to_stop(pause):
            if not self._lock.try_exclusive():  # two keepers would prune each other's journals
                continue
            pause = self._settings.index_poll_ms / 1000
            try:
                self._look_around()
            except psycopg.OperationalError:  # the server restarts, or is not up yet
                pause = LOST_SECONDS
            except OSError as error:  # a full disk, a cache that is being deleted
                log.error("vector indexes cannot be looked after: %s", error)
                pause = LOST_SECONDS
        self._events.write("keeper.stop")

    def _told_to_stop(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._control], [], [], seconds)
        return bool(ready) and not self._control.recv(4096)

    def _look_around(self) -> None:
        now = time.monotonic()
        if now - self._discovered > DISCOVERY_SECONDS:
            self._discovered = now
            self._discover()
        for dbname in sorted(self._files.watched() - set(self._stores)):
            self._stores[dbname] = IndexStore(self._conninfo, dbname)
        for dbname, store in list(self._stores.items()):
            try:
                self._look_into(dbname, store)
            except psycopg.OperationalError:  # it may have been dropped; the others go on
                store.close()
                self._discovered = now - DISCOVERY_SECONDS + LOST_SECONDS
        if self._needs_space or now - self._cleaned > CLEAN_SECONDS:
            self._cleaned = now
            self._clean()
        self._memory.write()
        self._recorder.record(self._stores)

    def _discover(self) -> None:
        """Look into every database: an engine whose cache was deleted does not know which have indexes."""
        names = set(databases(self._conninfo))
        self._knows_all = True
        for name in (set(self._stores) | self._files.watched()) - names:
            self._forget(name)
        self._memory.retain_databases(names)
        for name in names - set(self._stores):
            with contextlib.closing(IndexStore(self._conninfo, name)) as store:
                try:
                    if store.indexes():
                        self._files.watch(name)
                except psycopg.OperationalError:
                    self._knows_all = False
                except psycopg.Error:  # it is not one of ours
                    continue

    def _look_into(self, dbname: str, store: IndexStore) -> None:
        try:
            indexes = sorted(store.indexes(), key=lambda index: index.index_id)
            self._memory.retain(dbname, {index.index_id for index in indexes})
            self._forget_jobs(dbname, {index.index_id for index in indexes})
            for index in indexes:
                self._look_after(dbname, store, index)
        except (psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName):
            indexes = []  # no pythia schema any more
        except psycopg.errors.InsufficientPrivilege as error:
            log.error("vector indexes of database %s: %s", dbname, error)
            indexes = []
        except psycopg.errors.UndefinedTable:
            return  # an index was dropped at this moment
        if not indexes:  # a connection would be in the way of DROP DATABASE
            self._forget(dbname)

    def _forget(self, dbname: str) -> None:
        self._forget_jobs(dbname, set())
        self._files.unwatch(dbname)
        self._memory.retain(dbname, set())
        store = self._stores.pop(dbname, None)
        if store is not None:
            store.close()

    def _forget_jobs(self, dbname: str, present: set[int]) -> None:
        """Forget what was done for indexes of a database that are not there any more; what still runs is forgotten later."""
        for resting in [rest for rest in self._rests if rest[0] == dbname and rest[1] not in present]:
            del self._rests[resting]
        for key, long in list(self._long.items()):
            if key[0] == dbname and key[1] not in present and long.future.done():
                del self._long[key]

    def _look_after(self, dbname: str, store: IndexStore, index: StoredIndex) -> None:
        """Do the next thing that an index needs, or have it begun in the builder's thread."""
        key = (dbname, index.index_id)
        long = self._long.get(key)
        jobs = IndexJobs(store, self._shared)
        if long is not None and long.future.done():
            del self._long[key]
            self._attempt(
                long.name, key, index, jobs, started=long.started,
                action=lambda: long.future.result()(index),
            )  # fmt: skip
            return
        building = long is not None and long.name == "build"  # and has its share
        admitted = not self._memory.refuses(key) if building else jobs.admit(index)
        # Begun before the refresh: where rows change all the time, there is always something to refresh.
        if long is None and self._may("long", key, index):
            has_new_queries = partial(self._recorder.take_news, *key)
            name = jobs.long_job(index, has_new_queries) if admitted or index.status == "BUILDING" else None
            rest = self._rests.get((*key, "long"))
            if rest is not None and rest.is_for(index):
                name = "build"
            if name is not None:
                pool = self._measurer if name == "measure" else self._builder
                future = pool.submit(self._begin, name, dbname, index)
                self._long[key] = LongJob(name, time.perf_counter(), future)
            building = name == "build"
        if admitted and jobs.needs_refresh(index) and self._may("refresh", key, index):
            self._attempt(
                "refresh", key, index, jobs, started=time.perf_counter(),
                action=lambda: jobs.refresh(index, prune=not building),
            )  # fmt: skip

    def _may(self, kind: str, key: tuple[str, int], index: StoredIndex) -> bool:
        """Tell whether an index' jobs of a kind, "refresh" or "long", do not rest."""
        rest = self._rests.get((*key, kind))
        return rest is None or rest.is_over(index)

    def _begin(self, name: str, dbname: str, index: StoredIndex) -> Finish:
        """Do the long part of a job, with a connection of its own."""
        with contextlib.closing(IndexStore(self._conninfo, dbname)) as store:
            return IndexJobs(store, self._shared).begin(name, index)

    def _attempt(
        self, name: str, key: tuple[str, int], index: StoredIndex, jobs: IndexJobs, *,
        started: float, action: Callable[[], None],
    ) -> None:  # fmt: skip
        """Run a job, or the end of one; what fails is noted in the index's row, where whoever waits for it reads it."""
        resting = (*key, "refresh" if name == "refresh" else "long")
        failure = None
        try:
            action()
            self._rests.pop(resting, None)
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            failure = error.sqlstate  # dropped meanwhile
        except Exception as error:  # a fault in one index must not keep the others waiting
            failure = getattr(error, "sqlstate", None) or type(error).__name__
            lost = isinstance(error, psycopg.OperationalError) and not isinstance(error, OutOfMemory)
            noted = not lost and not isinstance(error, CorruptedIndex)
            self._rests.setdefault(resting, Rest()).begin(error, noted=noted)
            if not lost:
                log.exception("a job of vector index %d failed", index.index_id)
                self._needs_space |= isinstance(error, OSError)
                with contextlib.suppress(psycopg.Error):
                    jobs.note_failure(name, index, error)
        milliseconds = round((time.perf_counter() - started) * 1000, 1)
        self._events.write("index." + name, db=key[0], index=key[1], ms=milliseconds, sqlstate=failure)

    def _clean(self) -> None:
        """Remove what no version of any database needs; where something could not be written, older versions at once."""
        if not self._knows_all:
            return
        tokens: set[str] = set()
        for store in self._stores.values():
            tokens |= store.tokens()
        seconds = 0 if self._needs_space else self._settings.index_retain_seconds
        self._needs_space = False
        self._files.clean(tokens, seconds, working=bool(self._long))


def _yield_to_others() -> None:
    """Let this thread run when the cores have nothing better to do."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), MEASURING_NICENESS)


def serve(config: WorkerConfig, number: int, control: socket.socket) -> None:
    """Be the keeper until the supervisor says stop."""
    Keeper(config, number, control).run()
