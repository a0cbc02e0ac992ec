"""The fast way of scoring numbers, as arrays found by ctid: right for every kind of table, or not taken."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import scoring_models
from scoring_models import Made
from scoring_tables import FAST, FIELDS

import pythiadb

COUNT = 300
ROWS = scoring_models.features(seed=9, count=COUNT)


@pytest.fixture
def other(sdb: pythiadb.Connection) -> Iterator[psycopg.Connection[Any]]:
    """Another session with the same search_path, which the first does not hear of."""
    path = sdb.execute("SHOW search_path").fetchone()
    assert path is not None
    with psycopg.connect(sdb.info.dsn, autocommit=True) as connection:
        connection.execute(f"SET search_path = {path[0]}".encode())
        yield connection


def fill(db: psycopg.Connection[Any], table: str = "t", start: int = 0, end: int = COUNT) -> None:
    """Add rows with their numbers."""
    with (
        db.cursor() as cursor,
        cursor.copy(f"COPY {table} (id, age, visits, spent, days) FROM STDIN") as copy,
    ):
        for number in range(start, end):
            age, visits, spent, days = ROWS[number].tolist()
            copy.write_row([number, int(age), int(visits), spent, days])


def create(db: psycopg.Connection[Any], table: str = "t", definition: str = "") -> None:
    db.execute(definition.encode() or f"CREATE TABLE {table} (id int, {FIELDS})".encode())
    fill(db, table)


@pytest.fixture(scope="module")
def labels(made: dict[str, Made]) -> list[str]:
    probabilities = made["forest"].bare(ROWS, "probabilities")
    return list(made["forest"].model.classes_[probabilities.argmax(axis=1)])


PLAIN = "SELECT id, PREDICTION(forest USING *) FROM t"


def check(
    db: pythiadb.Connection, labels: list[str], statement: str = PLAIN, fast: bool | None = True
) -> None:
    """Assert that a statement gives each row its label, in the fast way or not."""
    if fast is not None:
        assert (FAST in db.translate(statement).batched[0]) == fast
    rows = db.execute(statement.encode()).fetchall()
    assert sorted(rows) == list(enumerate(labels))


# Kinds of tables ----------------------------------------------------------------------------------------------------------

TABLES = {
    "plain": f"CREATE TABLE t (id int, {FIELDS})",
    "unlogged": f"CREATE UNLOGGED TABLE t (id int, {FIELDS})",
    "temporary": f"CREATE TEMPORARY TABLE t (id int, {FIELDS})",
    "columns in other cases": 'CREATE TABLE t (id int, "Age" int, "VISITS" bigint, spent numeric, "dayS" float8)',
    "partitions": f"CREATE TABLE t (id int, {FIELDS}) PARTITION BY RANGE (id); "
    "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100); CREATE TABLE t2 PARTITION OF t DEFAULT",
    "partitions of partitions": f"CREATE TABLE t (id int, {FIELDS}) PARTITION BY HASH (id); "
    "CREATE TABLE t1 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0); "
    "CREATE TABLE t2 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1) PARTITION BY LIST (age); "
    "CREATE TABLE t3 PARTITION OF t2 DEFAULT",
    "one partition": f"CREATE TABLE s (id int, {FIELDS}) PARTITION BY RANGE (id); CREATE TABLE t PARTITION OF s DEFAULT",
    "a column that was dropped": f"CREATE TABLE t (gone text, id int, {FIELDS}); ALTER TABLE t DROP COLUMN gone",
    "long rows": f"CREATE TABLE t (id int, {FIELDS}, note text DEFAULT repeat('x', 1500))",
    "arrays and documents": f"CREATE TABLE t (id int, {FIELDS}, a int[] DEFAULT '{{1,2}}', j jsonb DEFAULT '{{}}')",
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("analyzed", [False, True])
def test_tables(sdb: pythiadb.Connection, labels: list[str], kind: str, analyzed: bool) -> None:
    """The fast way is taken, and every row has its own answer."""
    sdb.execute(TABLES[kind].encode())
    names = '"Age", "VISITS", spent, "dayS"' if "cases" in kind else "age, visits, spent, days"
    rows = [(n, int(r[0]), int(r[1]), float(r[2]), float(r[3])) for n, r in enumerate(ROWS)]
    with sdb.cursor() as cursor:
        cursor.executemany(f"INSERT INTO t (id, {names}) VALUES (%s, %s, %s, %s, %s)", rows)
    if analyzed:
        sdb.execute("ANALYZE t")
    check(sdb, labels)
    check(sdb, labels, PLAIN + " WHERE id >= 0")
    check(sdb, labels, "SELECT id, PREDICTION(forest USING x.*) FROM t AS x")
    check(sdb, labels, "SELECT x.id, x.l FROM (SELECT t.*, PREDICTION(forest USING *) AS l FROM t) x")


def test_inheriting_tables(sdb: pythiadb.Connection, labels: list[str]) -> None:
    """Rows of a parent and its children, which have the same places in their files."""
    sdb.execute(f"CREATE TABLE t (id int, {FIELDS})".encode())
    sdb.execute("CREATE TABLE child (extra text) INHERITS (t)")
    fill(sdb, "t", 0, 120)
    fill(sdb, "child", 120, COUNT)
    check(sdb, labels)
    check(sdb, labels, PLAIN + " WHERE id >= 0")
    rows = sdb.execute("SELECT id, PREDICTION(forest USING *) FROM ONLY t").fetchall()
    assert sorted(rows) == list(enumerate(labels[:120]))


def test_views_and_foreign_tables_are_scored_by_input(
    sdb: pythiadb.Connection, labels: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Their rows have no places of their own."""
    create(sdb, "base")
    sdb.execute("CREATE VIEW t AS SELECT * FROM base")
    check(sdb, labels, fast=False)
    sdb.execute("CREATE VIEW v AS SELECT * FROM base WHERE id < 9 WITH CHECK OPTION")
    assert sorted(sdb.execute("SELECT id, PREDICTION(forest USING *) FROM v").fetchall()) == list(
        enumerate(labels[:9])
    )
    sdb.execute("CREATE MATERIALIZED VIEW seen AS SELECT * FROM base")
    check(sdb, labels, PLAIN.replace("FROM t", "FROM seen"), fast=True)
    check(
        sdb,
        labels,
        "WITH base AS (SELECT * FROM base) SELECT id, PREDICTION(forest USING *) FROM base",
        fast=False,
    )
    check(sdb, labels, "SELECT id, PREDICTION(forest USING *) FROM (SELECT * FROM base) t", fast=False)
    check(sdb, labels, "SELECT id, PREDICTION(forest USING *) FROM base TABLESAMPLE SYSTEM (100)", fast=False)
    check(
        sdb,
        labels,
        f"SELECT id, PREDICTION(forest USING *) FROM json_to_recordset((SELECT json_agg(b) FROM base b)) AS t (id int, {FIELDS})",
        fast=False,
    )


def test_joined_tables(sdb: pythiadb.Connection, labels: list[str]) -> None:
    """Rows find their answers by their numbers, but where they may be left out as a whole."""
    create(sdb, "t")
    create(sdb, "u")
    check(sdb, labels, "SELECT t.id, PREDICTION(forest USING t.*) FROM t JOIN u USING (id)")
    check(sdb, labels, "SELECT t.id, PREDICTION(forest USING t.*) FROM t, u WHERE t.id = u.id")
    check(
        sdb,
        labels,
        "SELECT u.id, PREDICTION(forest USING t.*) FROM t RIGHT JOIN u ON u.id = t.id",
        fast=False,
    )
    check(
        sdb,
        labels,
        "SELECT id, PREDICTION(forest USING *) FROM t WHERE EXISTS (SELECT FROM u WHERE u.id = t.id)",
    )
    check(sdb, labels, "SELECT id, PREDICTION(forest USING *) FROM t WHERE id IN (SELECT id FROM t)")


def test_row_level_security(sdb: pythiadb.Connection, labels: list[str], shop: Path, models: str) -> None:
    """A session sees answers for the rows that it may see, and for no others."""
    create(sdb)
    role = f"reader_{uuid.uuid4().hex[:8]}"
    schema, path = sdb.execute("SELECT current_schema(), current_setting('search_path')").fetchone() or (
        "",
        "",
    )
    sdb.execute(f"CREATE ROLE {role}".encode())
    sdb.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY")
    sdb.execute("CREATE POLICY odd ON t FOR SELECT USING (id % 2 = 1)")
    for grant in (f"USAGE ON SCHEMA {schema}, {models}", f"SELECT ON {schema}.t, {models}.forest"):
        sdb.execute(f"GRANT {grant} TO {role}".encode())
    with pythiadb.connect(shop, autocommit=True) as reader:
        reader.execute(f"SET search_path = {path}".encode())
        reader.execute(f"SET SESSION AUTHORIZATION {role}".encode())
        assert FAST in reader.translate(PLAIN).batched[0]
        assert sorted(reader.execute(PLAIN).fetchall()) == list(enumerate(labels))[1::2]
        count = reader.execute(
            "SELECT count(*) FROM t WHERE PREDICTION(forest USING *) IS NOT NULL"
        ).fetchone()
        assert count == (COUNT // 2,)
    sdb.execute(f"REVOKE SELECT ON t FROM {role}; GRANT SELECT (id, age) ON t TO {role}".encode())
    with pythiadb.connect(shop, autocommit=True) as reader:  # a column may not be read
        reader.execute(f"SET search_path = {path}".encode())
        reader.execute(f"SET SESSION AUTHORIZATION {role}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute(PLAIN)
        narrow = "SELECT id, PREDICTION(forest USING age) FROM t"
        assert FAST not in reader.translate(narrow).batched[0]
        assert len(reader.execute(narrow).fetchall()) == COUNT // 2
    sdb.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


# Changing rows ------------------------------------------------------------------------------------------------------------


def test_rows_of_the_same_transaction(sdb: pythiadb.Connection, labels: list[str]) -> None:
    """A statement sees what its transaction did before it: rows added, changed, deleted, and taken back."""
    sdb.execute(f"CREATE TABLE t (id int, {FIELDS})".encode())
    with sdb.transaction():
        fill(sdb, end=COUNT - 50)
        sdb.execute("UPDATE t SET age = age + 1")
        fill(sdb, start=COUNT - 50)
        sdb.execute("UPDATE t SET age = age - 1 WHERE id < %s", (COUNT - 50,))
        check(sdb, labels)
        check(sdb, labels, PLAIN + " WHERE id < 1000")
        try:
            with sdb.transaction():
                sdb.execute("DELETE FROM t WHERE id % 2 = 0")
                sdb.execute("UPDATE t SET age = 0")
                assert len(sdb.execute(PLAIN).fetchall()) == COUNT // 2
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        check(sdb, labels)
    check(sdb, labels)


def test_a_change_in_the_same_statement(sdb: pythiadb.Connection, labels: list[str]) -> None:
    """All parts of a statement see the rows as they were before it."""
    create(sdb)
    check(
        sdb,
        labels,
        "WITH gone AS (DELETE FROM t WHERE id < 100 RETURNING id), new AS (UPDATE t SET age = 0 WHERE id > 200 RETURNING id) "
        "SELECT id, PREDICTION(forest USING *) FROM t",
    )


def test_many_pages_with_holes(sdb: pythiadb.Connection, made: dict[str, Made]) -> None:
    """More rows than a matrix holds, in pages that lost rows, with figures of the planner that are out of date."""
    sdb.execute(f"CREATE TABLE t (id int, {FIELDS}) WITH (autovacuum_enabled = off)".encode())
    sdb.execute(
        "INSERT INTO t SELECT n, 18 + n % 60, n % 29, (n * 7919 % 8000) / 2.0, (n * 104729 % 16000 - 8000) / 8.0 "
        "FROM generate_series(1, 20000) n"
    )
    sdb.execute("ANALYZE t")
    sdb.execute("INSERT INTO t SELECT id + 20000, age, visits, spent, days FROM t WHERE id <= 15000")
    sdb.execute("DELETE FROM t WHERE id % 3 = 0 OR id BETWEEN 5000 AND 9000")
    sdb.execute("UPDATE t SET spent = spent + 1 WHERE id % 5 = 0")
    for statement in (
        "SELECT *, PREDICTION(forest USING *) FROM t",
        "SELECT t.*, PREDICTION(forest USING *) FROM t WHERE id > 0",
    ):
        assert FAST in sdb.translate(statement).batched[0]
        rows = sdb.execute(statement.encode()).fetchall()
        assert len({row[0] for row in rows}) == len(rows) == sdb.execute("SELECT id FROM t").rowcount
        x = np.array([row[1:5] for row in rows], np.float32)
        expected = made["forest"].model.classes_[made["forest"].bare(x, "probabilities").argmax(axis=1)]
        assert [row[5] for row in rows] == expected.tolist()


def test_an_empty_table(sdb: pythiadb.Connection) -> None:
    sdb.execute(f"CREATE TABLE t (id int, {FIELDS})".encode())
    for statement in (PLAIN, PLAIN + " WHERE id > 0"):
        assert FAST in sdb.translate(statement).batched[0]
        assert sdb.execute(statement.encode()).fetchall() == []
    assert sdb.execute("SELECT avg(PREDICTION(spend USING *)), count(*) FROM t").fetchone() == (None, 0)


# Facts that another session changes ---------------------------------------------------------------------------------------

CHANGES = {
    "a child": "CREATE TABLE child () INHERITS (t); INSERT INTO child SELECT * FROM t WHERE id >= 100; DELETE FROM ONLY t WHERE id >= 100",
    "a big child": "CREATE TABLE child () INHERITS (t) WITH (autovacuum_enabled = off); "
    "INSERT INTO child SELECT -1, 0, 0, 0, 0 FROM generate_series(1, 20000); DELETE FROM child WHERE id = -1; "
    "INSERT INTO child SELECT * FROM ONLY t WHERE id > 0; DELETE FROM ONLY t WHERE id > 0",
    "a view": "ALTER TABLE t RENAME TO base; CREATE VIEW t AS SELECT * FROM base",
    "partitions": "ALTER TABLE t RENAME TO base; CREATE TABLE t (LIKE base) PARTITION BY RANGE (id); "
    "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (50); CREATE TABLE t2 PARTITION OF t DEFAULT; INSERT INTO t SELECT * FROM base",
    "a column of larger integers": "ALTER TABLE t ALTER COLUMN age TYPE bigint",
    "a column of fractions": "ALTER TABLE t ALTER COLUMN age TYPE double precision",
    "a text column": "ALTER TABLE t ALTER COLUMN age TYPE text",
    "a renamed column": "ALTER TABLE t RENAME COLUMN age TO old; ALTER TABLE t ADD COLUMN age int; UPDATE t SET age = old; ALTER TABLE t DROP COLUMN old",
    "another table": "ALTER TABLE t RENAME TO base; CREATE TABLE t AS SELECT days, spent, visits, age, id FROM base ORDER BY id DESC",
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("condition", ["", " WHERE id >= 0"])
@pytest.mark.parametrize("form", ["id", "(SELECT t.id)", "max(id)"])
def test_a_table_that_another_session_changed(
    sdb: pythiadb.Connection,
    other: psycopg.Connection[Any],
    labels: list[str],
    change: str,
    condition: str,
    form: str,
) -> None:
    """The translation of the first run no longer fits; the second run is right all the same."""
    create(sdb)
    grouped = " GROUP BY id, PREDICTION(forest USING *)" if form == "max(id)" else ""
    statement = PLAIN.replace("id", form, 1) + condition + grouped
    check(sdb, labels, statement)
    other.execute(CHANGES[change].encode())
    check(sdb, labels, statement, fast=None)


@pytest.mark.parametrize("change", CHANGES)
def test_a_joined_table_that_another_session_changed(
    sdb: pythiadb.Connection, other: psycopg.Connection[Any], labels: list[str], change: str
) -> None:
    create(sdb)
    sdb.execute("CREATE TABLE u AS SELECT id FROM t")
    statement = (
        "SELECT t.id, PREDICTION(forest USING t.age, t.visits, t.spent, t.days) FROM t JOIN u USING (id)"
    )
    check(sdb, labels, statement)
    other.execute(CHANGES[change].encode())
    check(sdb, labels, statement, fast=None)


def test_a_model_that_another_session_changed(
    sdb: pythiadb.Connection, other: psycopg.Connection[Any], made: dict[str, Made], labels: list[str]
) -> None:
    """First a model of numbers, then one of strings under the same name."""
    create(sdb)
    load = "CALL dbms_vector.load_onnx_model(%s, %s, %s)"
    other.execute(load, ("changing", made["forest"].graph, made["forest"].metadata_text))
    statement = "SELECT id, PREDICTION(changing USING age, visits, spent, days, 12 AS city) FROM t"
    check(sdb, labels, statement)
    other.execute("CALL dbms_vector.drop_onnx_model('changing')")
    other.execute(load, ("changing", made["towns"].graph, made["towns"].metadata_text))
    rows = sdb.execute(statement.encode()).fetchall()
    table = np.array([["12", float(ROWS[row[0]][0])] for row in rows], dtype=object)
    assert [row[1] for row in rows] == made["towns"].model.predict(table).tolist()
