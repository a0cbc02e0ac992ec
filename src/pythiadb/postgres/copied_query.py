"""The result of a query as CSV text, by COPY: for readers of many rows that want no Python object for each value."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import psycopg
from psycopg import sql

from pythiadb.errors import InvalidParameter
from pythiadb.postgres.session import Connection, only_statement


class CopiedQuery:
    """A SELECT that runs in its connection's transaction. AI SQL is translated where the connection is Pythia's.

    `columns` are the names and types of what it gives; a type that this client does not know is "".
    """

    columns: list[tuple[str, str]]

    def __init__(self, connection: psycopg.Connection[Any], query: object) -> None:
        if not isinstance(query, str):
            raise InvalidParameter(f"a query is text, not {type(query).__name__}")
        if isinstance(connection, Connection):
            query = only_statement(connection.translate(query)).decode()
        text = sql.SQL(query.strip().removesuffix(";"))
        self._connection = connection
        self._query = sql.SQL("({}\n) AS q").format(text)
        with psycopg.Cursor(connection) as cursor:
            cursor.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(self._query))
            types = [
                (column.name, connection.adapters.types.get(column.type_code))
                for column in cursor.description or ()
            ]
        self.columns = [(name, "" if info is None else info.name) for name, info in types]

    def blocks(
        self, expressions: Sequence[tuple[str, str]], block_bytes: int
    ) -> Generator[bytearray, None, None]:
        """Yield rows without a header, in blocks of whole rows a little longer than `block_bytes`, in UTF-8.

        An expression is SQL with {} for a column, and the column's name: `("floor({})", "price")`.
        """
        columns = [sql.SQL(text).format(sql.Identifier("q", name)) for text, name in expressions]
        statement = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT csv, ENCODING 'UTF8')").format(
            sql.SQL(", ").join(columns), self._query
        )
        block = bytearray()
        with psycopg.Cursor(self._connection) as cursor, cursor.copy(statement) as copy:
            for row in copy:
                block += row
                if len(block) >= block_bytes:
                    yield block
                    block = bytearray()
        if block:
            yield block
