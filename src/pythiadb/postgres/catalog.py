"""Facts about tables that the translator asks for, read through the session itself."""

from __future__ import annotations

import itertools
from typing import Any

import psycopg
from psycopg.rows import tuple_row

_PRIMARY_KEY = """
    SELECT array_agg(quote_ident(a.attname) ORDER BY k.n)
    FROM pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(attnum, n)
    JOIN pg_attribute a ON (a.attrelid, a.attnum) = (i.indrelid, k.attnum)
    WHERE i.indrelid = to_regclass(%s) AND i.indisprimary
"""


# Translations are cached by version: no two sessions, and no two states of one, may share a number.
_versions = itertools.count()


class SessionCatalog:
    """Answers from the database, remembered until the session changes a definition.

    No two sessions have the same version: the same name may mean different tables to them.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._keys: dict[str, tuple[str, ...] | None] = {}
        self.version = next(_versions)

    def primary_key(self, table: str) -> tuple[str, ...] | None:
        """Return the key columns of a table as SQL identifiers, or None when it has no primary key or does not exist."""
        if table not in self._keys:
            with psycopg.Cursor(self._connection, row_factory=tuple_row) as cursor:
                row = cursor.execute(_PRIMARY_KEY, (table,)).fetchone()
            self._keys[table] = tuple(row[0]) if row and row[0] else None
        return self._keys[table]

    def forget(self) -> None:
        """Drop what is remembered: a definition changed."""
        self._keys.clear()
        self.version = next(_versions)
