"""Rows that change while an index is measured: the measurement does not speak for them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from background import wait_until

import pythiadb
from pythiadb.index import container
from pythiadb.postgres.layout import Layout
from tests.integration.databases import own_database
from tests.integration.vector_tables import one

ROWS, MEASURE_SECONDS = 6_000, 4
FACTS = "SELECT facts FROM pythia.vector_index_version ORDER BY version DESC LIMIT 1"
RANDOM = (
    "(SELECT array_agg(random()) FROM generate_series(1, 16) WHERE {row} > 0)::vector"  # another for each row
)


def facts(db: pythiadb.Connection) -> dict[str, Any]:
    found: dict[str, Any] = one(db, FACTS)
    return found


def change(db: pythiadb.Connection, first: int, share: float) -> None:
    last = first + int(share * ROWS)
    db.execute(f"UPDATE items SET v = {RANDOM.format(row='id')} WHERE id >= {first} AND id < {last}".encode())


@contextmanager
def measured_index() -> Iterator[tuple[Path, pythiadb.Connection]]:
    """A database whose table `items` has a measured index."""
    with own_database(index_measure_seconds=MEASURE_SECONDS) as (shop, db):
        db.execute("SET search_path = public, pythia")
        db.execute(
            f"CREATE TABLE items AS SELECT n AS id, {RANDOM.format(row='n')} AS v FROM generate_series(1, {ROWS}) n".encode()
        )
        db.execute("ALTER TABLE items ADD PRIMARY KEY (id)")
        db.execute(
            "CREATE VECTOR INDEX items_v ON items (v) ORGANIZATION NEIGHBOR PARTITIONS DISTANCE EUCLIDEAN"
        )
        wait_until(lambda: facts(db).get("measured_rows") == ROWS)
        yield shop, db


def test_changes_during_a_measurement_lead_to_another() -> None:
    with measured_index() as (_, db):
        change(db, 1, 0.12)
        wait_until(lambda: facts(db)["changes"] > 0.1 * ROWS)
        time.sleep(MEASURE_SECONDS / 4)  # it is being measured
        change(db, ROWS // 2, 0.12)
        changed = time.time()
        wait_until(lambda: facts(db)["measured_at"] > changed, seconds=60)


def test_a_merge_that_changes_the_structure_is_measured_before_it_is_used() -> None:
    with measured_index() as (shop, db):
        before = facts(db)["measured_at"]
        old = curve(shop, db)
        db.execute(
            f"INSERT INTO items SELECT n, {RANDOM.format(row='n')} FROM generate_series({ROWS + 1}, {2 * ROWS}) n".encode()
        )
        wait_until(lambda: is_one_segment(db, 2 * ROWS), seconds=60)
        assert facts(db)["measured_at"] == before  # measuring in full comes later, and takes seconds
        new = curve(shop, db)
        assert new != old
        assert new["conditions"]["organization"] == "partitions"
        assert new["points"]["none"]["10"]


def is_one_segment(db: pythiadb.Connection, rows: int) -> bool:
    return [segment["rows"] for segment in facts(db)["segments"]] == [rows]


def curve(shop: Path, db: pythiadb.Connection) -> dict[str, Any]:
    """What the newest version knows of its accuracy."""
    token = one(db, "SELECT token FROM pythia.vector_index_version ORDER BY version DESC LIMIT 1")
    manifest = container.read_manifest(
        Layout(shop).engine / "indexes" / "versions" / str(token), verify=False
    )
    found: dict[str, Any] = manifest["curve"]
    return found
