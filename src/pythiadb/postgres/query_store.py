"""What the engine's keeper writes and reads of users' searches: a sample of their vectors, and how many there were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psycopg


@dataclass(frozen=True, slots=True)
class CapturedQuery:
    """A user's query: its vector as pgvector writes it, what it asked for, when it came (seconds since 1970).

    `target` is None where a search gave parameters instead. The queries with the lowest ranks are kept.
    """

    query: str
    dimensions: int
    k: int
    target: int | None
    rank: float
    at: float


class QueryStore:
    """One database. `most` queries of an index are kept, for `days`."""

    def __init__(self, connection: psycopg.Connection[Any], most: int, days: int) -> None:
        self._connection = connection
        self._most = most
        self._days = days

    def record(self, index_id: int, searches: int, queries: Sequence[CapturedQuery]) -> None:
        """Add to the use of an index, and take queries into its sample. An index that was dropped meanwhile is passed over."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = off")  # nothing that a crash must not lose
            cursor.execute(
                "INSERT INTO pythia.vector_index_use AS u SELECT i.id, %s, now() FROM pythia.vector_index i WHERE i.id = %s "
                "ON CONFLICT (index_id) DO UPDATE SET used_count = u.used_count + excluded.used_count, last_used_at = excluded.last_used_at",
                (searches, index_id),
            )
            if cursor.rowcount and queries:
                cursor.executemany(
                    "INSERT INTO pythia.vector_query (index_id, query, dimensions, k, target, rank, captured_at) "
                    "VALUES (%(index_id)s, %(query)s, %(dimensions)s, %(k)s, %(target)s, %(rank)s, to_timestamp(%(at)s))",
                    [asdict(query) | {"index_id": index_id} for query in queries],
                )
                self.prune()

    def prune(self) -> None:
        """Remove queries that are too old or too many."""
        self._connection.execute(
            "DELETE FROM pythia.vector_query WHERE ctid = ANY (ARRAY("
            "SELECT o.ctid FROM (SELECT q.ctid, a.old, row_number() OVER (PARTITION BY q.index_id ORDER BY a.old, q.rank) AS place "
            "FROM pythia.vector_query q, LATERAL (SELECT q.captured_at < now() - make_interval(days => %s) AS old) AS a) AS o "
            "WHERE o.old OR o.place > %s))",
            (self._days, self._most),
        )

    def is_new(self, index_id: int, since: float, fewest: int) -> bool:
        """Tell whether there are enough different queries, and half of them came first after a time (seconds since 1970)."""
        row = self._connection.execute(
            "SELECT count(*) >= %s AND 2 * count(*) FILTER (WHERE v.first > to_timestamp(%s)) >= count(*) "
            "FROM (SELECT min(captured_at) AS first FROM pythia.vector_query WHERE index_id = %s GROUP BY query) AS v",
            (fewest, since, index_id),
        ).fetchone()
        return row == (True,)

    def vectors(self, index_id: int, dimensions: int) -> list[str]:
        """Return the captured vectors of an index as text, in an order by chance."""
        rows = self._connection.execute(
            "SELECT query FROM pythia.vector_query WHERE index_id = %s AND dimensions = %s ORDER BY rank",
            (index_id, dimensions),
        ).fetchall()
        return [text for (text,) in rows]
