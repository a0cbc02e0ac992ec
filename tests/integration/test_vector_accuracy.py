"""Accuracy on users' own queries: captured, measured with, reported; and how often an index is used."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from background import wait_until
from psycopg.types.json import Jsonb

import pythiadb
from pythiadb.engine.measuring import FEWEST_CAPTURED
from pythiadb.postgres import cluster
from pythiadb.postgres.query_store import QueryStore
from pythiadb.postgres.server import Server
from tests.integration.databases import own_database
from tests.integration.vector_tables import one, rows

ROWS, DIMENSIONS = 6_000, 16
SEARCH = "SELECT id FROM items ORDER BY VECTOR_DISTANCE(v, :q, EUCLIDEAN) FETCH APPROX FIRST 10 ROWS ONLY"
REPORT = "SELECT dbms_vector.index_accuracy_report(NULL, 'ITEMS_V')"
DAYS = 2
HANDED_ON_SECONDS = 4  # by which the keeper has what a worker noted


def vectors(count: int, seed: int) -> list[str]:
    """Texts of vectors around centres, as embeddings are."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(1).standard_normal((100, DIMENSIONS)) * 1.5
    made = centres[draw.integers(0, 100, count)] + draw.standard_normal((count, DIMENSIONS))
    return [str(row) for row in made.round(3).tolist()]


@pytest.fixture(scope="module")
def measured() -> Iterator[Path]:
    """The directory of a database whose engine measures in a few seconds and keeps 600 queries, with an index over `items`."""
    settings = {"index_measure_seconds": 2, "index_captured_queries": 600, "index_captured_days": DAYS}
    with own_database(**settings) as (shop, db):
        db.execute(f"CREATE TABLE items (id int PRIMARY KEY, v vector({DIMENSIONS}))".encode())
        db.cursor().executemany("INSERT INTO items VALUES (%s, %s)", list(enumerate(vectors(ROWS, 2))))
        db.execute(
            "CREATE VECTOR INDEX items_v ON items (v) ORGANIZATION NEIGHBOR PARTITIONS DISTANCE EUCLIDEAN WITH TARGET ACCURACY 90"
        )
        yield shop


@pytest.fixture
def db(measured: Path) -> Iterator[pythiadb.Connection]:
    with pythiadb.connect(measured, autocommit=True) as connection:
        connection.execute("SET search_path = public, pythia")
        wait_until(lambda: measured_with(connection) is not None)
        connection.execute("DELETE FROM pythia.vector_query")
        yield connection
        connection.execute("RESET ROLE")


@pytest.fixture
def at_rest(db: pythiadb.Connection) -> pythiadb.Connection:
    """The same, after all that earlier tests have searched for is counted: that comes seconds later."""
    before = -1
    while (now := used(db)) != before:
        before = now
        time.sleep(HANDED_ON_SECONDS)
    db.execute("DELETE FROM pythia.vector_query")
    return db


def search(db: pythiadb.Connection, count: int, seed: int, clause: str = "") -> None:
    for query in vectors(count, seed):
        db.execute((SEARCH + clause).encode(), {"q": query})


def captured(db: pythiadb.Connection, columns: str = "count(*)") -> Any:
    return one(db, f"SELECT {columns} FROM pythia.vector_query")


def used(db: pythiadb.Connection) -> int:
    return int(one(db, "SELECT index_used_count FROM pythia.v$vector_index"))


def measured_with(db: pythiadb.Connection) -> str | None:
    found: str | None = one(db, "SELECT measured_with FROM pythia.vector_index_status")
    return found


def test_queries_are_captured_and_counted(at_rest: pythiadb.Connection) -> None:
    db = at_rest
    before = used(db)
    search(db, 20, seed=3)
    search(db, 5, seed=4, clause=" WITH TARGET ACCURACY 80")
    db.execute(f"EXPLAIN {SEARCH}".encode(), {"q": vectors(1, 5)[0]})
    db.execute(SEARCH.replace("APPROX", "EXACT").encode(), {"q": vectors(1, 5)[0]})
    wait_until(lambda: used(db) == before + 25)
    assert sorted(rows(db, "SELECT query::vector::text, k, target FROM pythia.vector_query")) == sorted(
        (one(db, "SELECT %s::vector::text", query), 10, target)
        for seed, count, target in ((3, 20, 90), (4, 5, 80))
        for query in vectors(count, seed)
    )
    assert captured(db, "bool_and(captured_at BETWEEN now() - interval '1 minute' AND now())")
    assert one(db, "SELECT index_used_count FROM pythia.v$vector_partitions_index") == before + 25
    assert rows(
        db, "SELECT used_count, last_used_at > now() - interval '1 minute' FROM pythia.vector_index_status"
    ) == [(before + 25, True)]


def test_measuring_is_no_use(at_rest: pythiadb.Connection) -> None:
    db = at_rest
    search(db, 3, seed=6)
    wait_until(lambda: captured(db) == 3)
    before = used(db)
    for parameters in ("10", "10, 80", "10, query_param => '{\"accuracy\": 70}'"):
        db.execute(
            f"SELECT dbms_vector.index_accuracy_query(NULL, 'ITEMS_V', %s, {parameters})".encode(),
            (vectors(1, 7)[0],),
        )
    assert one(db, REPORT) is not None
    search(db, 1, seed=8)
    wait_until(lambda: used(db) > before)
    assert (used(db), captured(db)) == (before + 1, 4)


def test_an_accuracy_may_be_given_as_a_parameter(db: pythiadb.Connection) -> None:
    assert "than the Target Accuracy requested (70%)" in one(
        db,
        "SELECT dbms_vector.index_accuracy_query(NULL, 'ITEMS_V', %s, 10, query_param => '{\"accuracy\": 70}')",
        vectors(1, 7)[0],
    )


def test_captured_queries_are_pruned_by_age_and_number(db: pythiadb.Connection) -> None:
    """The oldest go, then those of the highest ranks."""
    db.execute(
        "INSERT INTO pythia.vector_query SELECT i.id, '[1]', 16, 10, 90, n / 1000.0, now() - CASE WHEN n <= 100 THEN interval '3 days' "
        "ELSE interval '1 day' END FROM pythia.vector_index i, generate_series(1, 1000) AS n"
    )
    search(db, 1, seed=9)
    wait_until(lambda: captured(db) == 600)
    assert captured(db, "min(captured_at) > now() - interval '2 days'")
    assert 0.698 <= captured(db, "max(rank)") <= 0.7


def test_queries_that_repeat_are_not_measured_with_again(db: pythiadb.Connection) -> None:
    number, store = one(db, "SELECT id FROM pythia.vector_index"), QueryStore(db, 600, DAYS)
    for age in ("2 hours", "1 hour", "1 minute"):
        capture(db, 90, age, 10, seed=12)
    assert store.is_new(number, 0, fewest=10)
    assert not store.is_new(number, 0, fewest=11)
    assert not store.is_new(number, time.time() - 5400, fewest=10)
    capture(db, 90, "1 minute", 10, seed=13)
    assert store.is_new(number, time.time() - 5400, fewest=20)


def test_only_the_owner_of_the_schema_reads_captured_queries(db: pythiadb.Connection) -> None:
    role = f"reader_{uuid.uuid4().hex[:8]}"
    db.execute(
        f"CREATE ROLE {role}; GRANT SELECT ON items TO {role}; GRANT pg_monitor TO {role}; SET ROLE {role}".encode()
    )
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute("SELECT FROM pythia.vector_query")
        assert used(db) >= 0
    finally:
        db.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_with_enough_captured_queries_they_are_measured_with(db: pythiadb.Connection) -> None:
    before = one(db, "SELECT measured_at FROM pythia.vector_index_status")
    search(db, FEWEST_CAPTURED + 20, seed=10)
    wait_until(
        lambda: (
            measured_with(db) == "captured"
            and one(db, "SELECT measured_at FROM pythia.vector_index_status") > before
        ),
        seconds=60,
    )
    (found,) = rows(db, "SELECT measured_queries, achieved_accuracy FROM pythia.vector_index_status")
    assert found[0] in range(FEWEST_CAPTURED // 2, 302)
    assert found[1] >= 88
    judged = rows(db, "SELECT k, target, mean FROM pythia.vector_index_accuracy WHERE filter = 'none'")
    assert len(judged) == 21
    assert all(100 * mean >= target - 4 for _, target, mean in judged)


# Reports --------------------------------------------------------------------------------------------------------------------

SHOWN = (
    "SELECT owner_name, index_name, index_type, min_target_accuracy, max_target_accuracy, num_vectors FROM "
    "pythia.dba_vector_index_accuracy_report WHERE task_id = %s ORDER BY min_target_accuracy"
)


def capture(db: pythiadb.Connection, target: int | None, age: str, count: int, seed: int = 11) -> None:
    """Put queries among the captured ones, as if they had come some time ago."""
    db.cursor().executemany(
        f"INSERT INTO pythia.vector_query SELECT id, %s, {DIMENSIONS}, 10, %s, random(), now() - %s::interval FROM pythia.vector_index",
        [(query, target, age) for query in vectors(count, seed)],
    )


def test_a_report_by_ranges_of_the_target(db: pythiadb.Connection) -> None:
    for target, count in ((1, 2), (10, 3), (81, 4), (90, 5), (91, 6), (100, 7), (None, 8)):
        capture(db, target, "1 hour", count)
    task = one(db, REPORT)
    assert rows(db, SHOWN, task) == [
        ("POSTGRES", "ITEMS_V", "IVF", 1, 10, 5),
        ("POSTGRES", "ITEMS_V", "IVF", 81, 90, 9),
        ("POSTGRES", "ITEMS_V", "IVF", 91, 100, 13),
    ]
    achieved = rows(
        db,
        "SELECT min_achieved_accuracy, median_achieved_accuracy, max_achieved_accuracy, task_time > localtimestamp - interval '1 minute' "
        "FROM pythia.dba_vector_index_accuracy_report WHERE task_id = %s",
        task,
    )
    assert all(0 <= least <= median <= most <= 100 and recent for least, median, most, recent in achieved)
    assert one(db, REPORT) == task + 1


def test_the_reported_accuracy_is_that_of_the_searches(db: pythiadb.Connection) -> None:
    """Against the same searches compared with the table itself."""
    capture(db, 1, "1 hour", 30)
    task = one(db, REPORT)
    index_id = one(db, "SELECT id FROM pythia.vector_index")
    shares = [
        float(
            one(
                db, "SELECT pythia.measured_accuracy(%s, %s, 10, %s)", index_id, query, Jsonb({"accuracy": 1})
            )
        )
        for query in vectors(30, 11)
    ]
    (found,) = rows(
        db,
        "SELECT min_achieved_accuracy, median_achieved_accuracy, max_achieved_accuracy FROM pythia.dba_vector_index_accuracy_report "
        "WHERE task_id = %s",
        task,
    )
    assert [float(number) for number in found] == pytest.approx(
        [min(shares), np.median(shares), max(shares)], abs=0.1
    )


def test_a_report_is_about_a_time(db: pythiadb.Connection) -> None:
    for age, count in (("30 hours", 1), ("20 hours", 2), ("2 hours", 4)):
        capture(db, 90, age, count)
    call = "SELECT dbms_vector.index_accuracy_report('public', 'items_v', {})"
    for times, count in (
        ("NULL, NULL", 6),
        ("now() - interval '40 hours'", 7),
        ("NULL, now() - interval '10 hours'", 2),
        ("now() - interval '40 hours', now() - interval '25 hours'", 1),
    ):
        task = one(db, call.format(times))
        assert (
            one(db, "SELECT num_vectors FROM pythia.vector_accuracy_report WHERE task_id = %s", task) == count
        )


def heard(db: pythiadb.Connection, question: str) -> tuple[Any, list[str]]:
    """Return an answer and the warnings that came with it."""
    notices: list[str] = []

    def hear(notice: psycopg.errors.Diagnostic) -> None:
        notices.append(str(notice.message_primary))

    db.add_notice_handler(hear)
    try:
        return one(db, question), notices
    finally:
        db.remove_notice_handler(hear)


def test_a_report_that_fails_is_null_and_says_why(db: pythiadb.Connection) -> None:
    answer, notices = heard(db, REPORT)
    assert answer is None
    assert "no query vectors were captured between" in notices[0]
    capture(db, 90, "1 hour", 1)
    with db.transaction(force_rollback=True):
        db.execute("DELETE FROM pythia.vector_index_version")
        answer, notices = heard(db, REPORT)
    assert (answer, notices) == (None, ["no accuracy report: the index has no version yet"])
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="is later than end_time"):
        db.execute(
            "SELECT dbms_vector.index_accuracy_report(NULL, 'items_v', now(), now() - interval '1 hour')"
        )
    with pytest.raises(psycopg.errors.UndefinedObject, match='vector index "nowhere.items_v" does not exist'):
        db.execute("SELECT dbms_vector.index_accuracy_report('nowhere', 'items_v')")


def test_reports_are_for_those_who_may_read_the_table(db: pythiadb.Connection) -> None:
    capture(db, 90, "1 hour", 3)
    role = f"reader_{uuid.uuid4().hex[:8]}"
    task = one(db, REPORT)
    index_id = one(db, "SELECT id FROM pythia.vector_index")
    db.execute(f"CREATE ROLE {role}; SET ROLE {role}".encode())
    try:
        assert rows(db, SHOWN, task) == []
        with pytest.raises(psycopg.errors.UndefinedObject):
            db.execute(REPORT.encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for vector index"):
            db.execute("SELECT pythia.report_accuracy(%s, NULL, NULL)", (index_id,))
        db.execute(f"RESET ROLE; GRANT SELECT ON items TO {role}; SET ROLE {role}".encode())
        assert len(rows(db, SHOWN, task)) == 1
        assert one(db, REPORT) == task + 1
        with db.transaction(force_rollback=True):
            db.execute(f"RESET ROLE; ALTER TABLE items ENABLE ROW LEVEL SECURITY; SET ROLE {role}".encode())
            assert heard(db, REPORT) == (None, ["no accuracy report: row-level security applies"])
    finally:
        db.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_old_reports_go(db: pythiadb.Connection) -> None:
    capture(db, 90, "1 hour", 1)
    db.execute(
        "INSERT INTO pythia.vector_accuracy_report SELECT -n, i.id, now(), 81, 90, 1, 1, 1, 1 FROM pythia.vector_index i, generate_series(1, 200) n"
    )
    one(db, REPORT)
    assert one(db, "SELECT count(DISTINCT task_id) FROM pythia.vector_accuracy_report") == 100


def test_no_queries_are_captured_where_that_is_switched_off(db: pythiadb.Connection) -> None:
    """And those that were go. Searches are counted still."""
    capture(db, 90, "1 hour", 5)
    assert db.server is not None
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHIA_ENGINE_INDEX_CAPTURED_QUERIES", "0")
        restart_engine(db.server)
        wait_until(lambda: captured(db) == 0)
        before = used(db)
        search(db, 3, seed=12)
        wait_until(lambda: used(db) >= before + 3)
        assert captured(db) == 0
    restart_engine(db.server)


def restart_engine(server: Server) -> None:
    cluster.stop_engine(server.layout)
    cluster.ensure_running(server)
