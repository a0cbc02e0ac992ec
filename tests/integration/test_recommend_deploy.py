"""A recommender's model, maps and vectors in the database: what they hold, for which ids, whose they are, and nothing by halves."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.rows import dict_row
from recommenders import MOVIES, make_movies, recommender

import pythiadb
from pythiadb.errors import InvalidParameter
from pythiadb.recommend import deploy, fold_in, for_user
from tests.integration.vector_tables import one, rows

UUIDS = [str(uuid.UUID(int=(n + 1) << 64)) for n in range(len(MOVIES))]
PAIRS = """
    SELECT PREDICTION(taste USING u.idx AS "USER_IDX", i.idx AS "MOVIE_IDX")
    FROM taste_users u CROSS JOIN taste_items i ORDER BY u.id, i.id
"""


def relations(db: pythiadb.Connection) -> set[str]:
    """Return what is in the test's schema, without indexes."""
    query = (
        "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind <> 'i'"
    )
    return {row[0] for row in rows(db, query)}


def same_vectors(found: Sequence[Any], expected: Sequence[Any]) -> None:
    np.testing.assert_array_equal(np.stack(found), np.stack(expected))


# What is there -------------------------------------------------------------------------------------------------------------


def test_maps_vectors_and_model_belong_together(db: pythiadb.Connection) -> None:
    trained = recommender()
    made = deploy(db, trained, "taste")
    schema = one(db, "SELECT current_schema()")
    assert made.model == f"{schema}.taste"
    assert (made.users_table, made.items_table) == (f"{schema}.taste_users", f"{schema}.taste_items")
    assert (made.users, made.items, made.updated) == (6, len(MOVIES), None)
    for side in ("user", "item"):
        found = rows(db, f"SELECT id, idx, bias, embedding FROM taste_{side}s ORDER BY idx")
        ids = getattr(trained, f"{side}_ids").to_pylist()
        assert [row[:2] for row in found] == list(zip(ids, range(len(ids)), strict=True))
        np.testing.assert_array_equal(
            np.float32([row[2] for row in found]), getattr(trained.factors, f"{side}_bias")
        )
        same_vectors([row[3] for row in found], getattr(trained.factors, f"{side}_vectors"))
        assert "recommender taste" in one(db, f"SELECT obj_description('taste_{side}s'::regclass)")
    u, i = np.indices((made.users, made.items)).reshape(2, -1)
    np.testing.assert_allclose([row[0] for row in rows(db, PAIRS)], trained.factors.predict(u, i), atol=1e-5)
    assert relations(db) == {"taste", "taste_users", "taste_items"} | {
        name for name in relations(db) if name.startswith("dm$")
    }


def test_an_unknown_user_or_item_has_a_documented_answer(db: pythiadb.Connection) -> None:
    """Mean and the other side's bias; the mean alone when both are unknown. NULL gives NULL, other numbers an error."""
    factors = recommender().factors
    deploy(db, recommender(), "taste")
    asked = """
        SELECT PREDICTION(taste USING coalesce(u.idx, -1) AS "USER_IDX", coalesce(i.idx, -1) AS "MOVIE_IDX")
        FROM (VALUES (103, 4), (999, 4), (103, 999), (999, 999)) AS v(who, what)
        LEFT JOIN taste_users u ON u.id = v.who LEFT JOIN taste_items i ON i.id = v.what ORDER BY who = 999, what = 999
    """
    u, i = np.array([2, 2, -1, -1]), np.array([3, -1, 3, -1])
    found = [row[0] for row in rows(db, asked)]
    np.testing.assert_allclose(found, factors.predict(u, i), rtol=1e-6)
    assert found[2] == pytest.approx(min(max(factors.mean + float(factors.item_bias[3]), 1), 5), rel=1e-6)
    assert found[3] == pytest.approx(factors.mean)
    assert one(db, 'SELECT PREDICTION(taste USING 6 AS "USER_IDX", 14 AS "MOVIE_IDX")') == found[3]
    for index in ("NULL", "(SELECT idx FROM taste_users WHERE id = 999)"):
        assert one(db, f'SELECT PREDICTION(taste USING {index} AS "USER_IDX", 1 AS "MOVIE_IDX")') is None
    for index in (7, -2):
        with pytest.raises(psycopg.Error, match="model graph failed while running") as caught:
            db.execute(f'SELECT PREDICTION(taste USING {index} AS "USER_IDX", 1 AS "MOVIE_IDX")')
        assert "out of data bounds" in str(caught.value.diag.message_detail)


def test_vectors_come_beside_the_items(db: pythiadb.Connection) -> None:
    """Rows of items without ratings have none, items without a row do no harm."""
    make_movies(db)
    trained = recommender(item_ids=[*range(3, 11), 500])
    assert deploy(db, trained, "taste", table="movies").updated == 8
    found = dict(rows(db, "SELECT movieid, cf_embedding FROM movies WHERE cf_embedding IS NOT NULL"))
    assert sorted(found) == list(range(3, 11))
    same_vectors([found[n] for n in range(3, 11)], trained.factors.item_vectors[:8])
    assert one(db, "SELECT pg_typeof(cf_embedding)::text FROM movies LIMIT 1") == "vector"


def test_the_session_sees_the_column_at_once(db: pythiadb.Connection) -> None:
    make_movies(db)
    assert rows(db, "SELECT title FROM movies WHERE movieid = 1") == [(MOVIES[0][0],)]
    deploy(db, recommender(), "taste", table="movies", column="vibe")
    nearest = "SELECT movieid FROM movies ORDER BY VECTOR_DISTANCE(vibe, :v, COSINE) FETCH FIRST 1 ROWS ONLY"
    row = db.execute(nearest, {"v": recommender().factors.item_vectors[4]}).fetchone()
    assert row == (5,)


def test_names_are_names_in_sql(db: pythiadb.Connection) -> None:
    schema = f'"Films {uuid.uuid4().hex[:6]}"'
    db.execute(f'CREATE SCHEMA {schema}; CREATE TABLE {schema}."The ""Films""" ("the Key" int PRIMARY KEY)')
    try:
        db.execute(f'INSERT INTO {schema}."The ""Films""" SELECT generate_series(1, 5)')
        made = deploy(
            db,
            recommender(),
            f'{schema}."My ""Taste"""',
            table=f'{schema}."The ""Films"""',
            column='"the Vector"',
        )
        assert made.model == f'{schema}."My ""Taste"""'
        assert made.users_table == f'{schema}."My ""Taste""_users"'
        assert made.updated == 5
        assert one(db, f'SELECT count("the Vector") FROM {schema}."The ""Films"""') == 5
        assert one(db, f'SELECT PREDICTION({made.model} USING 0 AS "USER_IDX", 0 AS "MOVIE_IDX")') is not None
        best = for_user(
            db, made.model, 101, table=f'{schema}."The ""Films"""', columns=['"the Key"'], count=1
        )
        assert best[0].values == {"the Key": best[0].id}
        deploy(db, recommender(1), made.model, replace=True)
    finally:
        db.execute(f"DROP SCHEMA {schema} CASCADE")


def test_a_name_that_leaves_no_room(db: pythiadb.Connection) -> None:
    with pytest.raises(InvalidParameter, match="too long"):
        deploy(db, recommender(), "t" * 58)
    with pytest.raises(psycopg.errors.InvalidName):
        deploy(db, recommender(), "a.b.c")
    made = deploy(db, recommender(), "t" * 57)
    assert made.items_table.endswith("t_items")
    deploy(db, recommender(1), "t" * 57, replace=True)


@pytest.mark.parametrize("dialect", ["db", "oracle"])
def test_rows_of_other_forms_and_other_dialects(dialect: str, request: pytest.FixtureRequest) -> None:
    """The connection's dialect and its way to give rows are the application's business."""
    db: pythiadb.Connection = request.getfixturevalue(dialect)
    make_movies(db)
    db.row_factory = dict_row
    assert deploy(db, recommender(), "taste", table="movies").updated == len(MOVIES)
    assert deploy(db, recommender(1), "taste", table="movies", replace=True).items == len(MOVIES)
    assert fold_in(db, "taste", 7, {1: 5, 2: 1}).used == 2
    found = for_user(
        db, "taste", 7, table="movies", columns=["title"], where="item.genres LIKE '%Comedy%' AND item.year > :after",
        params={"after": 1992}, count=3,
    )  # fmt: skip
    assert len(found) == 3
    assert db.row_factory is dict_row


# Ids -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "key", "kind"),
    [
        (list(range(1, 15)), None, "bigint"),
        ([f"tt{n:04}" for n in range(14)], None, "text"),
        (UUIDS, None, "uuid"),
        ([*UUIDS[:-1], "none"], None, "text"),
        ([f"{{{text}}}" for text in UUIDS], None, "text"),
        (list(range(1, 15)), "smallint", "bigint"),
        (list(range(2**40, 2**40 + 14)), "bigint", "bigint"),
        (list(range(1, 15)), "numeric", "bigint"),
        (list(range(1, 15)), "varchar(20)", "text"),
        ([f"tt{n:04}" for n in range(14)], "text", "text"),
        ([f"tt{n:04}" for n in range(14)], "char(6)", "text"),
        (UUIDS, "uuid", "uuid"),
        ([text.upper() for text in UUIDS], "uuid", "uuid"),
        (UUIDS, "text", "text"),
    ],
)
def test_ids_have_the_type_of_the_key(
    db: pythiadb.Connection, ids: list[Any], key: str | None, kind: str
) -> None:
    if key:
        make_movies(db, key=key, ids=[str(n) for n in ids] if "char" in key else ids)
    trained = recommender(item_ids=ids)
    made = deploy(db, trained, "taste", table="movies" if key else None)
    assert one(db, "SELECT pg_typeof(id)::text FROM taste_items LIMIT 1") == kind
    assert made.updated == (len(ids) if key else None)
    found = [str(row[0]) for row in rows(db, "SELECT id FROM taste_items ORDER BY idx")]
    assert found == [str(n).lower() if kind == "uuid" else str(n) for n in ids]
    assert fold_in(db, "taste", 7, {ids[3]: 5.0, ids[5]: 1.0}).used == 2
    listed = for_user(db, "taste", 7, exclude=[ids[0]], count=99, table="movies" if key else None)
    assert {str(row.id) for row in listed} == set(found[1:])


@pytest.mark.parametrize(
    ("ids", "key", "message"),
    [
        ([f"tt{n:04}" for n in range(14)], "integer", "do not fit column \"movieid\""),
        (list(range(1, 15)), "uuid", "do not fit column \"movieid\""),
        (UUIDS, "bigint", "do not fit column \"movieid\""),
        (list(range(1, 15)), "date", "do not fit column \"movieid\""),
        ([*UUIDS[:-1], "none"], "uuid", 'item id "none" is not a UUID'),
    ],
)  # fmt: skip
def test_ids_that_cannot_match_the_key(
    db: pythiadb.Connection, ids: list[Any], key: str, message: str
) -> None:
    db.execute(f"CREATE TABLE movies (movieid {key} PRIMARY KEY)".encode())
    with pytest.raises(InvalidParameter, match=message):
        deploy(db, recommender(item_ids=ids), "taste", table="movies")
    assert relations(db) == {"movies"}


@pytest.mark.parametrize(
    ("user_ids", "kind"),
    [([5, 7, 2**62], "bigint"), (["ann", "bob", "Zoë"], "text"), (UUIDS[:3], "uuid")],
)
def test_ids_of_users(db: pythiadb.Connection, user_ids: list[Any], kind: str) -> None:
    trained = recommender(user_ids=user_ids)
    deploy(db, trained, "taste")
    assert one(db, "SELECT pg_typeof(id)::text FROM taste_users LIMIT 1") == kind
    for place, user in enumerate(user_ids):
        best = int(trained.factors.scores(np.array([place]))[0].argmax()) + 1
        assert for_user(db, "taste", user, count=1)[0].id == best


# What is refused, and what then is left ----------------------------------------------------------------------------------------


def test_an_item_table_that_does_not_fit(db: pythiadb.Connection) -> None:
    make_movies(db)
    db.execute("CREATE TABLE pairs (a int, b int, PRIMARY KEY (a, b)); CREATE TABLE bare (a int)")
    db.execute("ALTER TABLE movies ADD short VECTOR(3, FLOAT32), ADD filled VECTOR(8, FLOAT32)")
    db.execute("UPDATE movies SET filled = array_fill(1, ARRAY[8])::real[] WHERE movieid = 3")
    before = relations(db)
    for arguments, message in (
        ({"table": "pairs"}, 'table "pairs" has no primary key of one column'),
        ({"table": "bare"}, 'table "bare" has no primary key of one column'),
        ({"table": "movies", "key": "nosuch"}, 'table "movies" has no column "nosuch"'),
        ({"table": "movies", "key": "title"}, 'no item is in table "movies"'),
        (
            {"table": "movies", "column": "title"},
            r'column "title" of table "movies" is of type text, not vector\(8\)',
        ),
        (
            {"table": "movies", "column": "short"},
            r'"short" of table "movies" is of type vector\(3\), not vector\(8\)',
        ),
        ({"table": "movies", "column": "filled"}, 'column "filled" of table "movies" holds vectors already'),
        ({"table": "movies", "column": "a.b"}, 'invalid column name: "a.b"'),
    ):
        with pytest.raises(InvalidParameter, match=message):
            deploy(db, recommender(), "taste", **arguments)  # type: ignore[arg-type]
        assert relations(db) == before
    with pytest.raises(psycopg.errors.UndefinedTable, match='relation "nosuch" does not exist'):
        deploy(db, recommender(), "taste", table="nosuch")
    assert deploy(db, recommender(), "taste", table="movies", column="filled", replace=True).updated == len(
        MOVIES
    )


def test_a_name_that_is_taken(db: pythiadb.Connection) -> None:
    deploy(db, recommender(), "taste")
    with pytest.raises(InvalidParameter, match='"taste" exists already') as caught:
        deploy(db, recommender(1), "taste")
    assert "replace=True" in str(caught.value)
    db.execute("CREATE TABLE mine_users (name text); INSERT INTO mine_users VALUES ('precious')")
    for replace, message in ((False, '"mine_users" exists already'), (True, "is not one of a recommender")):
        with pytest.raises(InvalidParameter, match=message):
            deploy(db, recommender(), "mine", replace=replace)
        assert rows(db, "SELECT * FROM mine_users") == [("precious",)]
        assert "mine" not in relations(db)


def test_a_failure_in_the_middle_leaves_nothing(db: pythiadb.Connection) -> None:
    """The item table refuses the last of the vectors, when model and tables are written."""
    make_movies(db)
    db.execute("ALTER TABLE movies ADD cf_embedding VECTOR(8, FLOAT32)")
    db.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF to_regclass('taste') IS NULL OR (SELECT count(*) FROM taste_items) <> 14 THEN
                RAISE 'too early';
            END IF;
            RAISE 'not this one';
        END $$""")
    db.execute(
        "CREATE TRIGGER refuse BEFORE UPDATE ON movies FOR EACH ROW WHEN (old.movieid = 14) EXECUTE FUNCTION refuse()"
    )
    before, models = relations(db), one(db, "SELECT count(*) FROM pythia.model")
    with pytest.raises(psycopg.errors.RaiseException, match="not this one"):
        deploy(db, recommender(), "taste", table="movies")
    assert relations(db) == before
    assert one(db, "SELECT count(*) FROM pythia.model") == models
    assert one(db, "SELECT count(cf_embedding) FROM movies") == 0
    db.execute("DROP TRIGGER refuse ON movies")
    assert deploy(db, recommender(), "taste", table="movies").updated == len(MOVIES)


def test_it_is_part_of_the_callers_transaction(db: pythiadb.Connection) -> None:
    make_movies(db)
    with db.transaction(force_rollback=True):
        deploy(db, recommender(), "taste", table="movies")
        assert one(db, PAIRS + " LIMIT 1") is not None
    assert {name for name in relations(db) if not name.endswith("pkey")} == {"movies"}
    with pytest.raises(psycopg.errors.UndefinedColumn):
        db.execute("SELECT cf_embedding FROM movies")


def test_vectors_that_are_no_numbers_are_refused(db: pythiadb.Connection) -> None:
    trained = recommender()
    trained.factors.user_vectors[3, 1] = np.nan
    with pytest.raises(psycopg.DataError, match="NaN"):
        deploy(db, trained, "taste")
    assert relations(db) == set()


# Rights --------------------------------------------------------------------------------------------------------------------


def test_all_of_it_is_the_callers(db: pythiadb.Connection, role: str) -> None:
    make_movies(db)
    db.execute("CALL pythia.grant_create_model(:1)", (role,))
    db.execute(f"ALTER TABLE movies OWNER TO {role}; SET SESSION AUTHORIZATION {role}")
    try:
        deploy(db, recommender(), "taste", table="movies")
        owners = rows(
            db, "SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class WHERE relname ^@ 'taste'"
        )
        assert owners == [(role,)]
        deploy(db, recommender(1), "taste", table="movies", replace=True)
        assert fold_in(db, "taste", 7, {1: 5.0}).used == 1
        assert len(for_user(db, "taste", 7)) == 10
    finally:
        db.execute("RESET SESSION AUTHORIZATION")


def test_others_need_what_postgresql_asks_for(db: pythiadb.Connection, role: str) -> None:
    """Reading needs SELECT on model and tables, a fold-in needs to write users, a new version needs the owner."""
    make_movies(db)
    deploy(db, recommender(), "taste")
    db.execute("CALL pythia.grant_create_model(:1)", (role,))
    denied = psycopg.errors.InsufficientPrivilege
    db.execute(f"SET SESSION AUTHORIZATION {role}")
    try:
        for attempt in (
            lambda: for_user(db, "taste", 101),
            lambda: fold_in(db, "taste", 7, {1: 5.0}),
            lambda: deploy(db, recommender(1), "taste", replace=True),
            lambda: deploy(db, recommender(1), "other", table="movies"),
        ):
            with pytest.raises(denied):
                attempt()
        db.execute("RESET SESSION AUTHORIZATION")
        db.execute(
            f"GRANT SELECT ON taste, taste_users, taste_items TO {role}; SET SESSION AUTHORIZATION {role}"
        )
        assert len(for_user(db, "taste", 101)) == 10
        with pytest.raises(denied):
            fold_in(db, "taste", 7, {1: 5.0})
        db.execute("RESET SESSION AUTHORIZATION")
        db.execute(f"GRANT INSERT, UPDATE ON taste_users TO {role}; SET SESSION AUTHORIZATION {role}")
        assert fold_in(db, "taste", 7, {1: 5.0}).used == 1
        with pytest.raises(denied):
            deploy(db, recommender(1), "taste", replace=True)
    finally:
        db.execute("RESET SESSION AUTHORIZATION")
    assert one(db, "SELECT count(*) FROM taste_users") == 7
