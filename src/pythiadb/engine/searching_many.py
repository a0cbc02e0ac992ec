"""Searches for many vectors in one command, with which statements ask for the vectors of all their outer rows.

search-many  [versions, vector type, queries, k, options, predicate]        as in searching.py, but for a list of queries

The answer: the version's number, a letter for each query that was searched for (t: there are no more rows than its keys), and their
keys as array literals. Queries that did not come to their turn in time are left out, from the end.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson

from pythiadb.engine.commands import Command
from pythiadb.engine.searching import (
    NOT_HERE,
    Lines,
    Search,
    Searcher,
    complete_letter,
    effort_of,
    given,
    keys_literal,
    read_vector,
    widened,
)
from pythiadb.index.version import Found, IndexVersion

if TYPE_CHECKING:
    from pythiadb.engine.session import Session
    from pythiadb.engine.worker import Worker

TOGETHER = 64  # queries between two looks at the clock
MOST_SECONDS = (
    2.0  # after which the rest is left out: nothing can stop a search that nobody waits for any more
)


class ManySearcher:
    """Answers the searches of statements with many outer rows."""

    def __init__(self, worker: Worker, searcher: Searcher) -> None:
        self._worker = worker
        self._searcher = searcher

    def answer_at_once(self, session: Session, command: Command) -> None:
        """Leave it to run(): none of these commands is quick."""

    async def run(self, session: Session, command: Command) -> Lines:
        """Search and return the lines of the answer."""
        searches = await self._worker.in_thread(read_searches, command.payload)
        versions = self._searcher.versions
        version = versions.newest(searches[0].versions) or await self._worker.in_slow_thread(
            versions.get, searches[0].versions
        )
        if version is None:
            return NOT_HERE
        lines: Lines = await self._worker.in_thread(self._answer, version, searches, session.dbname)
        return lines

    def _answer(self, version: IndexVersion, searches: list[Search], dbname: str) -> Lines:
        k = widened(version, searches[0]).k
        searches = [replace(search, k=k) for search in searches]
        found = search_within(version, searches, MOST_SECONDS)
        for search in searches[: len(found)]:
            self._searcher.captures.note(dbname, version, search)
        self._searcher.searches += len(found)
        return _lines(version, k, found)


def read_searches(payload: bytes) -> list[Search]:
    """Read a command's payload as single searches that differ in their vectors only. Raises InvalidParameter."""
    versions, vector_type, queries, k, options, predicate = orjson.loads(payload)
    first = Search(versions, None, k, given(options), predicate, False)
    return [replace(first, query=read_vector(vector_type, query)) for query in queries]


def search_within(version: IndexVersion, searches: list[Search], seconds: float) -> list[Found]:
    """Search for as many of the vectors, in order, as can be begun within some seconds."""
    deadline = time.monotonic() + seconds
    first = searches[0]
    found: list[Found] = []
    effort = effort_of(version, first)
    step = 1 if effort.exhaustive or first.predicate is not None else TOGETHER
    while len(found) < len(searches) and (not found or time.monotonic() < deadline):
        queries = [search.query for search in searches[len(found) : len(found) + step]]
        if first.predicate is not None:
            found.append(version.filtered(queries[0], first.k, effort, first.predicate))
        else:
            found += version.search_many(queries, first.k, effort)
    return found


def _lines(version: IndexVersion, k: int, found: list[Found]) -> Lines:
    letters = b"".join(complete_letter(version, one, k) for one in found)
    return [str(version.number).encode(), letters, *(keys_literal(version, one) for one in found)]
