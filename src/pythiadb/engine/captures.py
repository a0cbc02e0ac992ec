"""Query vectors of users, a sample of them, and how often indexes are used: noted by the workers, handed on to the keeper.

Each search draws a number by chance, its rank, and the searches of the lowest ranks are kept: here those of an hour, in the
database those of all workers and of some days. So each search has the same chance at whatever time it came; and once the
first ones are there, hardly any has to be copied.

    indexes/captured/<name>    what a worker has noted in two seconds: a line of JSON, then the bytes of the vectors in a row

A file is removed by the keeper, who writes it into the database. Until then only the engine's own user can read it.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import orjson

from pythiadb.index.definition import Definition
from pythiadb.postgres.query_store import CapturedQuery

if TYPE_CHECKING:
    from pythiadb.engine.searching import Search
    from pythiadb.index.version import IndexVersion

HAND_ON_SECONDS = 2.0
SAMPLE_SECONDS = 3600.0  # after which a worker's sample begins anew
MOST_FILES = 1000  # that wait for the keeper; then nothing is handed on
UNFINISHED = ".new"
ABANDONED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Use:
    """What a worker has noted of one index in a while."""

    dbname: str
    index_id: int
    searches: int
    queries: list[CapturedQuery]


@dataclass(slots=True)
class _Sample:
    """Searches of one index in a worker. `heap`: [-rank, number, (time, search, definition), which is None once it was handed on]."""

    limit: float  # a rank that is not below is not wanted
    searches: int = 0
    heap: list[list[Any]] = field(default_factory=list)


class Captures:
    """The searches of a worker; at most `most` queries of an index are kept, 0 for none."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self._samples: dict[tuple[str, int], _Sample] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._has_news = False
        self._handed_on = self._begun = time.monotonic()

    def note(self, dbname: str, version: IndexVersion, search: Search) -> None:
        """Count a search, and keep its query if chance will have it. It is part of every search and takes a few microseconds."""
        options = search.options
        if (
            search.explain or options.get("exact") or options.get("measuring")
        ):  # no search of a user by the index
            return
        key = (dbname, version.definition.index_id)
        with self._lock:
            sample = self._samples.get(key)
            if sample is None:
                sample = self._samples[key] = _Sample(1.0 if self._most else 0.0)
            sample.searches += 1
            self._has_news = True
            rank = random.random()  # noqa: S311  (chance, no secret)
            if rank < sample.limit:
                self._keep(sample, rank, (time.time(), search, version.definition))

    def _keep(self, sample: _Sample, rank: float, noted: tuple[float, Search, Definition]) -> None:
        entry = [-rank, next(self._numbers), noted]
        if len(sample.heap) < self._most:
            heapq.heappush(sample.heap, entry)
        else:
            heapq.heapreplace(sample.heap, entry)
        if len(sample.heap) == self._most:
            sample.limit = -sample.heap[0][0]

    def due(self) -> bool:
        """Tell whether it is time to hand on what was noted."""
        return self._has_news and time.monotonic() - self._handed_on > HAND_ON_SECONDS

    def hand_on(self) -> None:
        """Write what was noted into a file for the keeper; blocks. Where there is no room for it, it is lost."""
        self._handed_on = time.monotonic()
        if not self._has_news:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if sum(1 for _ in self._folder.iterdir()) < MOST_FILES:
                _write(self._folder, self._taken())

    def _taken(self) -> list[tuple[tuple[str, int], _Sample]]:
        """Return what is new since the last call, as samples of their own."""
        taken = []
        with self._lock:
            self._has_news = False
            for key, sample in self._samples.items():
                if sample.searches:
                    fresh = [entry for entry in sample.heap if entry[2] is not None]
                    noted = [list(entry) for entry in fresh]
                    taken.append((key, _Sample(0.0, sample.searches, noted)))
                    sample.searches = 0
                    for entry in fresh:
                        entry[2] = None
            if time.monotonic() - self._begun > SAMPLE_SECONDS:
                self._begun = time.monotonic()
                self._samples.clear()
        return taken


def waiting(folder: Path) -> Iterator[Path]:
    """Yield the files that wait for the keeper."""
    with contextlib.suppress(FileNotFoundError):
        yield from (path for path in folder.iterdir() if path.suffix != UNFINISHED)


def remove_unfinished(folder: Path) -> None:
    """Remove what workers have left behind that ended while they wrote."""
    for path in folder.glob(f"*{UNFINISHED}"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                path.unlink()


def read(path: Path) -> list[Use]:
    """Read a file. Raises ValueError when it is not whole, OSError when it is not there."""
    head, _, data = path.read_bytes().partition(b"\n")
    try:
        indexes = orjson.loads(head)
    except orjson.JSONDecodeError:
        indexes = None
    if indexes is None or len(data) != sum(entry[-1] for index in indexes for entry in index[-1]):
        raise ValueError(f'"{path}" is not whole')
    place = 0
    uses = []
    for dbname, index_id, searches, entries in indexes:
        queries = []
        for rank, at, k, target, vector_type, dimensions, size in entries:
            text = vector_text(vector_type, dimensions, data[place : place + size])
            queries.append(CapturedQuery(text, dimensions, k, target, rank, at))
            place += size
        uses.append(Use(dbname, index_id, searches, queries))
    return uses


def vector_text(vector_type: str, dimensions: int, data: bytes) -> str:
    """Return a vector as pgvector writes it, out of the bytes in which the index library takes it."""
    if vector_type == "bit":
        return "".join(map(str, np.unpackbits(np.frombuffer(data, np.uint8))[:dimensions]))
    if vector_type == "sparsevec":
        places = np.frombuffer(data, np.int32, len(data) // 8)
        values = _list(np.frombuffer(data, np.float32, offset=len(data) // 2))[1:-1].split(",")
        entries = ",".join(f"{place + 1}:{value}" for place, value in zip(places, values, strict=False))
        return f"{{{entries}}}/{dimensions}"
    return _list(np.frombuffer(data, np.float32))


def _list(values: Any) -> str:
    """Return float32 numbers as [a,b], in the fewest digits that tell them apart."""
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _write(folder: Path, noted: list[tuple[tuple[str, int], _Sample]]) -> None:
    head, vectors = [], []
    for (dbname, index_id), sample in noted:
        entries = []
        for rank, _, (at, search, of) in sample.heap:
            target = _target(of, search.options)
            vectors.append(_bytes(search.query))
            entries.append([-rank, at, search.k, target, of.vector_type, of.dimensions, len(vectors[-1])])
        head.append([dbname, index_id, sample.searches, entries])
    name = uuid4().hex
    new = folder / (name + UNFINISHED)
    new.write_bytes(b"\n".join([orjson.dumps(head), b"".join(vectors)]))
    new.rename(folder / name)


def _bytes(query: Any) -> bytes:
    return b"".join(part.tobytes() for part in query) if isinstance(query, tuple) else query.tobytes()


def _target(definition: Definition, options: dict[str, Any]) -> int | None:
    if "efsearch" in options or "probes" in options:
        return None
    return int(options.get("accuracy", definition.target_accuracy))
