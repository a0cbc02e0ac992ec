"""FETCH APPROX through the translator: an indexed statement gives what the same statement gives without its index.

The tables are small and no version of the index is asked for, so what a search answers is exact; that makes every difference
between both statements the translation's.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

import pythiadb
from pythiadb.postgres import catalog as catalogs

Q = "[1, 2, 3]"
SINCE = datetime.datetime(2020, 1, 1)


@pytest.fixture
def docs(db: pythiadb.Connection) -> Iterator[pythiadb.Connection]:
    """Tables docs, 400 rows with an index docs_v of metric COSINE, and shop, 5 rows."""
    db.execute(
        "CREATE TABLE docs (id bigint PRIMARY KEY, v vector(3), city text, severity int, filed timestamp, title text)"
    )
    db.execute(
        "INSERT INTO docs SELECT i, ARRAY[sin(i), cos(i * 7), sin(i * i)]::vector, chr(97 + i % 5), i % 7, "
        "timestamp '2024-01-01' + i * interval '1 hour', 'a' || i FROM generate_series(1, 400) i"
    )
    db.execute("CREATE TABLE shop (id bigint PRIMARY KEY, city text, vec vector(3))")
    db.execute("INSERT INTO shop SELECT i, chr(96 + i), ARRAY[i, 1, 2]::vector FROM generate_series(1, 5) i")
    define(db, "docs_v", "docs", ["severity", "filed", "city"])
    yield db
    db.execute("CALL pythia.drop_vector_index('docs_v', true)")


def define(db: pythiadb.Connection, name: str, table: str, include: list[str]) -> None:
    """Define an index that counts as usable before it has a version."""
    db.execute(
        "SELECT pythia.define_vector_index(%s, %s, 'v', %s, 'INMEMORY NEIGHBOR GRAPH', 'COSINE')",
        (name, table, include),
    )
    db.execute("UPDATE pythia.vector_index SET status = 'VALID' WHERE name = %s", (name,))
    db.catalog.forget()


CASES: list[tuple[str, Any]] = [
    ("SELECT id FROM docs ORDER BY v <=> '[1, 2, 3]' FETCH APPROX FIRST 10 ROWS ONLY", None),
    ("SELECT id FROM docs ORDER BY VECTOR_DISTANCE(v, :q, COSINE) FETCH APPROX FIRST 10 ROWS ONLY", {"q": Q}),
    ("SELECT id FROM docs ORDER BY v <=> %s OFFSET %s ROWS FETCH APPROX FIRST %s ROWS ONLY", (Q, 3, 4)),
    ("SELECT id, cosine_distance(v, :q) AS d FROM docs ORDER BY d FETCH APPROX FIRST ROW ONLY ACCURACY :a", {"q": Q, "a": 95}),
    ("SELECT id FROM docs WHERE city = :c AND severity > :s AND title LIKE 'a%' ORDER BY v <=> :q FETCH APPROX FIRST 5 ROWS ONLY", {"c": "b", "s": 2, "q": Q}),
    ("SELECT id FROM docs WHERE city = %s AND severity = ANY(%s) AND filed > %s ORDER BY v <=> %s FETCH APPROX FIRST 5 ROWS ONLY", ("b", [1, 2, 3], SINCE, Q)),
    ("SELECT id FROM docs WHERE severity NOT IN (1, 2) AND city IN ('a', 'b') ORDER BY v <=> (SELECT v FROM docs WHERE id = 5) FETCH APPROX FIRST 9 ROWS ONLY", None),
    ("SELECT id FROM docs WHERE severity = 1 OR title = 'it''s 100%' ORDER BY v <=> :q FETCH APPROX FIRST 9 ROWS ONLY", {"q": Q}),
    ("SELECT id FROM docs WHERE title > 'a' || :x AND extract(year FROM filed) > 2000 ORDER BY v <=> :q FETCH APPROX FIRST 9 ROWS ONLY", {"x": "2", "q": Q}),
    ("SELECT s.id, n.id FROM shop s CROSS JOIN LATERAL (SELECT d.id, d.v <=> s.vec AS far FROM docs d WHERE d.city = s.city ORDER BY d.v <=> s.vec FETCH APPROX FIRST 3 ROWS ONLY) n ORDER BY s.id, n.far", None),
    ("SELECT d.id, s.id FROM docs d JOIN shop s ON s.id = d.severity LEFT JOIN shop o ON o.city = :c WHERE s.city = d.city ORDER BY d.v <=> :q FETCH APPROX FIRST 9 ROWS ONLY", {"c": "a", "q": Q}),
    ("SELECT id FROM docs WHERE id IN (SELECT id FROM docs ORDER BY v <=> '[3, 2, 1]' FETCH APPROX FIRST 9 ROWS ONLY) ORDER BY v <=> '[1, 2, 3]' FETCH APPROX FIRST 3 ROWS ONLY", None),
    ("WITH near (town) AS (SELECT city FROM shop WHERE id < :i) SELECT d.id FROM docs d JOIN near n ON n.town = d.city ORDER BY v <=> :q FETCH APPROX FIRST 9 ROWS ONLY", {"i": 3, "q": Q}),
    ("SELECT s.id, n.id FROM shop s CROSS JOIN LATERAL (SELECT d.id FROM docs d WHERE d.city = s.city AND d.severity < s.id + 1 ORDER BY d.v <=> s.vec FETCH APPROX FIRST 3 ROWS ONLY) n", None),
    ("WITH q(e) AS (SELECT CAST(:q AS vector)) SELECT id FROM docs ORDER BY v <=> (SELECT e FROM q) FETCH APPROX FIRST 9 ROWS ONLY", {"q": Q}),
    ("(SELECT id FROM docs ORDER BY v <=> '[1, 1, 1]' FETCH APPROX FIRST 4 ROWS ONLY) UNION ALL (SELECT id FROM docs ORDER BY v <=> '[2, 0, 1]' FETCH APPROX FIRST 4 ROWS ONLY)", None),
    ("SELECT id FROM docs ORDER BY v <=> '[1, 2, 3]' FETCH EXACT FIRST 10 ROWS ONLY", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "values"), CASES, ids=[case[0][:70] for case in CASES])
def test_an_indexed_statement_gives_the_same_rows(docs: pythiadb.Connection, text: str, values: Any) -> None:
    done = docs.translate(text, with_parameters=values is not None)
    assert "vecsys.nearest_" in done.statements[0], done.batched
    found = docs.execute(text, values).fetchall()
    assert found == docs.execute(text.replace("APPROX ", "").replace("EXACT ", ""), values).fetchall()
    assert found


TABLES = st.sampled_from(
    [
        "docs d",
        "docs AS d",
        "docs d JOIN shop s ON s.city = d.city",
        "shop s RIGHT JOIN docs d ON s.id = d.severity AND s.city > :lowest",
        "docs d LEFT JOIN (SELECT id, city AS town FROM shop) t ON t.town = d.city",
        "docs d CROSS JOIN LATERAL unnest(ARRAY[d.severity, 3]) AS u (n)",
    ]
)
CONDITIONS = st.lists(
    st.sampled_from(
        [
            "d.severity > :number",
            ":number <= d.severity",
            "d.severity = ANY (:numbers)",
            "d.severity NOT IN (1, :number)",
            "d.severity BETWEEN 1 AND :number + 1",
            "d.severity < 2.5",
            "d.severity - 1 = :number",
            "NOT d.severity = 4",
            "d.city = :lowest",
            "d.city <> 'b' AND d.city IS NOT NULL",
            "(d.city = 'a' OR d.severity = :number)",
            "(d.severity = 3 OR :number > 2)",
            "d.filed >= '2024-01-05'",
            "d.filed > :day",
            "d.filed < timestamp '2024-01-01' + :number * interval '2 days'",
            "title LIKE '%1%'",
            "EXISTS (SELECT 1 FROM shop o WHERE o.city = d.city AND o.id > :number)",
            "d.id NOT IN (SELECT id FROM shop)",
            "d.severity IS NULL",
        ]
    ),
    max_size=4,
)
VECTORS = st.sampled_from(
    [":q", "'[1, 0, 2]'", "TO_VECTOR(:q)", "(SELECT vec FROM shop WHERE id = 2)", "l2_normalize(:q::vector)"]
)
ORDERS = st.sampled_from(["d.v <=> {}", "VECTOR_DISTANCE(d.v, {}, COSINE)", "{} <=> d.v ASC NULLS LAST"])
LIMITS = st.sampled_from(
    ["FETCH APPROX FIRST :count ROWS ONLY", "OFFSET :number FETCH APPROX FIRST :count ROWS ONLY ACCURACY 90"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TABLES, CONDITIONS, VECTORS, ORDERS, LIMITS, st.integers(0, 6))
def test_any_indexed_statement_gives_the_same_rows(
    docs: pythiadb.Connection,
    tables: str,
    conditions: list[str],
    vector: str,
    order: str,
    limit: str,
    number: int,
) -> None:
    values = {"number": number, "numbers": [number, 3], "lowest": "b", "day": SINCE, "q": Q, "count": 4}
    where = "WHERE " + " AND ".join(conditions) if conditions else ""
    text = f"SELECT d.id FROM {tables} {where} ORDER BY {order.format(vector)}, d.id {limit}"
    done = docs.translate(text, with_parameters=True)
    assert "vecsys.nearest_" in done.statements[0], done.batched
    plain = docs.execute(text.replace("APPROX ", ""), values).fetchall()
    assert docs.execute(text, values).fetchall() == plain


def test_prepared_and_stored_results(docs: pythiadb.Connection) -> None:
    search = "SELECT id FROM docs WHERE severity = {} ORDER BY v <=> {} FETCH APPROX FIRST 5 ROWS ONLY"
    exact = docs.execute("SELECT id FROM docs WHERE severity = 3 ORDER BY v <=> %s LIMIT 5", (Q,)).fetchall()
    docs.execute(f"PREPARE nearest (int, vector) AS {search.format('$1', '$2')}".encode())
    assert docs.execute(f"EXECUTE nearest (3, '{Q}')".encode()).fetchall() == exact
    docs.execute(f"CREATE TABLE kept AS {search.format('3', repr(Q))}".encode())
    assert sorted(docs.execute("SELECT id FROM kept").fetchall()) == sorted(exact)
    docs.execute("DEALLOCATE nearest")


def test_a_block_searches(docs: pythiadb.Connection) -> None:
    """Variables of the block and bind variables are part of the filter."""
    docs.dialect = "oracle"
    notices: list[str] = []
    docs.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    docs.execute(
        """DECLARE found NUMBER; wanted NUMBER := 1;
        BEGIN
          SELECT id INTO found FROM docs WHERE severity = wanted AND city = :c
            ORDER BY VECTOR_DISTANCE(v, :q, COSINE) FETCH APPROX FIRST ROW ONLY;
          DBMS_OUTPUT.PUT_LINE(found);
        END;""",
        {"c": "b", "q": Q},
    )
    first = docs.execute(
        "SELECT id FROM docs WHERE severity = 1 AND city = 'b' ORDER BY VECTOR_DISTANCE(v, :q, COSINE) FETCH FIRST 1 ROWS ONLY",
        {"q": Q},
    ).fetchone()
    assert first is not None
    assert notices == [str(first[0])]


def test_a_predicate_is_not_stronger_than_its_filter(docs: pythiadb.Connection) -> None:
    """Values of other types, NULL, fractions beside whole numbers: what the index is told is what PostgreSQL compares."""
    told = docs.translate(
        "SELECT id FROM docs WHERE severity > :s AND filed >= :f AND city <> :c ORDER BY v <=> :q FETCH APPROX FIRST 5 ROWS ONLY",
        with_parameters=True,
    ).statements[0]
    start = told.index("jsonb_build_array('and'")
    predicate = told[start : told.index(", of_table =>")]
    values = {"s": 2.5, "f": datetime.date(2024, 1, 1), "c": None}
    row = docs.execute(
        f"SELECT {predicate}".replace("(%(c)s)::text", "%(c)s::text").encode(), values
    ).fetchone()
    assert row == (
        ["and", [">", "severity", "2.5"], [">=", "filed", "2024-01-01T00:00:00"], ["<>", "city", None]],
    )


def test_an_index_dropped_by_another_session(shop: Any, docs: pythiadb.Connection) -> None:
    """The statement was made for an index that is gone; outside of a transaction it is made anew."""
    text = "SELECT id FROM docs ORDER BY v <=> '[1, 2, 3]' FETCH APPROX FIRST 3 ROWS ONLY"
    found = docs.execute(text).fetchall()
    path = docs.execute("SHOW search_path").fetchone()
    assert path is not None
    with pythiadb.connect(shop, autocommit=True) as other:
        other.execute(f"SET search_path = {path[0]}".encode())
        other.execute("DROP INDEX docs_v")
    assert docs.execute(text).fetchall() == found
    assert docs.translate(text).batched == ("no vector index: there is none on docs.v",)


def test_an_index_made_by_another_session(
    shop: Any, docs: pythiadb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "SELECT id FROM shop ORDER BY vec <=> '[1, 2, 3]' FETCH APPROX FIRST 3 ROWS ONLY"
    docs.execute("ALTER TABLE shop RENAME vec TO v")
    text = text.replace("vec", "v")
    assert docs.translate(text).batched == ("no vector index: there is none on shop.v",)
    path = docs.execute("SHOW search_path").fetchone()
    assert path is not None
    with pythiadb.connect(shop, autocommit=True) as other:
        other.execute(f"SET search_path = {path[0]}".encode())
        define(other, "shop_v", "shop", [])
    monkeypatch.setattr(catalogs, "_LOOK_AGAIN", 0.0)
    assert docs.translate(text).batched == ("vector index shop_v",)
    docs.execute("DROP INDEX shop_v")


def test_the_catalog_leaves_a_failed_transaction_alone(
    docs: pythiadb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "SELECT id FROM docs ORDER BY v <=> '[1, 2, 3]' FETCH APPROX FIRST 3 ROWS ONLY"
    docs.execute(text)
    monkeypatch.setattr(catalogs, "_LOOK_AGAIN", 0.0)
    with pytest.raises(psycopg.errors.DivisionByZero), docs.transaction():
        with pytest.raises(psycopg.errors.DivisionByZero):
            docs.execute("SELECT 1 / 0")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            docs.execute(text)
        raise psycopg.errors.DivisionByZero
    assert len(docs.execute(text).fetchall()) == 3


def test_other_indexes_are_postgresqls(docs: pythiadb.Connection) -> None:
    docs.execute("CREATE INDEX docs_city ON docs (city)")
    docs.execute("ALTER INDEX docs_city RENAME TO docs_town")
    docs.execute("DROP INDEX docs_town")
    with pytest.raises(psycopg.errors.UndefinedObject, match='index "docs_town" does not exist'):
        docs.execute("DROP INDEX docs_town")
    assert docs.catalog.vector_index("docs_v") is not None
    docs.execute("DROP INDEX docs_v")
    assert docs.catalog.vector_index("docs_v") is None


def test_json_is_read_whole(docs: pythiadb.Connection) -> None:
    """A JSON parameter in the filter keeps its type in the text that is carried."""
    text = "SELECT id FROM docs WHERE to_jsonb(city) = :j ORDER BY v <=> :q FETCH APPROX FIRST 3 ROWS ONLY"
    values = {"j": Jsonb("b"), "q": Q}
    plain = docs.execute(text.replace("APPROX ", ""), values).fetchall()
    assert docs.execute(text, values).fetchall() == plain
