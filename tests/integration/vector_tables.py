"""Vector indexes for tests that look at one part at a time: defined, and left alone by the engine's keeper."""

from __future__ import annotations

from typing import Any

import psycopg

JOURNALED = """
CREATE TABLE docs (id bigint PRIMARY KEY, v vector(2), kind text, n int DEFAULT 0);
INSERT INTO docs VALUES (1, '[1,0]', 'a'), (2, '[2,0]', 'a'), (3, '[3,0]', 'b'), (4, NULL, 'b');
"""
TURNING = """
CREATE FUNCTION turn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.n = 7 THEN NEW.v := '[0,7]'; END IF; RETURN NEW; END $$;
CREATE TRIGGER turn BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION turn()
"""
DOCS = "CREATE TABLE docs (id bigint PRIMARY KEY, v vector(2), kind text, n int, j jsonb, b bit(16), s sparsevec(5))"


def rows(db: psycopg.Connection[Any], query: str, *values: Any) -> list[tuple[Any, ...]]:
    return db.execute(query.encode(), values or None).fetchall()


def one(db: psycopg.Connection[Any], query: str, *values: Any) -> Any:
    (row,) = rows(db, query, *values)
    return row[0]


def define(db: psycopg.Connection[Any], name: str, table: str, column: str = "v", **options: Any) -> int:
    """Define an index that the keeper does not build: what nobody has asked for again after a failure stays as it is."""
    arguments = "".join(f", {key} => %s" for key in options)
    with db.transaction():
        index_id = one(
            db,
            f"SELECT pythia.define_vector_index(%s, %s, %s{arguments})",
            name,
            table,
            column,
            *options.values(),
        )
        db.execute("UPDATE pythia.vector_index SET status = 'FAILED' WHERE id = %s", (index_id,))
    return int(index_id)


def definition(db: psycopg.Connection[Any], index_id: int, columns: str) -> Any:
    (row,) = rows(db, f"SELECT {columns} FROM pythia.vector_index WHERE id = %s", index_id)
    return row


def journal(db: psycopg.Connection[Any], index_id: int) -> list[str]:
    """The keys in an index's journal, in order."""
    found = rows(db, f"SELECT key::text FROM vecsys.journal_{index_id} ORDER BY length(key::text), key")
    return [key for (key,) in found]


def clear(db: psycopg.Connection[Any], index_id: int) -> None:
    db.execute(f"DELETE FROM vecsys.journal_{index_id}".encode())


def fingerprint(db: psycopg.Connection[Any], index_id: int) -> str | None:
    found: str | None = one(db, "SELECT pythia.vector_fingerprint(%s)", index_id)
    return found


def only_named_columns_count(db: psycopg.Connection[Any], index_id: int) -> bool:
    """Whether an UPDATE that names no column of the index passes its trigger by."""
    return bool(
        one(
            db,
            "SELECT bool_and(cardinality(t.tgattr::int2[]) > 0) FROM pg_trigger t WHERE t.tgname = %s",
            f"vector_index_{index_id}_update",
        )
    )
