"""Statements that go to the server as they are, whatever dialect the connection speaks."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import tuple_row

from pythiadb.postgres.session import Connection


def plain_cursor(connection: Connection) -> psycopg.Cursor[Any]:
    """Return a cursor without the translator, which gives rows as tuples."""
    return psycopg.Cursor(connection, row_factory=tuple_row)


def one(connection: Connection, statement: Any, values: tuple[Any, ...] | None = None) -> tuple[Any, ...]:
    """Return the first row of a query that has one."""
    with plain_cursor(connection) as cursor:
        row = cursor.execute(statement, values).fetchone()
    assert row is not None
    return tuple(row)
