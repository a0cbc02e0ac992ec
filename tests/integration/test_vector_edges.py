"""Vector indexes at their edges: values that lie between, names that get another meaning, rows that are locked, numbers beyond."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from background import wait_until
from vector_tables import one, rows

import pythiadb

Q = "[1, 2, 3]"
SEARCH = "SELECT id FROM {table} ORDER BY v <-> '[1, 2, 3]' FETCH APPROX FIRST {k} ROWS ONLY"


def make(
    db: pythiadb.Connection, table: str, values: str = "i, ARRAY[sin(i), cos(i * 7), sin(i * i)]::vector"
) -> None:
    """A table of 60 rows with an index of the metric EUCLIDEAN."""
    db.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v vector(3))".encode())
    db.execute(f"INSERT INTO {table} SELECT {values} FROM generate_series(1, 60) i".encode())
    name = table.replace(".", "_") + "_v"
    db.execute(
        f"CREATE VECTOR INDEX {name} ON {table} (v) ORGANIZATION NEIGHBOR PARTITIONS DISTANCE EUCLIDEAN".encode()
    )


@contextmanager
def beside(shop: Path, db: pythiadb.Connection) -> Iterator[pythiadb.Connection]:
    """A second session with the same schema."""
    schema = one(db, "SELECT current_schema()")
    with pythiadb.connect(shop, autocommit=True) as other:
        other.execute(f"SET search_path = {schema}, public, pythia".encode())
        yield other


def exact(db: pythiadb.Connection, text: str, values: Any = None) -> list[tuple[Any, ...]]:
    return db.execute(text.replace("APPROX ", ""), values).fetchall()


# Filters -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def things(shop: Path) -> Iterator[pythiadb.Connection]:
    """A table whose index includes a column of each type that is compared with values of other types."""
    name = f"edges_{uuid.uuid4().hex[:8]}"
    with pythiadb.connect(shop, autocommit=True) as db:
        db.execute(f"CREATE SCHEMA {name}; SET search_path = {name}, public, pythia".encode())
        db.execute(
            "CREATE TABLE things (id int PRIMARY KEY, v vector(3), weight real, day date, big bigint, price numeric, flag boolean, "
            "name text)"
        )
        db.execute(
            "INSERT INTO things SELECT i, ARRAY[sin(i), cos(i * 7), sin(i * i)]::vector, i / 10.0, date '2024-01-01' + i, "
            "1700000000000000 + i, i / 7.0, i % 3 = 0, CASE i % 2 WHEN 0 THEN 'a' ELSE 'A' END FROM generate_series(1, 60) i"
        )
        db.execute(
            "CREATE VECTOR INDEX things_v ON things (v) INCLUDE (weight, day, big, price, flag, name) "
            "ORGANIZATION NEIGHBOR PARTITIONS DISTANCE EUCLIDEAN"
        )
        yield db
        db.execute("DROP INDEX things_v")
        db.execute(f"DROP SCHEMA {name} CASCADE".encode())


@pytest.mark.parametrize(
    "condition",
    [
        "weight > 0.1 AND weight <= 3.3",
        "weight = '0.7'",
        "weight <= 0.7",
        "weight <> 0.7::real",
        "day > timestamp '2024-01-20 10:00'",
        "day <= '2024-01-20 10:00'",
        "day >= now() - interval '10 years'",
        "big > :big AND big <= 1700000000000050.5::float8",
        "big = ANY (:many)",
        "price > :small",
        "price < 'Infinity'::float8",
        "(flag = :no OR :yes)",
        "(weight BETWEEN 1 AND 2 OR :yes)",
        "name = 'a' COLLATE \"C\"",
        "name IN ('b', ('A' COLLATE \"C\"))",
    ],
)
def test_the_index_judges_as_postgresql_does(things: pythiadb.Connection, condition: str) -> None:
    """Whatever part of a condition the index takes for its own; what it cannot judge is judged by PostgreSQL."""
    text = (
        "SELECT /*+ VECTOR_INDEX_TRANSFORM(things things_v IN_FILTER_WITHOUT_JOIN_BACK) */ id FROM things "
        f"WHERE id IS NOT NULL AND flag IS NOT NULL AND {condition} ORDER BY v <-> :q FETCH APPROX FIRST 50 ROWS ONLY"
    )
    values = {"q": Q, "big": 1700000000000007.0, "many": [*range(20_000), 1700000000000003],
              "small": 0.1 + 0.2, "yes": True, "no": False}  # fmt: skip
    used = {name: value for name, value in values.items() if f":{name}" in text}
    found = things.execute(text, used).fetchall()
    assert found == exact(things, text.replace("/*+", "/*"), used)
    assert found


def test_explain_says_that_a_filter_cannot_be_judged(things: pythiadb.Connection) -> None:
    text = (
        "EXPLAIN SELECT /*+ VECTOR_INDEX_TRANSFORM(things things_v IN_FILTER_WITHOUT_JOIN_BACK) */ id FROM things "
        "WHERE big < 'Infinity'::float8 ORDER BY v <-> :q FETCH APPROX FIRST 5 ROWS ONLY"
    )
    lines = [row[0] for row in things.execute(text, {"q": Q})]
    assert any(line.startswith("  Exact because: the index cannot judge the filter: ") for line in lines)


def test_texts_that_are_equal_though_they_differ_are_not_included(db: pythiadb.Connection) -> None:
    """Such a collation needs ICU, which not every server has: here one says of itself that it is of that kind."""
    db.execute('CREATE COLLATION caseless FROM "C"')
    db.execute("UPDATE pg_collation SET collisdeterministic = false WHERE oid = 'caseless'::regcollation")
    db.execute("CREATE TABLE docs (id int PRIMARY KEY, v vector(3), name text COLLATE caseless)")
    with pytest.raises(
        psycopg.errors.FeatureNotSupported, match='column "name" cannot be included'
    ) as caught:
        db.execute("SELECT pythia.define_vector_index('docs_v', 'docs', 'v', ARRAY['name'])")
    assert "collation" in str(caught.value.diag.message_detail)


@pytest.mark.parametrize("array", ["'{a,b}'", "('{A,a}')", "E'{a}'", "NULL", "'{}'"])
def test_arrays_whose_type_follows_from_the_column(things: pythiadb.Connection, array: str) -> None:
    text = (
        f"SELECT id FROM things WHERE name = ANY ({array}) ORDER BY v <-> :q FETCH APPROX FIRST 50 ROWS ONLY"
    )
    assert things.execute(text, {"q": Q}).fetchall() == exact(things, text, {"q": Q})


# Functions -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def gauged(db: pythiadb.Connection) -> pythiadb.Connection:
    """A table with an index, and functions that users might define."""
    make(db, "docs")
    db.execute("CREATE FUNCTION lucky() RETURNS boolean LANGUAGE sql VOLATILE AS 'SELECT random() < 0.5'")
    db.execute("CREATE FUNCTION even(i int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT i % 2 = 0'")
    db.execute("CREATE FUNCTION sevenths(i int) RETURNS SETOF int LANGUAGE sql AS 'SELECT 1 WHERE i % 7 = 0'")
    return db


def test_a_volatile_function_leaves_as_many_rows_as_asked_for(gauged: pythiadb.Connection) -> None:
    """The index would be asked about other rows than those that fulfil the filter when the statement reads them."""
    schema = one(gauged, "SELECT current_schema()")
    for function in ("lucky()", f"{schema}.Lucky()"):
        text = SEARCH.format(table="docs", k=9).replace("ORDER", f"WHERE {function} ORDER")
        assert gauged.translate(text).batched == ("no vector index: a volatile function in the filter",)
        assert all(len(gauged.execute(text).fetchall()) == 9 for _ in range(5))
    text = SEARCH.format(table="docs", k=9).replace("ORDER", "WHERE even(id) ORDER")
    assert gauged.translate(text).batched == ("vector index docs_v, filtered",)
    assert gauged.execute(text).fetchall() == exact(gauged, text)


@pytest.mark.parametrize(("listed", "ordered"), [("id, sevenths(id)", ""), ("id", ", sevenths(id)")])
def test_a_function_that_makes_rows(gauged: pythiadb.Connection, listed: str, ordered: str) -> None:
    """Rows of which it makes none are no answers: the next ones take their places."""
    text = SEARCH.format(table="docs", k=5).replace("id", listed, 1).replace(" FETCH", f"{ordered} FETCH")
    found = gauged.execute(text).fetchall()
    assert found == exact(gauged, text)
    assert len(found) == 5


# Names ---------------------------------------------------------------------------------------------------------------------


def test_columns_named_with_the_schema_and_by_a_join(db: pythiadb.Connection) -> None:
    """They are columns of each row, not values of a query around the search."""
    make(db, "docs")
    schema = one(db, "SELECT current_schema()")
    db.execute("CREATE TABLE kinds AS SELECT id, id % 7 AS kind FROM docs")
    texts = (
        f"SELECT id FROM docs WHERE {schema}.docs.id % 7 = 5",
        f"SELECT id FROM docs WHERE EXISTS (SELECT FROM kinds WHERE {schema}.kinds.id = {schema}.docs.id AND kind = 5)",
        "SELECT id FROM docs JOIN kinds USING (id) AS k WHERE k.id % 7 = 5",
    )
    for query in texts:
        text = f"{query} ORDER BY {schema}.docs.v <-> '[1, 2, 3]' FETCH APPROX FIRST 5 ROWS ONLY"
        assert "vecsys.nearest_" in db.translate(text).statements[0]
        found = db.execute(text).fetchall()
        assert found == exact(db, text)
        assert len(found) == 5


def test_a_table_that_takes_the_place_of_another(shop: Path, db: pythiadb.Connection) -> None:
    """A session that knows the statement already must not look for the new table's rows in the old one's index."""
    make(db, "docs")
    make(db, "docs_new", "100 + i, ARRAY[-sin(i), i, 0]::vector")
    text = SEARCH.format(table="docs", k=5)
    assert db.execute(text).fetchall() == exact(db, text)
    with beside(shop, db) as other, other.transaction():
        other.execute("ALTER TABLE docs RENAME TO docs_old")
        other.execute("ALTER TABLE docs_new RENAME TO docs")
    found = db.execute(text).fetchall()
    assert found == exact(db, text)
    assert min(found)[0] > 100
    number = one(db, "SELECT id FROM pythia.vector_index WHERE relation = 'docs_old'::regclass")
    with pytest.raises(psycopg.errors.WrongObjectType, match="prepared for table"):
        rows(db, f"SELECT vecsys.nearest_{number}('[1,2,3]', NULL, of_table => 'docs'::regclass)")


def test_functions_that_do_not_take_the_table_yet_go_at_an_upgrade(db: pythiadb.Connection) -> None:
    make(db, "docs")
    number = one(db, "SELECT id FROM pythia.vector_index WHERE relation = 'docs'::regclass")
    db.execute(
        f"CREATE FUNCTION vecsys.nearest_{number}(query vector, k integer, options jsonb DEFAULT NULL, source text DEFAULT NULL, "
        "predicate jsonb DEFAULT NULL, explain boolean DEFAULT false) RETURNS text[] LANGUAGE sql AS 'SELECT NULL::text[]'".encode()
    )
    named = f"SELECT vecsys.nearest_{number}('[1, 2, 3]', 5)"
    with pytest.raises(psycopg.errors.AmbiguousFunction):
        rows(db, named)
    rows(db, "SELECT pythia.follow_table(%s)", number)
    assert len(one(db, named)) == 5
    assert db.execute(SEARCH.format(table="docs", k=5)).fetchall() == exact(
        db, SEARCH.format(table="docs", k=5)
    )


def test_a_search_path_that_goes_back_with_its_transaction(shop: Path, db: pythiadb.Connection) -> None:
    schema = one(db, "SELECT current_schema()")
    db.execute(f"CREATE SCHEMA {schema}_two".encode())
    make(db, "docs")
    make(db, f"{schema}_two.docs", "100 + i, ARRAY[-sin(i), i, 0]::vector")
    text = SEARCH.format(table="docs", k=5)
    for _ in range(2):
        with db.transaction():
            db.execute(f"SET LOCAL search_path = {schema}_two, public, pythia".encode())
            assert min(db.execute(text).fetchall())[0] > 100
        with db.transaction():
            assert max(db.execute(text).fetchall())[0] <= 60
    db.execute(f"DROP SCHEMA {schema}_two CASCADE".encode())


def test_a_role_that_may_not_read_the_key(db: pythiadb.Connection, role: str) -> None:
    make(db, "docs")
    text = "SELECT v <-> '[1, 2, 3]' FROM docs ORDER BY v <-> '[1, 2, 3]' FETCH APPROX FIRST 3 ROWS ONLY"
    found = db.execute(text).fetchall()
    db.execute(f"GRANT SELECT (v) ON docs TO {role}".encode())
    db.execute(f"SET ROLE {role}".encode())
    assert db.execute(text).fetchall() == found
    db.execute("RESET ROLE")


def test_included_columns_that_a_role_may_not_read(db: pythiadb.Connection, role: str) -> None:
    """Which rows pass a filter tells what is in its column, also to who calls the index's functions by hand."""
    db.execute("CREATE TABLE docs (id int PRIMARY KEY, v vector(3), secret text, open text)")
    db.execute(
        "INSERT INTO docs SELECT i, ARRAY[i, 1, 1]::vector, 's' || i % 3, 'o' FROM generate_series(1, 60) i"
    )
    db.execute("CREATE VECTOR INDEX docs_v ON docs (v) INCLUDE (secret, open) DISTANCE EUCLIDEAN")
    index_id = one(db, "SELECT pythia.vector_index_id('docs_v')")
    allowed = '["=", "open", "o"]'
    calls = [
        (f"candidates_{index_id}", "('[1, 1, 1]'::vector, 5, NULL, '{}', true)"),
        (
            f"candidates_many_{index_id}",
            "(ARRAY['[1, 1, 1]', '[2, 1, 1]']::vector[], 5, 5, NULL, '{}', NULL)",
        ),
    ]
    db.execute(f"GRANT SELECT (id, v, open) ON docs TO {role}; SET ROLE {role}".encode())
    for name, arguments in calls:
        for predicate in (
            '["=", "secret", "s1"]',
            '["and", ["=", "open", "o"], ["not", ["in", "secret", ["s1"]]]]',
        ):
            with pytest.raises(
                psycopg.errors.InsufficientPrivilege, match="permission denied for table docs"
            ):
                rows(db, f"SELECT * FROM vecsys.{name}{arguments.format(predicate)}")
        assert rows(db, f"SELECT * FROM vecsys.{name}{arguments.format(allowed)}")
    text = "SELECT id FROM docs WHERE {} ORDER BY v <-> '[1, 1, 1]' FETCH APPROX FIRST 3 ROWS ONLY"
    assert rows(db, text.format("open = 'o'")) == [(1,), (2,), (3,)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        rows(db, text.format("secret = 's1'"))
    db.execute(f"RESET ROLE; GRANT SELECT (secret) ON docs TO {role}; SET ROLE {role}".encode())
    assert rows(db, text.format("secret = 's1'")) == [(1,), (4,), (7,)]
    db.execute("RESET ROLE")


def test_vector_search_without_the_right_to_read_the_table(db: pythiadb.Connection, role: str) -> None:
    make(db, "docs")
    db.execute(f"SET ROLE {role}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied") as refused:
        db.execute("SELECT * FROM pythia.vector_search('docs_v', '[1, 2, 3]')")
    db.execute("RESET ROLE")
    assert "needs SELECT" in str(refused.value.diag.message_hint)


def test_explain_names_a_schema_as_it_is_written(db: pythiadb.Connection) -> None:
    db.execute('CREATE SCHEMA "J 8"')
    db.execute('CREATE TABLE "J 8".d (id int PRIMARY KEY, v vector(3))')
    db.execute("""INSERT INTO "J 8".d SELECT i, ARRAY[i, 1, 1]::vector FROM generate_series(1, 9) i""")
    db.execute('CREATE VECTOR INDEX d_v ON "J 8".d (v) DISTANCE EUCLIDEAN')
    text = """EXPLAIN SELECT id FROM "J 8".d ORDER BY v <-> '[1, 2, 3]' FETCH APPROX FIRST 3 ROWS ONLY"""
    assert ' on "J 8".d_v ("J 8".d.v)' in rows(db, text)[0][0]
    db.execute('DROP SCHEMA "J 8" CASCADE')


def test_policies_of_a_functions_owner(db: pythiadb.Connection, role: str) -> None:
    """Within a SECURITY DEFINER function the rows of its owner are searched, as many as asked for."""
    make(db, "docs")
    db.execute(f"GRANT SELECT ON docs TO {role}; ALTER TABLE docs ENABLE ROW LEVEL SECURITY".encode())
    db.execute("CREATE POLICY few ON docs USING (id > 50)")
    db.execute(f"SET ROLE {role}".encode())
    db.execute(
        "CREATE FUNCTION nearest() RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER AS "
        "$$ BEGIN RETURN QUERY SELECT key FROM pythia.vector_search('docs_v', '[1, 2, 3]', 5); END $$"
    )
    db.execute("RESET ROLE")
    found = {int(key) for (key,) in rows(db, "SELECT nearest()")}
    assert found == {
        row[0] for row in rows(db, "SELECT id FROM docs WHERE id > 50 ORDER BY v <-> '[1, 2, 3]' LIMIT 5")
    }


# Rows ----------------------------------------------------------------------------------------------------------------------


def test_another_row_comes_for_one_that_is_locked(shop: Path, db: pythiadb.Connection) -> None:
    make(db, "docs")
    text = SEARCH.format(table="docs", k=5)
    with beside(shop, db) as other, db.transaction(), other.transaction():
        taken = db.execute(text + " FOR UPDATE SKIP LOCKED").fetchall()
        assert len(taken) == 5
        more = other.execute(text + " FOR UPDATE SKIP LOCKED").fetchall()
    assert sorted(taken + more) == sorted(exact(db, SEARCH.format(table="docs", k=10)))


@pytest.mark.parametrize("k", ["0", "61", "2147483647", "4294967295"])
def test_any_number_of_rows(db: pythiadb.Connection, k: str) -> None:
    make(db, "docs")
    db.execute("UPDATE docs SET v = NULL WHERE id = 7; UPDATE docs SET v = '[0, 0, 0]' WHERE id = 8")
    text = SEARCH.format(table="docs", k=k)
    assert db.execute(text).fetchall() == exact(db, text)
    filtered = text.replace("ORDER", "WHERE id > 5 ORDER")
    assert db.execute(filtered).fetchall() == exact(db, filtered)
    offset = text.replace("FETCH", "OFFSET 3 FETCH")
    assert db.execute(offset).fetchall() == exact(db, offset)


@pytest.mark.parametrize("last", ["EXACT", "APPROX"])
def test_other_keys_choose_among_rows_of_equal_distance(db: pythiadb.Connection, last: str) -> None:
    """An exact answer is the same with an index; which of them an index would name has nothing to do with those keys."""
    make(db, "docs", "i, ARRAY[i % 3, 2, 3]::vector")
    text = f"SELECT id FROM docs ORDER BY v <-> '[1, 2, 3]', {{}} FETCH {last} FIRST 5 ROWS ONLY"
    text += " WITH TARGET ACCURACY 100" if last == "APPROX" else ""
    assert rows(db, text.format("id")) == [(1,), (4,), (7,), (10,), (13,)]
    assert rows(db, text.format("id DESC")) == [(58,), (55,), (52,), (49,), (46,)]


@pytest.mark.parametrize("accuracy", [None, 1, 99.5, 100, 0, 101])
def test_accuracies_as_parameters(db: pythiadb.Connection, accuracy: float | None) -> None:
    make(db, "docs")
    text = SEARCH.format(table="docs", k=5) + " WITH TARGET ACCURACY :a"
    if accuracy in (0, 101):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"between 1 and 100, not {accuracy}"):
            db.execute(text, {"a": accuracy})
    else:
        assert db.execute(text, {"a": accuracy}).fetchall() == exact(db, SEARCH.format(table="docs", k=5))


@pytest.mark.parametrize(
    "parameters", ["EFSEARCH 4294967295", "NEIGHBOR PARTITION PROBES 4294967295, RESCORE FACTOR 100"]
)
def test_the_greatest_search_parameters(db: pythiadb.Connection, parameters: str) -> None:
    make(db, "docs")
    text = SEARCH.format(table="docs", k=5)
    found = db.execute(f"{text} WITH TARGET ACCURACY PARAMETERS ({parameters})").fetchall()
    assert found == exact(db, text)


# Tables --------------------------------------------------------------------------------------------------------------------


def test_an_empty_table_whose_vectors_may_have_any_dimensions(db: pythiadb.Connection) -> None:
    db.execute("CREATE TABLE docs (id int PRIMARY KEY, v vector)")
    db.execute("CREATE VECTOR INDEX docs_v ON docs (v) DISTANCE EUCLIDEAN")
    text = SEARCH.format(table="docs", k=2)
    assert db.execute(text).fetchall() == []

    def settles(dimensions: int | None, count: int) -> None:
        status = "SELECT error, dimensions, rows, pending_rows FROM pythia.vector_index_status WHERE table_name = 'docs'::regclass"
        wait_until(lambda: rows(db, status) == [(None, dimensions, count, 0)])

    for count in (5, 7):
        db.execute(
            "INSERT INTO docs SELECT i, ARRAY[i, 1, 1]::vector FROM generate_series(1, %s) i", (count,)
        )
        assert db.execute(text).fetchall() == exact(db, text)
        settles(3, count)
        assert db.execute(text).fetchall() == exact(db, text)
        db.execute("TRUNCATE docs")
        settles(None, 0)
    db.execute("INSERT INTO docs VALUES (1, '[1, 2]')")
    settles(2, 1)


def test_vectors_of_half_precision(db: pythiadb.Connection) -> None:
    db.execute("CREATE TABLE halves (id int PRIMARY KEY, v halfvec(3))")
    db.execute(
        "INSERT INTO halves SELECT i, ARRAY[sin(i), cos(i), i / 9.0]::halfvec FROM generate_series(1, 60) i"
    )
    db.execute("CREATE VECTOR INDEX halves_v ON halves (v) DISTANCE EUCLIDEAN")
    text = SEARCH.format(table="halves", k=5)
    found = db.execute(text).fetchall()
    assert found == exact(db, text)
    by_function = text.replace("v <-> '[1, 2, 3]'", "VECTOR_DISTANCE(v, '[1, 2, 3]', EUCLIDEAN)")
    assert db.execute(by_function).fetchall() == found
    assert rows(db, "EXPLAIN " + text)[0][0].startswith("VECTOR INDEX IVF SCAN")
    half = "SELECT dbms_vector.index_accuracy_query(NULL, 'halves_v', v, 5, 90) FROM halves WHERE id = 1"
    assert one(db, half).startswith("Accuracy achieved (100%)")
    keys = rows(db, "SELECT key::int FROM pythia.vector_search('halves_v', '[1, 2, 3]', 5)")
    assert keys == found


def test_names_with_every_mark(db: pythiadb.Connection) -> None:
    db.execute("""CREATE DOMAIN "A vector" AS vector(3); CREATE DOMAIN "A key" AS text""")
    db.execute(
        """CREATE TABLE "My ""Docs%" ("Key.'x" "A key" PRIMARY KEY, "V v" "A vector", "In%c" int, "select" text)"""
    )
    db.execute(
        """INSERT INTO "My ""Docs%" SELECT 'NULL {"' || i || '}\\', ARRAY[sin(i), cos(i * 7), sin(i * i)]::vector, i % 7, 'x' """
        "FROM generate_series(1, 60) i"
    )
    db.execute(
        """CREATE VECTOR INDEX "The ""index" ON "My ""Docs%" ("V v") INCLUDE ("In%c", "select") DISTANCE EUCLIDEAN"""
    )
    db.execute("""UPDATE "My ""Docs%" SET "V v" = '[1, 2, 3]' WHERE "Key.'x" LIKE '%"9}%'""")
    hint = """/*+ VECTOR_INDEX_TRANSFORM("My ""Docs%" "The ""index" IN_FILTER_WITHOUT_JOIN_BACK) */"""
    for where in (
        "",
        """WHERE "In%c" > 2 AND "select" = 'x'""",
        """WHERE "My ""Docs%"."In%c" IN (1, 2) AND "select" IS NOT NULL""",
    ):
        text = f"""SELECT {hint if where else ""} "Key.'x" FROM "My ""Docs%" {where} ORDER BY "V v" <-> '[1, 2, 3]' FETCH APPROX FIRST 7 ROWS ONLY"""
        found = db.execute(text).fetchall()
        assert found == exact(db, text.replace("/*+", "/*"))
        assert rows(db, "EXPLAIN " + text)[0][0].startswith("VECTOR INDEX IVF SCAN")
    keys = rows(db, "SELECT key FROM pythia.vector_search(%s, %s, 7)", '"The ""index"', Q)
    assert set(keys) == set(
        exact(db, """SELECT "Key.'x" FROM "My ""Docs%" ORDER BY "V v" <-> '[1, 2, 3]' LIMIT 7""")
    )
    db.execute('ALTER INDEX "The ""index" RENAME TO "Another %"')
    db.execute('DROP INDEX "Another %"')


# Transactions --------------------------------------------------------------------------------------------------------------


def test_serializable_transactions_that_miss_each_others_rows(shop: Path, db: pythiadb.Connection) -> None:
    """Each looks for what is near and adds a row because of it; of two at once only one may, as with a scan of the table."""
    make(db, "docs")
    text = SEARCH.format(table="docs", k=1)
    with beside(shop, db) as other:
        for session in (db, other):
            session.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        first = [session.execute(text).fetchall() for session in (db, other)]
        assert first[0] == first[1]
        db.execute("INSERT INTO docs VALUES (100, '[1, 2, 3]')")
        db.execute("COMMIT")
        with pytest.raises(psycopg.errors.SerializationFailure):
            other.execute("INSERT INTO docs VALUES (101, '[1, 2, 3]')")
            other.execute("COMMIT")
        other.execute("ROLLBACK")
    assert db.execute(text).fetchall() == [(100,)]


def test_cursors_show_what_was_there_when_they_were_opened(db: pythiadb.Connection) -> None:
    make(db, "docs")
    text = SEARCH.format(table="docs", k=5)
    before = exact(db, text)
    with db.transaction():
        with db.cursor("on_the_server") as cursor:
            cursor.execute(text)
            db.execute("UPDATE docs SET v = '[1, 2, 3]' WHERE id > 50")
            db.execute("DELETE FROM docs WHERE id = %s", before[0])
            assert cursor.fetchall() == before
        assert db.execute(text).fetchall() == exact(db, text) != before
        db.execute("SAVEPOINT early")
        db.execute("TRUNCATE docs")
        assert db.execute(text).fetchall() == []
        db.execute("ROLLBACK TO early")
        assert list(db.cursor().stream(text)) == exact(db, text)
        with db.cursor().copy(f"COPY ({text}) TO STDOUT") as copy:
            copied = [(int(row[0]),) for row in copy.rows()]
        assert copied == exact(db, text)
