"""pgvector's own index in the same server, tuned as its guide says, as what the searches are compared with.

The guide's advice that is followed: the table is loaded by COPY before the index is made, maintenance_work_mem holds the whole
graph, parallel workers build it, everything is in the server's memory, and ef_search is raised to the recall that is asked for.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg

from bench.search.clients import Way
from bench.search.data import Vectors

EF_SEARCH = (40, 80, 120, 200, 300, 400, 600, 800)
MEMORY = "2GB"
CHUNK = 10_000
Connection = psycopg.Connection[Any]


def fill(db: Connection, table: str, vectors: Vectors, columns: dict[str, tuple[str, list[Any]]]) -> None:
    """Make a table of id, more columns (name -> type and values) and v, by COPY."""
    definitions = "".join(f"{name} {kind}, " for name, (kind, _) in columns.items())
    db.execute(f"CREATE TABLE {table} (id bigint, {definitions} v vector({vectors.shape[1]}))")
    names = "".join(f"{name}, " for name in columns)
    with db.cursor() as cursor, cursor.copy(f"COPY {table} (id, {names} v) FROM STDIN") as copy:
        for n, vector in enumerate(vectors):
            copy.write_row((n, *(values[n] for _, values in columns.values()), vector))
    db.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (id)")
    db.execute(f"VACUUM (FREEZE, ANALYZE) {table}")


def build(
    db: Connection, table: str, m: int = 16, ef_construction: int = 64, workers: int | None = None
) -> float:
    """Make the HNSW index for cosine distance; return the seconds. Without `workers`, as many as the server allows."""
    db.execute(f"SET maintenance_work_mem = '{MEMORY}'")
    if workers is not None:
        db.execute(f"SET max_parallel_maintenance_workers = {workers}")
    started = time.perf_counter()
    db.execute(
        f"CREATE INDEX {table}_hnsw ON {table} USING hnsw (v vector_cosine_ops) "
        f"WITH (m = {m}, ef_construction = {ef_construction})"
    )
    seconds = time.perf_counter() - started
    db.execute("RESET maintenance_work_mem")
    db.execute("RESET max_parallel_maintenance_workers")
    return seconds


def warm(db: Connection, table: str) -> None:
    """Bring the table and its index into the server's memory."""
    db.execute("CREATE EXTENSION IF NOT EXISTS pg_prewarm")
    for relation in (table, f"{table}_hnsw"):
        db.execute("SELECT pg_prewarm(oid) FROM pg_class WHERE relname = %s", (relation,))


def nearest(table: str, ef_search: int, k: int = 10) -> Way:
    """Ask for the nearest rows through the index."""
    return Way(
        f"pgvector HNSW ef_search={ef_search}",
        f"SELECT id FROM {table} ORDER BY v <=> %s LIMIT {k}",
        (("hnsw.ef_search", str(ef_search)), ("enable_seqscan", "off")),
    )


def no_search(k: int = 10) -> Way:
    """Bring a vector to the server and as many rows back as an answer has, and nothing else: what no search can go below."""
    return Way("no search", f"SELECT n FROM generate_series(1, {k}) n WHERE %s::vector IS NOT NULL")


def scan(table: str, operator: str = "<=>", workers: int = 0, k: int = 10) -> Way:
    """Ask for the exact answer, which reads the whole table; `<#>` is the faster operator for unit vectors."""
    return Way(
        f"pgvector sequential scan {operator}" + (f", {workers} more workers" if workers else ""),
        f"SELECT id FROM {table} ORDER BY v {operator} %s LIMIT {k}",
        (
            ("enable_indexscan", "off"),
            ("max_parallel_workers_per_gather", str(workers)),
            ("jit", "off"),
        ),
    )
