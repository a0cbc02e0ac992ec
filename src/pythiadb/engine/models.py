"""The open models of one worker: found in the cache, fetched from the database when missing, closed when too many."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from pythiadb.engine.cache import Cache, CachedPackage, FileEntry
from pythiadb.errors import InvalidModel
from pythiadb.models.package import Spec
from pythiadb.models.session import Model, open_model
from pythiadb.postgres.model_store import ModelStore


@dataclass(slots=True)
class OpenModel:
    """A model that is ready to run, with its counters."""

    key: str
    model: Model
    size: int
    load_seconds: float
    calls: int = 0
    texts: int = 0
    opened: float = field(default_factory=time.time)


class ModelRegistry:
    """At most `max_models` open models. `get` may take long: call it outside the event loop."""

    def __init__(
        self, cache: Cache, store: ModelStore, *, threads: int, max_models: int, max_model_bytes: int
    ) -> None:
        self._cache = cache
        self._store = store
        self._threads = threads
        self._max_models = max_models
        self._max_model_bytes = max_model_bytes
        self._open: OrderedDict[str, OpenModel] = OrderedDict()
        self._loading = threading.Lock()

    def opened(self, key: str) -> OpenModel | None:
        """Return the model if it is open; cheap."""
        found = self._open.get(key)
        if found is not None:
            self._open.move_to_end(key)
        return found

    def get(self, key: str, dbname: str) -> OpenModel:
        """Return the model, opening it if need be. Raises UndefinedModel, InvalidModel, EngineUnavailable."""
        with self._loading:
            return self.opened(key) or self._load(self._cache.package(key) or self._fetch(key, dbname))

    def add(self, package: CachedPackage) -> OpenModel:
        """Open a package that has just been received."""
        with self._loading:
            return self.opened(package.key) or self._load(package)

    def all(self) -> list[OpenModel]:
        """Return the open models, least recently used first."""
        return list(self._open.values())

    def check_size(self, size: int) -> None:
        """Raise InvalidModel for a package of more bytes than the limit."""
        if size > self._max_model_bytes:
            raise InvalidModel(
                f"the model has {size} bytes, the engine's limit is {self._max_model_bytes}",
                hint="Raise the engine setting max_model_bytes.",
            )

    def _fetch(self, key: str, dbname: str) -> CachedPackage:
        stored = self._store.package(dbname, key)
        files = [FileEntry.from_json(f) for f in stored.files]
        self.check_size(sum(f.size for f in files))
        for entry in files:
            if not self._cache.has_file(entry.sha256):
                self._cache.add_file(entry, self._store.chunks(dbname, entry.sha256))
        return self._cache.add_package(key, stored.spec, files)

    def _load(self, package: CachedPackage) -> OpenModel:
        started = time.perf_counter()
        model = open_model(package.folder, Spec.from_json(package.spec), threads=self._threads)
        size = sum(f.size for f in package.files)
        opened = OpenModel(package.key, model, size, time.perf_counter() - started)
        self._open[package.key] = opened
        while len(self._open) > self._max_models:
            self._open.popitem(last=False)
        return opened
