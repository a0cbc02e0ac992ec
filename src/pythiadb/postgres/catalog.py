"""Facts about tables and models that the translator asks for, read through the session itself."""

from __future__ import annotations

import itertools
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from pythiadb.sql.rewrite import Column, Model, Table

_PRIMARY_KEY = """
    SELECT array_agg(quote_ident(a.attname) ORDER BY k.n)
    FROM pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(attnum, n)
    JOIN pg_attribute a ON (a.attrelid, a.attnum) = (i.indrelid, k.attnum)
    WHERE i.indrelid = to_regclass(%s) AND i.indisprimary
"""

_MODEL = """
    SELECT m.spec ->> 'function', m.spec ->> 'result',
           (SELECT jsonb_object_agg(upper(a ->> 'name'), a ->> 'type') FROM jsonb_array_elements(m.spec -> 'attributes') AS a)
    FROM pythia.model m
    WHERE m.relation = to_regclass(%s)
"""

# Rows of heap tables are told apart by ctid, in a table with partitions or inheritance by tableoid too. A column is short
# when a value has a fixed or declared length; arrays cannot be put into arrays and taken out again.
_TABLE = """
    WITH RECURSIVE family AS (
        SELECT to_regclass(%s)::oid AS oid
        UNION ALL SELECT i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.oid),
    stored AS (
        SELECT count(*) = 1 AS alone, bool_and(has_table_privilege(c.oid, 'SELECT')) FILTER (WHERE c.oid = to_regclass(%s)) AS readable,
               bool_and(c.relkind = 'p' OR (c.relkind IN ('r', 'm') AND m.amname = 'heap')) AS is_heap
        FROM family f JOIN pg_class c ON c.oid = f.oid LEFT JOIN pg_am m ON m.oid = c.relam)
    SELECT s.alone AND (SELECT c.relkind <> 'p' FROM pg_class c WHERE c.oid = to_regclass(%s)), a.attname,
           a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'float4'::regtype, 'float8'::regtype, 'numeric'::regtype),
           t.typcategory <> 'A' AND t.typarray <> 0
           AND (t.typlen > 0 OR a.atttypid = 'numeric'::regtype
                OR (a.atttypid IN ('varchar'::regtype, 'bpchar'::regtype) AND a.atttypmod BETWEEN 5 AND 1004))
    FROM stored s, pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE s.readable AND s.is_heap AND a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
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
        self._models: dict[str, Model | None] = {}
        self._tables: dict[str, Table | None] = {}
        self.version = next(_versions)

    def primary_key(self, table: str) -> tuple[str, ...] | None:
        """Return the key columns of a table as SQL identifiers, or None when it has no primary key or does not exist."""
        if table not in self._keys:
            rows = self._ask(_PRIMARY_KEY, table)
            self._keys[table] = tuple(rows[0][0]) if rows and rows[0][0] else None
        return self._keys[table]

    def model(self, name: str) -> Model | None:
        """Return what a model answers and takes, or None when there is none of the name."""
        if name not in self._models:
            rows = self._ask(_MODEL, name)
            self._models[name] = Model(*rows[0]) if rows else None
        return self._models[name]

    def table(self, name: str) -> Table | None:
        """Return the columns of a table whose rows ctid tells apart; None for others and where a column may not be read."""
        if name not in self._tables:
            rows = self._ask(_TABLE, name)
            columns = {row[1]: Column(is_number=row[2], is_short=row[3]) for row in rows}
            key = ("ctid",) if rows and rows[0][0] else ("tableoid", "ctid")
            self._tables[name] = Table(columns, key, is_one_file=rows[0][0]) if rows else None
        return self._tables[name]

    def forget(self) -> None:
        """Drop what is remembered: a definition changed."""
        self._keys.clear()
        self._models.clear()
        self._tables.clear()
        self.version = next(_versions)

    def _ask(self, query: str, name: str) -> list[Any]:
        """Run a query whose every parameter is the name. A transaction that this begins ends with it."""
        idle = self._connection.info.transaction_status == TransactionStatus.IDLE
        with psycopg.Cursor(self._connection, row_factory=tuple_row) as cursor:
            rows = cursor.execute(query.encode(), [name] * query.count("%s")).fetchall()
        if idle and not self._connection.autocommit:
            self._connection.rollback()
        return rows
