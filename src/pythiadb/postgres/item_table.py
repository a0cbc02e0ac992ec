"""Tables of an application that a recommender meets: the one with a row for each item, and what users have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from pythiadb.errors import InvalidParameter
from pythiadb.postgres.plain import one, plain_cursor
from pythiadb.postgres.session import Connection

# Which ids can stand beside a key, by the type of the key.
_INTEGERS = ("int2", "int4", "int8", "numeric")
_TEXTS = ("text", "varchar", "bpchar")


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, the name of its type in pg_type, and what follows the type in brackets, -1 for nothing."""

    name: str
    kind: str
    modifier: int


class Table:
    """A table or view and its columns by name. `find` makes it."""

    def __init__(self, connection: Connection, schema: str, name: str, columns: Mapping[str, Column]) -> None:
        self.connection = connection
        self.relation = sql.Identifier(schema, name)
        self.name = name
        self.columns = columns

    @classmethod
    def find(cls, connection: Connection, table: str) -> Table:
        """Return the table that a name stands for in SQL. Raises UndefinedTable when there is none."""
        schema, name = one(
            connection,
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s::regclass",
            (table,),
        )
        with plain_cursor(connection) as cursor:
            rows = cursor.execute(
                "SELECT a.attname, t.typname, a.atttypmod FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
                "WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
                (table,),
            ).fetchall()
        return cls(connection, schema, name, {row[0]: Column(*row) for row in rows})

    def column(self, text: str) -> Column:
        """Return the column that a name stands for in SQL. Raises InvalidParameter when there is none."""
        name = column_name(self.connection, text)
        if name not in self.columns:
            raise InvalidParameter(
                f'table "{self.name}" has no column "{name}"',
                hint=f"Its columns are {', '.join(self.columns)}.",
            )
        return self.columns[name]

    def usual(self, names: Sequence[str]) -> Column | None:
        """Return the column that has the first of some names, in any case; None when it has none of them."""
        found = {name.lower(): column for name, column in self.columns.items()}
        return next((found[name.lower()] for name in names if name.lower() in found), None)

    def text(self, column: Column | None = None, alias: str = "") -> str:
        """Return the table's name as SQL text; with a column, the column's, of an alias."""
        thing = self.relation if column is None else sql.Identifier(alias, column.name)
        return thing.as_string(self.connection)

    def primary_key(self) -> Column:
        """Return the column of the primary key. Raises InvalidParameter unless there is one, of one column."""
        names = one(
            self.connection,
            "SELECT array_agg(a.attname::text) FROM pg_index i JOIN pg_attribute a "
            "ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) WHERE i.indisprimary AND i.indrelid = %s::regclass",
            (self.text(),),
        )[0]
        if names is None or len(names) != 1:
            raise InvalidParameter(
                f'table "{self.name}" has no primary key of one column',
                hint="Name the column that holds the items' ids as key.",
            )
        return self.columns[names[0]]


class ItemTable:
    """A table with a row for each item, and the column with the items' ids."""

    def __init__(self, table: Table, key: Column) -> None:
        self.table = table
        self.key = key

    @classmethod
    def find(cls, connection: Connection, table: str, key: str | None) -> ItemTable:
        """Return a table; without `key`, the column of its primary key is the key. Names follow SQL's rules.

        Raise UndefinedTable when there is no such table, InvalidParameter when it has no such column or no key of one column.
        """
        found = Table.find(connection, table)
        return cls(found, found.primary_key() if key is None else found.column(key))

    def id_type(self, ids: list[Any]) -> str:
        """Return the type that ids, all int or all str, need to be compared with the key: bigint, uuid or text.

        Raise InvalidParameter when they cannot be compared.
        """
        kind = self.key.kind
        whole = isinstance(ids[0], int)
        if kind in _TEXTS:
            return "text"
        if whole and kind in _INTEGERS:
            return "bigint"
        if not whole and kind == "uuid":
            return "uuid"
        raise InvalidParameter(
            f'the ids of the items do not fit column "{self.key.name}" of table "{self.table.name}"',
            detail=f"The column is of type {kind}, the ids are {'integers' if whole else 'strings'} like {ids[0]!r}.",
            hint="Name the column that holds the items' ids as key.",
        )

    def check_vectors(self, column: str, dimensions: int, *, replace: bool) -> None:
        """Raise InvalidParameter when a column is there that cannot take vectors, or, without `replace`, holds some."""
        found = self.table.columns.get(column)
        if found is None:
            return
        if found.kind != "vector" or found.modifier not in (-1, dimensions):
            size = "" if found.modifier == -1 or found.kind != "vector" else f"({found.modifier})"
            raise InvalidParameter(
                f'column "{column}" of table "{self.table.name}" is of type {found.kind}{size}, not vector({dimensions})',
                hint="Drop the column, or name another one.",
            )
        filled = "SELECT EXISTS (SELECT FROM {} WHERE {} IS NOT NULL)"
        statement = sql.SQL(filled).format(self.table.relation, sql.Identifier(column))
        if not replace and one(self.table.connection, statement)[0]:
            raise InvalidParameter(
                f'column "{column}" of table "{self.table.name}" holds vectors already',
                hint="Give replace=True to write others over them, or name another column.",
            )

    def write_vectors(self, column: str, items: sql.Identifier, dimensions: int) -> int:
        """Set the column, which is added when it is missing, to the vectors of a recommender's items; return how many rows have one.

        Rows of items that the recommender does not know become NULL.
        """
        vectors = sql.Identifier(column)
        names = {
            "table": self.table.relation, "items": items, "column": vectors, "key": sql.Identifier(self.key.name),
            "type": sql.SQL(f"vector({int(dimensions)})"),
        }  # fmt: skip
        with plain_cursor(self.table.connection) as cursor:
            if column not in self.table.columns:
                cursor.execute(sql.SQL("ALTER TABLE {table} ADD COLUMN {column} {type}").format(**names))
            clear = (
                "UPDATE {table} AS t SET {column} = NULL WHERE t.{column} IS NOT NULL "
                "AND NOT EXISTS (SELECT FROM {items} AS i WHERE i.id = t.{key})"
            )
            cursor.execute(sql.SQL(clear).format(**names))
            fill = "UPDATE {table} AS t SET {column} = i.embedding FROM {items} AS i WHERE i.id = t.{key}"
            return cursor.execute(sql.SQL(fill).format(**names)).rowcount


def column_name(connection: Connection, text: str) -> str:
    """Return a column's name as the catalogs have it. Raises InvalidParameter for what is not one name."""
    parts = one(connection, "SELECT parse_ident(%s)", (text,))[0]
    if len(parts) != 1:
        raise InvalidParameter(f'invalid column name: "{text}"')
    return str(parts[0])
