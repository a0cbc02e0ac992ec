"""A new version of a recommender in the place of the old one, while others use it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from recommenders import MOVIES, make_movies, predicted, recommender
from shop_models import churn

import pythiadb
from pythiadb.errors import InvalidParameter
from pythiadb.recommend import deploy, fold_in, for_user
from pythiadb.recommend.training import Trained
from tests.integration.vector_tables import one, rows

# One user's ratings by the model through the maps, by the vectors of the maps, and the vectors beside the items: a row an item.
ALL_OF_IT = """
    SELECT i.id, PREDICTION(taste USING u.idx AS "USER_IDX", i.idx AS "MOVIE_IDX"),
           least(greatest(3.5 + u.bias + i.bias - (u.embedding <#> i.embedding), 1), 5), m.cf_embedding = i.embedding
    FROM taste_users u CROSS JOIN taste_items i JOIN movies m ON m.movieid = i.id
    WHERE u.id = 103 ORDER BY i.id
"""
RELATIONS = "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
TURNED = list(range(106, 100, -1))  # users in the other order, so that their indexes are others


def versions() -> tuple[Trained, Trained]:
    return recommender(1), recommender(2, user_ids=TURNED)


def of_user(trained: Trained, user: int) -> list[float]:
    place = trained.user_ids.to_pylist().index(user)
    return [round(float(rating), 3) for rating in np.clip(predicted(trained)[place], 1, 5)]


def heard(db: pythiadb.Connection) -> list[float]:
    """Return a user's ratings after checking that the parts of the recommender belong together."""
    found = db.execute(ALL_OF_IT).fetchall()
    for _, model, tables, same in found:
        assert model == pytest.approx(tables, abs=1e-4)
        assert same
    return [round(row[2], 3) for row in found]


@contextmanager
def asking(
    shop: Path, db: pythiadb.Connection, ask: Callable[[pythiadb.Connection], Any], sessions: int = 2
) -> Iterator[list[Any]]:
    """Let sessions ask again and again; yields what they hear. An error of theirs is raised at the end."""
    path, stopped = one(db, "SHOW search_path"), threading.Event()
    answers: list[Any] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with pythiadb.connect(shop, autocommit=True) as session:
                session.execute(f"SET search_path = {path}".encode())
                while not stopped.is_set():
                    answers.append(ask(session))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(sessions)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert errors == []


def wait_for(answers: list[Any], count: int) -> None:
    """Wait until so many more answers have come."""
    wanted, pause = len(answers) + count, threading.Event()
    for _ in range(6000):
        if len(answers) >= wanted:
            return
        pause.wait(0.01)
    raise AssertionError("no more answers")


def until(happened: Callable[[], bool]) -> None:
    """Wait until something is so."""
    pause = threading.Event()
    for _ in range(6000):
        if happened():
            return
        pause.wait(0.01)
    raise AssertionError("it does not happen")


def test_sessions_find_the_old_one_or_the_new_one_whole(db: pythiadb.Connection, shop: Path) -> None:
    make_movies(db)
    old, new = versions()
    deploy(db, old, "taste", table="movies")
    known = [of_user(old, 103), of_user(new, 103)]
    assert known[0] != known[1]
    with asking(shop, db, heard) as answers:
        for turn in range(6):
            wait_for(answers, 4)
            deploy(db, (new, old)[turn % 2], "taste", table="movies", replace=True)
            assert heard(db) == known[(turn + 1) % 2]
        wait_for(answers, 4)
    assert all(answer in known for answer in answers)
    assert all(answer in answers for answer in known)


def test_lists_are_of_one_version(db: pythiadb.Connection, shop: Path) -> None:
    make_movies(db)
    old, new = versions()
    deploy(db, old, "taste", table="movies")

    def ask(session: pythiadb.Connection) -> list[Any]:
        return [(row.id, row.rating) for row in for_user(session, "taste", 104, table="movies", count=5)]

    known = [ask(db)]
    with db.transaction(force_rollback=True):
        deploy(db, new, "taste", table="movies", replace=True)
        known.append(ask(db))
    assert ask(db) == known[0] != known[1]
    with asking(shop, db, ask) as answers:
        for turn in range(6):
            wait_for(answers, 4)
            deploy(db, (new, old)[turn % 2], "taste", table="movies", replace=True)
    assert all(answer in known for answer in answers)


def test_grants_views_and_names_stay(db: pythiadb.Connection, role: str) -> None:
    make_movies(db)
    old, new = versions()
    deploy(db, old, "taste", table="movies")
    db.execute(f"GRANT SELECT ON taste, taste_users, taste_items TO {role}")
    db.execute("CREATE VIEW known AS SELECT id, embedding FROM taste_items")
    deploy(db, new, "taste", table="movies", replace=True)
    models = "SELECT count(*) FROM pythia.model m JOIN pg_class c ON c.oid = m.relation WHERE c.relnamespace = current_schema()::regnamespace"
    assert one(db, models) == 1
    np.testing.assert_array_equal(
        one(db, "SELECT embedding FROM known WHERE id = 1"), new.factors.item_vectors[0]
    )
    db.execute(f"SET SESSION AUTHORIZATION {role}")
    try:
        assert for_user(db, "taste", 103)[0].id == np.argmax(of_user_raw(new, 103)) + 1
        assert one(db, 'SELECT PREDICTION(taste USING 0 AS "USER_IDX", 0 AS "MOVIE_IDX")') is not None
    finally:
        db.execute("RESET SESSION AUTHORIZATION")


def of_user_raw(trained: Trained, user: int) -> Any:
    return predicted(trained)[trained.user_ids.to_pylist().index(user)]


def test_a_new_version_may_have_other_sizes_and_ids(db: pythiadb.Connection) -> None:
    old = recommender(1)
    words = [f"item {n}" for n in range(20)]
    new = recommender(2, user_ids=["ann", "bob"], item_ids=words, dimensions=5)
    deploy(db, old, "taste")
    for trained, user in ((new, "bob"), (old, 103), (new, "ann")):
        deploy(db, trained, "taste", replace=True)
        raw = of_user_raw(trained, user)  # type: ignore[arg-type]
        assert for_user(db, "taste", user, count=1)[0].id == trained.item_ids.to_pylist()[int(raw.argmax())]


def test_vectors_of_items_that_are_gone_go_too(db: pythiadb.Connection) -> None:
    make_movies(db)
    deploy(db, recommender(), "taste", table="movies")
    new = recommender(1, item_ids=[2, 3, 5])
    assert deploy(db, new, "taste", table="movies", replace=True).updated == 3
    assert [
        row[0] for row in rows(db, "SELECT movieid FROM movies WHERE cf_embedding IS NOT NULL ORDER BY 1")
    ] == [2, 3, 5]


def test_users_who_were_folded_in_go_too(db: pythiadb.Connection) -> None:
    deploy(db, recommender(), "taste")
    fold_in(db, "taste", 7, {1: 5.0, 2: 1.0})
    deploy(db, recommender(1), "taste", replace=True)
    assert rows(db, "SELECT id FROM taste_users WHERE idx IS NULL") == []


def test_a_failure_leaves_the_old_one(db: pythiadb.Connection) -> None:
    make_movies(db)
    old, new = versions()
    deploy(db, old, "taste", table="movies")
    other = recommender(3, dimensions=5)
    with pytest.raises(InvalidParameter, match=r"is of type vector\(8\), not vector\(5\)"):
        deploy(db, other, "taste", table="movies", replace=True)
    with pytest.raises(ZeroDivisionError), db.transaction():
        deploy(db, new, "taste", table="movies", replace=True)
        assert heard(db) == of_user(new, 103)
        raise ZeroDivisionError
    assert heard(db) == of_user(old, 103)


DEPLOY = """
import sys
import pythiadb
from recommenders import recommender
from pythiadb.recommend import deploy
with pythiadb.connect(sys.argv[1]) as db:
    db.execute(f"SET search_path = {sys.argv[2]}".encode())
    deploy(db, recommender(2), "taste", table="movies", replace=True)
"""
STOP_HALFWAY = """
CREATE FUNCTION stop_halfway() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN new; END';
CREATE TRIGGER stop_halfway BEFORE UPDATE ON movies FOR EACH ROW WHEN (old.movieid = 14) EXECUTE FUNCTION stop_halfway()
"""
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"


def test_a_deploy_that_is_killed_leaves_the_old_one(db: pythiadb.Connection, shop: Path) -> None:
    """Killed when model and maps are written and the last of the vectors is not."""
    make_movies(db)
    old = recommender(1)
    deploy(db, old, "taste", table="movies")
    models, before = one(db, "SELECT count(*) FROM pythia.model"), one(db, RELATIONS)
    db.execute(STOP_HALFWAY)
    db.execute("SELECT pg_advisory_lock(4711)")
    try:
        command = [sys.executable, "-c", DEPLOY, str(shop), one(db, "SHOW search_path")]
        paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}) as process:
            until(lambda: process.poll() is not None or one(db, WAITING) == 1)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert heard(db) == of_user(old, 103)
    finally:
        db.execute("SELECT pg_advisory_unlock(4711)")
    # The session of the killed process goes when it finds that nobody listens.
    held = (
        "SELECT count(*) FROM pg_locks WHERE relation = 'taste_users'::regclass AND pid <> pg_backend_pid()"
    )
    until(lambda: one(db, held) == 0)
    assert heard(db) == of_user(old, 103)
    assert (one(db, "SELECT count(*) FROM pythia.model"), one(db, RELATIONS)) == (models, before)
    db.execute("DROP TRIGGER stop_halfway ON movies")
    deploy(db, recommender(2), "taste", table="movies", replace=True)
    assert heard(db) == of_user(recommender(2), 103)


def test_it_may_also_be_the_first(db: pythiadb.Connection) -> None:
    """And complete what there is of one: a model that was loaded from a file."""
    deploy(db, recommender(), "taste", replace=True)
    db.execute("DROP TABLE taste_users, taste_items")
    with pytest.raises(InvalidParameter, match='"taste" exists already'):
        deploy(db, recommender(1), "taste")
    made = deploy(db, recommender(1), "taste", replace=True)
    assert (made.users, made.items) == (6, len(MOVIES))


def test_a_model_of_another_kind_is_not_replaced(db: pythiadb.Connection) -> None:
    made = churn()
    db.execute("CALL dbms_vector.load_onnx_model(:1, :2, :3)", ("taste", made.graph, made.metadata_text))
    with pytest.raises(psycopg.errors.WrongObjectType, match="cannot stand in for each other"):
        deploy(db, recommender(), "taste", replace=True)
    assert one(db, "SELECT to_regclass('taste_users')") is None
    with pytest.raises(InvalidParameter, match='model "taste" is not a recommender'):
        for_user(db, "taste", 101)


def test_a_fold_in_waits_for_the_version_that_comes(db: pythiadb.Connection, shop: Path) -> None:
    """A vector of the old version would say nothing beside the items of the new one."""
    old, new = versions()
    deploy(db, old, "taste")
    path, folded = one(db, "SHOW search_path"), []

    def work() -> None:
        with pythiadb.connect(shop, autocommit=True) as session:
            session.execute(f"SET search_path = {path}".encode())
            folded.append(fold_in(session, "taste", 7, {1: 5.0, 2: 1.0}))

    thread = threading.Thread(target=work)
    with db.transaction():
        deploy(db, new, "taste", replace=True)
        thread.start()
        thread.join(0.5)
        assert not folded
    thread.join()
    bias = one(db, "SELECT bias FROM taste_users WHERE id = 7")
    assert bias == pytest.approx(folded[0].bias)
    fold_in(db, "taste", 8, {1: 5.0, 2: 1.0})
    vectors = rows(db, "SELECT embedding FROM taste_users WHERE idx IS NULL")
    np.testing.assert_array_equal(vectors[0][0], vectors[1][0])
