"""The open models of one worker: found in the cache, fetched from the database when missing, closed when too many."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pythiadb.engine.cache import Cache
from pythiadb.engine.cached import CachedPackage, FileEntry
from pythiadb.engine.child import ChildDied, Children
from pythiadb.engine.guard import Guard
from pythiadb.engine.settings import Settings
from pythiadb.errors import InvalidModel, PythiaError
from pythiadb.models.mapped import MappedGraph, MappedStore
from pythiadb.models.package import Spec
from pythiadb.models.session import Model, open_model
from pythiadb.postgres.model_store import ModelStore

OPEN_TRIES = (
    4  # of shared weights that others delete while they are opened; then the model is opened without them
)
KEEP_SECONDS = 2.0  # of unwanted weights: statements that began before a change ask as before


@dataclass(slots=True)
class OpenModel:
    """A model that is ready to run, with its counters. `inmemory` is what its opener asked for, `mapped` what came of it.

    Shared weights serve callers who did not ask for them, too: another database may have the same package. `wishes` holds, by
    database, what its last call asked for, `wanted` when one asked for them last.
    """

    key: str
    dbname: str
    model: Model
    size: int
    load_seconds: float
    inmemory: bool
    mapped: MappedGraph | None
    address: int | None
    calls: int = 0
    rows: int = 0
    opened: float = field(default_factory=time.time)
    wishes: dict[str, bool] = field(default_factory=dict)
    wanted: float = 0.0

    def serves(self, dbname: str, inmemory: bool) -> bool:
        """Tell whether a call can run here, and note what it asks for if it can."""
        if not self.inmemory:
            return not inmemory
        self.wishes[dbname] = inmemory
        if inmemory:
            self.wanted = time.monotonic()
        return True

    @property
    def is_unwanted(self) -> bool:
        """True when no database wants its shared weights any more."""
        return (
            self.inmemory
            and not any(list(self.wishes.values()))  # a copy: calls write to it
            and time.monotonic() - self.wanted > KEEP_SECONDS
        )


@dataclass(frozen=True, slots=True)
class Stores:
    """Where packages come from."""

    cache: Cache
    database: ModelStore
    mapped: MappedStore
    children: Children


class ModelRegistry:
    """At most `max_models` open models. What may take long is said to block: call it outside the event loop.

    `on_close` is called, in any thread, with a model that is not used any more.
    """

    def __init__(
        self, stores: Stores, settings: Settings, guard: Guard, on_close: Callable[[Model], None]
    ) -> None:
        self._stores = stores
        self._settings = settings
        self._guard = guard
        self._on_close = on_close
        self._open: OrderedDict[str, OpenModel] = OrderedDict()
        self._loading: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._changing = threading.Lock()

    def opened(self, key: str, dbname: str, inmemory: bool) -> OpenModel | None:
        """Return the model if it is open in a way that serves the caller; cheap.

        `inmemory` says whether the caller's database wants shared weights, for whichever of the package's names.
        """
        found = self._open.get(key)
        if found is None or not found.serves(dbname, inmemory):
            return None
        self._open.move_to_end(key)
        return found

    def get(self, key: str, dbname: str, inmemory: bool) -> OpenModel:
        """Return the model, opening it if need be; blocks. Raises UndefinedModel, InvalidModel, EngineUnavailable."""
        with self._loading[key]:
            found = self.opened(key, dbname, inmemory)
            if found is not None:
                return found
            self.close(key)  # it has weights of its own, and the caller wants to share
            return self._load(self.package(key, dbname), dbname, inmemory)

    def reopen(self, key: str, dbname: str, inmemory: bool) -> None:
        """Open a model that was open in this worker's predecessor, if its files are here; blocks."""
        with self._loading[key]:
            package = self._stores.cache.package(key)
            if package is not None and key not in self._open:
                self._load(package, dbname, inmemory)

    def package(self, key: str, dbname: str) -> CachedPackage:
        """Return a package's files; blocks. Raises UndefinedModel, InvalidModel, EngineUnavailable."""
        return self._stores.cache.package(key) or self._fetch(key, dbname)

    def is_open(self, opened: OpenModel) -> bool:
        """Tell whether a model has not been closed."""
        return self._open.get(opened.key) is opened

    def all(self) -> list[OpenModel]:
        """Return the open models, least recently used first."""
        return list(self._open.values())

    def close(self, key: str) -> Model | None:
        """Let go of a model and return it; calls in progress keep it until they end."""
        with self._changing:
            opened = self._open.pop(key, None)
        if opened is None:
            return None
        self._on_close(opened.model)
        return opened.model

    def reclaim(self, key: str) -> None:
        """Delete the shared weights of a package; other workers notice it by themselves."""
        self._stores.mapped.remove(key)
        self.close_unmapped()

    def close_unmapped(self) -> None:
        """Close models whose shared weights were deleted."""
        for opened in self.all():
            if opened.mapped is not None and not opened.mapped.is_there:
                self.close(opened.key)

    def unwanted(self) -> list[str]:
        """Return the packages whose shared weights were wanted once, and are no more; cheap."""
        return [opened.key for opened in self.all() if opened.is_unwanted]

    def reclaim_unwanted(self, key: str) -> None:
        """Delete the shared weights of a package if that still holds; blocks. A database that does want them makes them anew.

        The databases have them deleted when they stop sharing; what comes here was made by a call that did not know it yet, or
        belonged to a name that was dropped, or to a transaction that was rolled back.
        """
        with self._loading[key]:
            opened = self._open.get(key)
            if opened is not None and opened.is_unwanted:
                self.reclaim(key)
                self.close(key)  # it may not have got shared weights

    def check_size(self, size: int) -> None:
        """Raise InvalidModel for a package of more bytes than the limit."""
        if size > self._settings.max_model_bytes:
            raise InvalidModel(
                f"the model has {size} bytes, the engine's limit is {self._settings.max_model_bytes}",
                hint="Raise the engine setting max_model_bytes.",
            )

    def _fetch(self, key: str, dbname: str) -> CachedPackage:
        stored = self._stores.database.package(dbname, key)
        files = [FileEntry.from_json(f) for f in stored.files]
        self.check_size(sum(f.size for f in files))

        def chunks(entry: FileEntry) -> Iterable[bytes]:
            return self._stores.database.chunks(dbname, entry.sha256)

        return self._stores.cache.fetch(key, stored.spec, files, chunks)

    def _load(self, package: CachedPackage, dbname: str, inmemory: bool) -> OpenModel:
        started = time.perf_counter()
        model, mapped = self._open_files(package, inmemory)
        opened = OpenModel(
            package.key, dbname, model, sum(f.size for f in package.files), time.perf_counter() - started,
            inmemory, mapped, mapped.address() if mapped else None,
        )  # fmt: skip
        opened.serves(dbname, inmemory)
        with self._changing:
            self._open[package.key] = opened
            surplus = list(self._open)[: max(0, len(self._open) - self._settings.max_models)]
        for key in surplus:
            self.close(key)
        return opened

    def _open_files(self, package: CachedPackage, inmemory: bool) -> tuple[Model, MappedGraph | None]:
        """Open a package, with shared weights if wanted; again when they fail: who switches them off deletes them meanwhile."""
        spec = Spec.from_json(package.spec)
        for _ in range(OPEN_TRIES if inmemory else 0):
            mapped = self._mapped(package, spec)
            if mapped is None:
                break
            with contextlib.suppress(InvalidModel):
                return self._open_graph(package, spec, mapped), mapped
        return self._open_graph(package, spec, None), None

    def _open_graph(self, package: CachedPackage, spec: Spec, mapped: MappedGraph | None) -> Model:
        shared = sum(m.mapped.bytes for m in self.all() if m.mapped) + (mapped.bytes if mapped else 0)
        self._guard.limit_memory(self._settings.worker_memory_bytes + shared)
        graph = mapped.graph if mapped else None
        with self._guard.opening(package.key):
            return open_model(package.folder, spec, threads=self._settings.threads, graph=graph)

    def _mapped(self, package: CachedPackage, spec: Spec) -> MappedGraph | None:
        """Return the shared form of a package, made if need be; None when that fails, which the status shows."""

        def build(target: Path, weights: str) -> None:
            arguments = {
                "graph": str(package.folder / spec.graph), "target": str(target), "weights": weights,
                "threads": self._settings.threads,
            }  # fmt: skip
            try:
                self._stores.children.run("map", arguments, self._settings.probe_seconds)
            except ChildDied as death:
                raise InvalidModel(
                    "the weights of the model could not be put into shared memory", detail=f"{death}."
                ) from None

        try:
            return self._stores.mapped.find(package.key) or self._stores.mapped.make(package.key, build)
        except (PythiaError, OSError):
            return None
