"""The tables of a recommender: its users and items with their places in the model, their biases and their vectors.

A recommender is a model and two tables beside it, all three in one schema and named after the model: taste, taste_users, taste_items.
Statements here are PostgreSQL's own, whatever dialect the connection speaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from pythiadb.errors import InvalidParameter
from pythiadb.postgres.plain import one, plain_cursor
from pythiadb.postgres.session import Connection, bind_values, only_statement
from pythiadb.sql import translate

LONGEST_NAME = 57  # bytes: PostgreSQL's 63 less the longest ending of a table's name
ID_TYPES = ("bigint", "uuid", "text")
_COLUMNS = ["id", "idx", "bias", "embedding"]
_COMMENTS = {
    "users": "Users of the recommender {}. Those without an idx were folded in: the model does not know them.",
    "items": "Items of the recommender {}, their biases and vectors.",
}


@dataclass(frozen=True, slots=True)
class Side:
    """What the table of users, or of items, holds: `n` ids of one of ID_TYPES, biases [n], vectors [n, d].

    The place in the arrays is the index in the model.
    """

    id_type: str
    ids: list[Any]
    biases: NDArray[np.float32]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Names:
    """A recommender's schema and the name of its model."""

    schema: str
    model: str

    def table(self, side: str) -> sql.Identifier:
        """Return the table of one side, "users" or "items"."""
        return sql.Identifier(self.schema, f"{self.model}_{side}")


@dataclass(frozen=True, slots=True)
class Scale:
    """What the model's description says: the mean of the ratings, their range, and how the training held weights small.

    What lambda, `regularization`, amounts to for a user with n ratings is lambda · `user_weight` · √n.
    """

    mean: float
    lowest: float
    highest: float
    regularization: float
    user_weight: float
    dropout: float


class RecommenderStore:
    """One recommender, whether it is there already or not. Made by `find` or `place`."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self.connection = connection
        self.names = names

    @classmethod
    def find(cls, connection: Connection, name: str) -> RecommenderStore:
        """Return a recommender that is there. Raises UndefinedObject when there is no such model."""
        row = one(
            connection,
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.oid = pythia.model_relation(%s)",
            (name,),
        )
        return cls(connection, Names(*row))

    @classmethod
    def place(cls, connection: Connection, name: str, *, anywhere: bool = False) -> RecommenderStore:
        """Return the recommender that a name stands for, which need not be there.

        A name without a schema is one of the current schema; with `anywhere`, of the first schema in the search path that has it.
        Raise InvalidName for what is no name in SQL, InvalidParameter for one that leaves no room for the tables' endings.
        """
        schema, model = one(connection, "SELECT pythia.model_name(%s)", (name,))[0]
        if len(model.encode()) > LONGEST_NAME:
            raise InvalidParameter(
                f'recommender name "{model}" is too long',
                detail=f"It may have {LONGEST_NAME} bytes, as its tables are named after it.",
            )
        found = one(
            connection,
            "SELECT max(n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)",
            (name,),
        )
        return cls(connection, Names(found[0] if anywhere and found[0] else schema, model))

    def present(self) -> list[str]:
        """Return which of the model and the two tables are there, by their names."""
        names = self.names
        rows = self._rows(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = %s AND c.relname = ANY (%s) ORDER BY c.relname",
            (names.schema, [names.model, f"{names.model}_users", f"{names.model}_items"]),
        )
        return [name for (name,) in rows]

    def name(self, side: str = "") -> str:
        """Return the name of the model, or of the table of one side, as SQL text with its schema."""
        end = f"_{side}" if side else ""
        names = (self.names.schema, f"{self.names.model}{end}")
        return str(one(self.connection, "SELECT format('%%I.%%I', %s::text, %s::text)", names)[0])

    def beside(self, model: str) -> str:
        """Return the name of another model in the same schema as SQL text."""
        return RecommenderStore(self.connection, Names(self.names.schema, model)).name()

    def hold(self) -> None:
        """Keep a new version of the recommender from coming in until the transaction ends."""
        self._run("LOCK TABLE {} IN ROW EXCLUSIVE MODE", self.names.table("users"))  # write() waits for it

    def write(self, sides: Mapping[str, Side]) -> None:
        """Fill the tables of "users" and "items", after making them or emptying those that are there.

        Others go on reading the old rows until the transaction commits, and wait when they want to write. Raise InvalidParameter
        when a table of that name is none of a recommender's.
        """
        present = self.present()
        for side, content in sides.items():
            if f"{self.names.model}_{side}" in present:
                self._empty(side, content)
            else:
                self._create(side, content)
            self._fill(side, content)

    def scale(self) -> Scale:
        """Return what the model's description says. Raises InvalidParameter for a model that deploy() did not make."""
        row = one(self.connection, f"SELECT * FROM {self.scale_query()} AS f")
        if None in row:
            raise InvalidParameter(
                f'model "{self.names.model}" is not a recommender',
                hint="Deploy what was trained: pythia recommend deploy",
            )
        return Scale(*row)

    def scale_query(self) -> str:
        """Return a subquery of one row with the columns of a Scale, NULL for a model that deploy() did not make."""
        columns = ", ".join(f"(d ->> '{field.name}')::float8 AS {field.name}" for field in fields(Scale))
        return f"(SELECT {columns} FROM (SELECT metadata -> 'modelDescription' AS d FROM {self.name()}) AS m)"

    def items(self, ids: Iterable[Any]) -> list[tuple[int, float, NDArray[np.float32]]]:
        """Return place among `ids`, bias and vector of each item that the recommender knows."""
        statement = (
            "SELECT g.place - 1, i.bias, i.embedding "
            "FROM unnest(%s::text[]::{}[]) WITH ORDINALITY AS g(id, place) JOIN {} AS i ON i.id = g.id ORDER BY g.place"
        )
        asked = [str(item) for item in ids]
        return self._rows(statement, (asked,), sql.SQL(self.id_type("items")), self.names.table("items"))

    def put_user(self, user: Any, bias: float, vector: NDArray[np.float32]) -> bool:
        """Write a user that the model does not know, or write him anew; return False when the model knows him."""
        statement = (
            "INSERT INTO {} AS u (id, bias, embedding) VALUES (%s, %s, %s) "
            "ON CONFLICT (id) DO UPDATE SET bias = excluded.bias, embedding = excluded.embedding WHERE u.idx IS NULL"
        )
        return self._run(statement, self.names.table("users"), values=(str(user), bias, vector)) == 1

    def query(self, text: str, values: Mapping[str, Any]) -> list[Any]:
        """Return the rows of a query in PostgreSQL's dialect of AI SQL, with binds like :name."""
        catalog = self.connection.catalog
        translation = translate(text, dialect="postgres", catalog=catalog, with_parameters=True)
        bound = bind_values(translation, values)
        with plain_cursor(self.connection) as cursor:
            # Not prepared: a new version of the recommender may have ids of another type.
            return cursor.execute(only_statement(translation), bound, prepare=False).fetchall()

    def id_type(self, side: str) -> str:
        """Return the type of a table's ids."""
        return self._column_types(side)["id"]

    def _create(self, side: str, content: Side) -> None:
        columns = "id {} PRIMARY KEY, idx integer UNIQUE, bias real NOT NULL, embedding {} NOT NULL"
        table = self.names.table(side)
        kinds = sql.SQL(content.id_type), _vector_type(content)
        self._run(f"CREATE TABLE {{}} ({columns})", table, *kinds)
        about = sql.Literal(_COMMENTS[side].format(self.names.model))
        self._run("COMMENT ON TABLE {} IS {}", table, about)
        self._run("COMMENT ON COLUMN {}.idx IS 'The index that the model knows it by.'", table)

    def _empty(self, side: str, content: Side) -> None:
        """Delete all rows, and let the columns take the new ones. Rows that are deleted, unlike a truncated table, stay for others."""
        types = self._column_types(side)
        if list(types) != _COLUMNS:
            raise InvalidParameter(
                f'table "{self.names.model}_{side}" is not one of a recommender',
                detail=f"Its columns are {', '.join(types)}.",
                hint="Deploy under another name.",
            )
        self._run("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", self.names.table(side))
        self._run("DELETE FROM {}", self.names.table(side))
        wanted = {"id": sql.SQL(content.id_type), "embedding": _vector_type(content)}
        for column, kind in wanted.items():
            if types[column] != kind.as_string(self.connection):
                # The table is empty to this transaction, so there is nothing to convert.
                self._run(
                    "ALTER TABLE {} ALTER COLUMN {} TYPE {kind} USING NULL::{kind}",
                    self.names.table(side), sql.Identifier(column), kind=kind,
                )  # fmt: skip

    def _fill(self, side: str, content: Side) -> None:
        table = self.names.table(side)
        statement = sql.SQL("COPY {} (id, idx, bias, embedding) FROM STDIN (FORMAT binary)").format(table)
        with plain_cursor(self.connection) as cursor, cursor.copy(statement) as copy:
            copy.set_types([content.id_type, "integer", "real", "vector"])
            for row in _rows_of(content):
                copy.write_row(row)
        self._run("ANALYZE {}", table)

    def _column_types(self, side: str) -> dict[str, str]:
        """Return the types of a table's columns, without the schema of the type."""
        rows = self._rows(
            "SELECT a.attname, regexp_replace(format_type(a.atttypid, a.atttypmod), '^.*\\.', '') FROM pg_attribute a "
            "WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            (self.names.table(side).as_string(self.connection),),
        )
        return dict(rows)

    def _rows(self, statement: str, values: tuple[Any, ...], *parts: sql.Composable) -> list[Any]:
        with plain_cursor(self.connection) as cursor:
            return cursor.execute(sql.SQL(statement).format(*parts), values).fetchall()

    def _run(
        self,
        statement: str,
        *parts: sql.Composable,
        values: tuple[Any, ...] | None = None,
        **named: sql.Composable,
    ) -> int:
        with plain_cursor(self.connection) as cursor:
            return cursor.execute(sql.SQL(statement).format(*parts, **named), values).rowcount


def _rows_of(content: Side) -> Iterator[tuple[Any, ...]]:
    ids = map(UUID, content.ids) if content.id_type == "uuid" else content.ids
    yield from zip(ids, range(len(content.ids)), content.biases.tolist(), content.vectors, strict=True)


def _vector_type(content: Side) -> sql.SQL:
    return sql.SQL(f"vector({int(content.vectors.shape[1])})")
