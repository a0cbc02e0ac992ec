"""Searches in vector indexes, from the command to the lines of the answer.

search  [versions, vector type, query, k, options, predicate, explain]
        versions    [[number, token], …] that the statement may be answered from, newest first
        query       vector_send or sparsevec_send in hex, a bit string for bits
        options     {"accuracy": n} | {"efsearch": n} | {"probes": n} | {"exact": true} or null; with "measuring" it is
                    not a search of a user; with "neighbors_per_row" and "most" the predicate is a part of a filter: see widened()
        predicate   over INCLUDE columns, see index/filters.py, or null

The answer: the version's number (0 when none of them is here, or may be opened, or can judge the predicate), the keys as an array literal, nearest
first, whether there are no more, and for `explain` facts about the search.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from pythiadb.engine.arrays import text_array
from pythiadb.engine.captures import Captures
from pythiadb.engine.commands import Command
from pythiadb.engine.index_files import IndexFiles
from pythiadb.engine.open_versions import OpenVersions
from pythiadb.errors import InvalidParameter, OutOfMemory, UnsupportedPredicate
from pythiadb.index.effort import Effort
from pythiadb.index.selection import NEARLY_ALL
from pythiadb.index.version import Found, IndexVersion

if TYPE_CHECKING:
    from pythiadb.engine.session import Session
    from pythiadb.engine.worker import Worker

Lines = list[bytes | None]
NOT_HERE: Lines = [b"0", b"{}", b"f", None]
AT_ONCE_SECONDS = (
    0.003  # what a search may take in the event loop: switching to a thread and back costs a tenth of it
)
_SPARSE_HEAD = struct.Struct("!iii")  # of sparsevec_send: dimensions, entries, unused


@dataclass(frozen=True, slots=True)
class Search:
    """A search command, read."""

    versions: list[tuple[int, str]]
    query: Any
    k: int
    options: dict[str, Any]
    predicate: Any
    explain: bool

    @classmethod
    def read(cls, payload: bytes) -> Search:
        versions, vector_type, query, k, options, predicate, explain = orjson.loads(payload)
        return cls(versions, read_vector(vector_type, query), k, given(options), predicate, explain)


class Searcher:
    """Answers searches for the sessions of a worker."""

    def __init__(self, worker: Worker, files: IndexFiles) -> None:
        self._worker = worker
        self.versions = OpenVersions(
            files, worker.settings.max_index_versions, worker.settings.vector_memory_bytes
        )
        self.captures = Captures(files.captured, worker.settings.index_captured_queries)
        # by index, without and with a filter: what a search has lately taken
        self._seconds: dict[tuple[int, bool], float] = {}
        self.searches = 0

    def answer_at_once(self, session: Session, command: Command) -> Lines | None:
        """Return the answer of a search that is known to be quick; None for all others."""
        search = Search.read(command.payload)
        if search.options.get("exact"):
            return None
        version = self.versions.newest(search.versions)
        if version is None or self._expected(version, search) > AT_ONCE_SECONDS:
            return None
        return self._answer(version, search, session.dbname)

    async def run(self, session: Session, command: Command) -> Lines:
        """Run a search and return the lines of its answer."""
        search = Search.read(command.payload)
        version = self.versions.newest(search.versions) or await self._worker.in_slow_thread(
            self.versions.get, search.versions
        )
        if version is None:
            return _not_here(self.versions.refusal(search.versions))
        lines: Lines = await self._worker.in_thread(self._answer, version, search, session.dbname)
        return lines

    def _answer(self, version: IndexVersion, search: Search, dbname: str) -> Lines:
        started = time.perf_counter()
        try:
            search = widened(version, search)
            found = _find(version, search)
        except UnsupportedPredicate as error:
            reason = f"the index cannot judge the filter: {error.detail or error.message}"
            return [*NOT_HERE[:3], orjson.dumps({"exact": reason})]
        seconds = time.perf_counter() - started
        if not search.options.get("exact"):
            self._note(version, search, seconds)
        self.searches += 1
        self.captures.note(dbname, version, search)
        facts = None
        if search.explain:
            facts = orjson.dumps(found.facts | {"asked": search.k, "ms": round(seconds * 1000, 3)})
        letter = complete_letter(version, found, search.k)
        return [str(version.number).encode(), keys_literal(version, found), letter, facts]

    def _expected(self, version: IndexVersion, search: Search) -> float:
        return self._seconds.get(_sort(version, search), 0.0) * (1 + search.k / 200)

    def _note(self, version: IndexVersion, search: Search, seconds: float) -> None:
        sort = _sort(version, search)
        per_search = seconds / (1 + search.k / 200)
        self._seconds[sort] = 0.9 * self._seconds.get(sort, per_search) + 0.1 * per_search


def _sort(version: IndexVersion, search: Search) -> tuple[int, bool]:
    """Return what searches that take about as long have in common."""
    return version.definition.index_id, search.predicate is not None


def _not_here(refusal: OutOfMemory | None) -> Lines:
    """Return the answer where no version is open: with a reason where none may be opened."""
    if refusal is None:
        return NOT_HERE
    return [*NOT_HERE[:3], orjson.dumps({"exact": refusal.message, "refused": refusal.detail})]


def _find(version: IndexVersion, search: Search) -> Found:
    options = search.options
    if options.get("exact"):
        return version.exact(search.query, search.k)
    effort = effort_of(version, search)
    if search.predicate is not None:
        return version.filtered(search.query, search.k, effort, search.predicate)
    return version.search(search.query, search.k, effort)


def widened(version: IndexVersion, search: Search) -> Search:
    """Return a search for so many neighbors that k of them should fulfil a filter of which the predicate is a part.

    The database has estimated how many rows fulfil the whole, the index knows how many fulfil the part: `neighbors_per_row` times
    those are wanted. Where that is more than `most` the search is not worth its time, and stays as it is.
    """
    per_row = search.options.get("neighbors_per_row")
    if per_row is None or search.predicate is None:
        return search
    wanted = ceil(per_row * version.passing(search.predicate))
    return replace(search, k=wanted) if search.k < wanted <= search.options["most"] else search


def complete_letter(version: IndexVersion, found: Found, k: int) -> bytes:
    """Return t where there are no more rows than those found, else f."""
    return b"t" if len(found.keys) < k or len(found.keys) >= version.rows else b"f"


def keys_literal(version: IndexVersion, found: Found) -> bytes:
    return text_array(found.keys, quoted=version.definition.key_type == "text")


def given(options: dict[str, Any] | None) -> dict[str, Any]:
    """Return the options that have a value: a parameter that is NULL asks for nothing."""
    return {name: value for name, value in (options or {}).items() if value is not None}


def effort_of(version: IndexVersion, search: Search) -> Effort:
    options = search.options
    if "efsearch" in options or "probes" in options:
        return Effort.from_parameters(options, search.k)
    accuracy = options.get("accuracy", version.definition.target_accuracy)
    if not 1 <= accuracy <= 100:
        raise InvalidParameter(f"target accuracy must be between 1 and 100, not {accuracy}")
    return version.effort_for(accuracy, search.k, filtered=_is_filtered(version, search))


def _is_filtered(version: IndexVersion, search: Search) -> bool:
    """Tell whether a predicate leaves so few rows that the search is another one, with efforts of its own. Raises UnsupportedPredicate."""
    return search.predicate is not None and version.passing(search.predicate) < NEARLY_ALL * version.rows


def read_vector(vector_type: str, text: str) -> Any:
    """Read a query as the index library takes it. Raises InvalidParameter."""
    if vector_type == "bit":
        return np.packbits(np.frombuffer(text.encode(), np.uint8) - ord("0"))
    try:
        data = bytes.fromhex(text)
    except ValueError as error:
        raise InvalidParameter("the query vector is not in hexadecimal") from error
    if vector_type == "sparsevec":
        _, entries, _ = _SPARSE_HEAD.unpack_from(data)
        return (
            np.frombuffer(data, ">i4", entries, _SPARSE_HEAD.size).astype(np.int32),
            np.frombuffer(data, ">f4", entries, _SPARSE_HEAD.size + 4 * entries).astype(np.float32),
        )
    return np.frombuffer(data, ">f4", offset=4).astype(np.float32)  # vector_send: two int16 come first
