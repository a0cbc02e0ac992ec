"""Facts about tables and models that the translator asks for, read through the session itself."""

from __future__ import annotations

import itertools
import time
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from pythiadb.sql.rewrite import Column, Function, Model, Table, VectorIndex

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
               bool_and(c.relkind = 'p' OR (c.relkind IN ('r', 'm') AND m.amname = 'heap')) AS is_heap,
               min(c.relpages) FILTER (WHERE c.relkind <> 'p' AND c.relpersistence <> 't' AND NOT c.relrowsecurity) AS pages
        FROM family f JOIN pg_class c ON c.oid = f.oid LEFT JOIN pg_am m ON m.oid = c.relam)
    SELECT s.alone AND (SELECT c.relkind <> 'p' FROM pg_class c WHERE c.oid = to_regclass(%s)), a.attname,
           a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'float4'::regtype, 'float8'::regtype, 'numeric'::regtype),
           t.typcategory <> 'A' AND t.typarray <> 0
           AND (t.typlen > 0 OR a.atttypid = 'numeric'::regtype
                OR (a.atttypid IN ('varchar'::regtype, 'bpchar'::regtype) AND a.atttypmod BETWEEN 5 AND 1004)),
           a.atttypid IN ('int2'::regtype, 'int4'::regtype), format_type(a.atttypid, NULL),
           format_type(a.atttypid, a.atttypmod), s.pages
    FROM stored s, pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE s.readable AND s.is_heap AND a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
"""

_COLUMNS = """
    SELECT a.attname FROM pg_attribute a WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
"""

# Arguments decide which of several functions is called; without their types each may be meant.
_FUNCTION = """
    WITH n AS (SELECT parse_ident(%s) AS parts)
    SELECT bool_or(p.provolatile = 'v'), bool_or(p.proretset)
    FROM n CROSS JOIN pg_proc p
    WHERE p.proname = n.parts[cardinality(n.parts)] AND p.prokind = 'f'
      AND CASE WHEN cardinality(n.parts) = 1 THEN pg_function_is_visible(p.oid)
               ELSE p.pronamespace = to_regnamespace(quote_ident(n.parts[cardinality(n.parts) - 1])) END
"""

# An index that has a version answers from it, whatever has become of a rebuild; whether it may, each search finds out by itself.
_VECTOR_INDEX = """
    SELECT i.id, i.name::text, i.column_name::text, i.vector_type, i.distance,
           CASE WHEN EXISTS (SELECT FROM pythia.vector_index_version v WHERE v.index_id = i.id) THEN 'VALID' ELSE i.status END,
           quote_ident(i.key_column),
           format_type(k.atttypid, NULL),
           coalesce((SELECT jsonb_object_agg(a.attname, format_type(a.atttypid, NULL)) FROM pg_attribute a
                     WHERE a.attrelid = i.relation AND a.attname = ANY (i.include_columns) AND NOT a.attisdropped), '{}')
    FROM pythia.vector_index i
    JOIN pg_attribute k ON (k.attrelid, k.attname) = (i.relation, i.key_column)
"""
# A search names the key, which not everyone who may read the vectors may read.
_VECTOR_INDEXES = (
    _VECTOR_INDEX
    + """
    WHERE i.relation = to_regclass(%s) AND has_column_privilege(i.relation, i.key_column, 'SELECT') ORDER BY i.id
"""
)
_VECTOR_INDEX_NAMED = _VECTOR_INDEX + "WHERE i.id = pythia.find_vector_index(%s, current_schemas(true))"
# Changes when a search might be planned otherwise: an index was made, became usable, is another one or no more; a table was renamed.
_VECTOR_INDEX_STATES = """
    SELECT md5(string_agg(to_jsonb(s)::text, ',' ORDER BY s.id))
    FROM (SELECT i.id, i.status, i.relation::oid AS oid, i.relation::text AS name, i.column_name, i.key_column, i.include_columns, i.distance
          FROM pythia.vector_index i) AS s
"""
_LOOK_AGAIN = 10.0  # seconds after which other sessions' vector indexes are noticed


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
        self._columns: dict[str, frozenset[str] | None] = {}
        self._indexes: dict[str, tuple[VectorIndex, ...]] = {}
        self._named_indexes: dict[str, VectorIndex | None] = {}
        self._functions: dict[str, Function | None] = {}
        self._states: Any = None
        self._looked_at = 0.0
        self._path = ""
        self._version = next(_versions)

    @property
    def version(self) -> int:
        """A number that changes whenever an answer might.

        Indexes are built in the background and by other sessions: once a session has asked for any, it looks now and then
        whether they changed. The search_path, which a transaction's end may take back, is told by servers from version 18 on.
        """
        path = self._connection.info.parameter_status("search_path") or ""
        if path != self._path:
            self._path = path
            self.forget()
        if self._indexes and time.monotonic() - self._looked_at > _LOOK_AGAIN:
            self._look_at_indexes()
        return self._version

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
            columns = {
                row[1]: Column(row[5], row[6], is_number=row[2], is_short=row[3], is_small=row[4])
                for row in rows
            }
            pages = rows[0][7] if rows and rows[0][0] else None
            key = ("ctid",) if rows and rows[0][0] else ("tableoid", "ctid")
            self._tables[name] = Table(columns, key, is_one_file=rows[0][0], pages=pages) if rows else None
        return self._tables[name]

    def columns(self, relation: str) -> frozenset[str] | None:
        """Return the names of the columns of a table or view, or None when there is none of the name."""
        if relation not in self._columns:
            names = frozenset(row[0] for row in self._ask(_COLUMNS, relation))
            self._columns[relation] = names or None
        return self._columns[relation]

    def vector_indexes(self, table: str) -> tuple[VectorIndex, ...]:
        """Return the vector indexes of a table."""
        if not self._indexes:
            self._look_at_indexes()
        if table not in self._indexes:
            self._indexes[table] = tuple(VectorIndex(*row) for row in self._ask(_VECTOR_INDEXES, table))
        return self._indexes[table]

    def vector_index(self, name: str) -> VectorIndex | None:
        """Return the vector index of a name, or None when there is none."""
        if name not in self._named_indexes:
            rows = self._ask(_VECTOR_INDEX_NAMED, name)
            self._named_indexes[name] = VectorIndex(*rows[0]) if rows else None
        return self._named_indexes[name]

    def function(self, name: str) -> Function | None:
        """Return what the functions of a name may do, or None when there is none."""
        if name not in self._functions:
            rows = self._ask(_FUNCTION, name)
            self._functions[name] = Function(*rows[0]) if rows[0][0] is not None else None
        return self._functions[name]

    def forget(self) -> None:
        """Drop what is remembered: a definition changed."""
        self._keys.clear()
        self._models.clear()
        self._tables.clear()
        self._columns.clear()
        self._indexes.clear()
        self._named_indexes.clear()
        self._functions.clear()
        self._version = next(_versions)

    def _look_at_indexes(self) -> None:
        """Forget what is remembered if a vector index changed; a failed transaction is left for later."""
        if self._connection.info.transaction_status in (TransactionStatus.IDLE, TransactionStatus.INTRANS):
            self._looked_at = time.monotonic()
            states = self._ask(_VECTOR_INDEX_STATES, "")
            if states != self._states and self._indexes:
                self.forget()
            self._states = states

    def _ask(self, query: str, name: str) -> list[Any]:
        """Run a query whose every parameter is the name. A transaction that this begins ends with it."""
        idle = self._connection.info.transaction_status == TransactionStatus.IDLE
        with psycopg.Cursor(self._connection, row_factory=tuple_row) as cursor:
            rows = cursor.execute(query.encode(), [name] * query.count("%s")).fetchall()
        if idle and not self._connection.autocommit:
            self._connection.rollback()
        return rows
